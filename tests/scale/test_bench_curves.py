"""How costs grow: the toy's compiled programs keep the bounds, and what is counted in a program is what it computes."""

import json
import os
import subprocess
import sys

import pytest
import toy_runs

from aer_jax.config import load_config
from aer_jax.scale.bench_curves import CURVES, TooSteep, bench_curves, exponent, refuse_steep, request, table
from aer_jax.scale.curve_figures import write_curves

POINTS = {
    "seconds": (2.5, 5),
    "rows": (8, 32),
    "labels": (8, 32),
    "listeners": (1, 5, 20),
    "data": (1, 8),
    "fsdp": (1, 8),
}


@pytest.mark.slow
def test_costs_of_the_toy_grow_no_more_than_they_may(tmp_path):
    config = load_config(None, [f"model.checkpoint={toy_runs.CHECKPOINT}", "model.dtype=bfloat16"])
    result = bench_curves(config, POINTS)
    refuse_steep(result)
    curves = result["curves"]
    assert curves["seconds"]["exponent"]["flops"] > 0.7, "a short clip does not pay for the longest"
    assert curves["listeners"]["flops"][1] == curves["listeners"]["flops"][2], "five personas are all that is asked"
    assert curves["fsdp"]["exponent"]["held"] < curves["data"]["exponent"]["held"] < 0
    for name, curve in curves.items():
        assert curve["exponent"]["flops"] == pytest.approx(exponent(POINTS[name], curve["flops"]))
    steep = json.loads(json.dumps(result))
    steep["curves"]["labels"]["exponent"]["flops"] = 1.0
    with pytest.raises(TooSteep, match=r"operations with labels by 1.00 \(at most 0.5\)"):
        refuse_steep(steep)
    said = table(result)
    assert "4 times the labels cost 1.2" in said and said.count("at most") == 2 * 12

    write_curves(result, tmp_path / "new")
    made = {path.name: path for path in (tmp_path / "new").iterdir()}
    assert set(made) == {
        "curves.json",
        *(f"{name}.svg" for name in ("seconds", "rows", "labels", "listeners", "devices")),
    }
    assert json.loads(made["curves.json"].read_text()) == result
    assert "data exponent" in made["devices.svg"].read_text() and made["devices.svg"].stat().st_size < 50_000


def test_exponents():
    assert exponent((1, 2, 4), (3, 12, 48)) == pytest.approx(2)
    assert exponent((1, 2, 8), (8, 4, 1)) == pytest.approx(-1)
    assert request("listeners", 20) == request("listeners", 5) != request("listeners", 2)
    assert request("rows", 32) == request("data", 1) == request("fsdp", 1), "compiled once"
    assert all(set(curve.most) <= {"flops", "held", "working"} for curve in CURVES.values())


# Five turns of a product over rows divided among four devices, and a convolution on each of them.
PROGRAM = """
import json
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from aer_jax.scale.flops import count_flops
from aer_jax.scale.program_flops import program_flops

mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

def step(x, w, kernel):
    def turn(x, _):
        return jnp.tanh(x @ w), None
    x, _ = jax.lax.scan(turn, x, None, length=5)
    return jax.lax.conv_general_dilated(x, kernel, (2,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC"))

def array(shape, spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))

traced = jax.jit(step).trace(array((16, 10, 7), P("i")), array((7, 7), P()), array((3, 7, 8), P()))
print(json.dumps([program_flops(traced.lower().compile().as_text()), count_flops(traced.jaxpr)]))
"""


def test_a_device_is_charged_for_its_share_as_often_as_the_loop_runs():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, all_devices = json.loads(done.stdout)
    assert one == 5 * 2 * (4 * 10 * 7) * 7 + 2 * (4 * 5 * 8) * (3 * 7) and all_devices == 4 * one
