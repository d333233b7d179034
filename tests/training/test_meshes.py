"""However the mesh divides model and batch, ten steps with dropout give the losses and trainables of one device."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MESHES = ("2x2x2",)
MORE_MESHES = ("8x1x1", "1x8x1", "1x1x8", "1x4x2", "2x1x4", "4x2x1")
HERE = Path(__file__).parent
# A shift that all keys share leaves the softmax as it is, so this gradient is rounding alone, which Adam makes large.
NO_GRADIENT = "['emotion_head']['k_proj']['bias'].value"


def train(out: Path, meshes, head="paper") -> dict[str, dict[str, np.ndarray]]:
    """mesh -> what eight_devices.py saved."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",  # quick to compile
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, HERE / "eight_devices.py", out, head, "1x1x1", *meshes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: dict(np.load(out / f"{name}.npz")) for name in ("1x1x1", *meshes)}


def compare(trained, mesh: str, parameters=33) -> str:
    """Refuse a mesh whose losses or trainables differ by more than 1e-5, relative; else say by how much."""
    one, many = trained["1x1x1"], trained[mesh]
    losses = np.abs(many["losses"] / one["losses"] - 1).max()
    names = set(one) - {"losses", "divided", NO_GRADIENT}
    worst = max(np.linalg.norm(many[name] - one[name]) / np.linalg.norm(one[name]) for name in names)
    assert len(names) == parameters and losses < 1e-5 and worst < 1e-5, (mesh, losses, worst)
    assert many["divided"] >= 40 or (mesh == "8x1x1" and many["divided"] == 0)
    return f"{mesh}: losses within {losses:.1e}, trainables within {worst:.1e}"


@pytest.mark.parametrize(("head", "parameters", "learned"), [("paper", 33, 0.9), ("answers", 16, 0.97)])
def test_ten_steps_are_those_of_one_device(head, parameters, learned, tmp_path, capsys):
    trained = train(tmp_path, MESHES, head)
    said = [compare(trained, mesh, parameters) for mesh in MESHES]
    assert trained["1x1x1"]["losses"][-1] < learned * trained["1x1x1"]["losses"][0], "the steps must learn something"
    with capsys.disabled():
        print("\n    ten steps with dropout against one device:", "; ".join(said), end="")


@pytest.mark.slow
def test_ten_steps_on_more_meshes(tmp_path):
    trained = train(tmp_path, MORE_MESHES)
    for mesh in MORE_MESHES:
        compare(trained, mesh)
