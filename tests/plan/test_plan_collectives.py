"""Collectives read from compiled programs: one whose collectives are known, and one as TPU programs are written."""

import json
import os
import subprocess
import sys

import pytest

from aer_jax.plan.collectives import Collective, collectives

# In each of 5 turns: gather [4, 6] into [32, 6], reduce a [3]; once: scatter [32, 6] into [4, 6], exchange, send on.
PROGRAM = """
import dataclasses, functools, json
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from aer_jax.plan.collectives import collectives

mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

@functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("i"), P("i")), out_specs=P("i"), check_vma=False)
def step(x, y):
    def turn(carry, _):
        x, y = carry
        whole = jax.lax.all_gather(x, "i", tiled=True)
        return (x + whole[8:12].sum() * x, jax.lax.psum(y * x[0, 0], "i")), None
    (x, y), _ = jax.lax.scan(turn, (x, y), None, length=5)
    x = jax.lax.psum_scatter(jnp.tile(x, (8, 1)) * y[0], "i", tiled=True)
    x = jax.lax.all_to_all(jnp.tile(x, (2, 1)), "i", 0, 0, tiled=True)
    return jax.lax.ppermute(x, "i", [(n, (n + 1) % 8) for n in range(8)])

shape = jax.ShapeDtypeStruct
compiled = jax.jit(step).lower(shape((32, 6), jnp.float32), shape((24,), jnp.float32)).compile()
rows = [dataclasses.astuple(row) for row in collectives(compiled.as_text(), 8)]
known = [*compiled.cost_analysis(), *(name for name in dir(compiled.memory_analysis()) if name.endswith("bytes"))]
print(json.dumps({"rows": rows, "known": known}))
"""


def test_a_program_whose_collectives_are_known():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    rows = {row[0]: row[1:] for row in printed["rows"]}  # kind: group, count, payload, wire
    assert rows["all-gather"] == [8, 5, 5 * 4 * 32 * 6, 5 * 4 * 32 * 6 * 7 / 8]
    assert rows["all-reduce"] == [8, 5, 5 * 4 * 3, 5 * 2 * 4 * 3 * 7 / 8]
    assert rows["reduce-scatter"] == [8, 1, 4 * 4 * 6, 4 * 4 * 6 * 7]
    assert rows["all-to-all"] == [8, 1, 4 * 8 * 6, 4 * 8 * 6 * 7 / 8]
    assert rows["collective-permute"][1:] == [1, 4 * 8 * 6, 4 * 8 * 6]
    assert "bytes accessed" in printed["known"] and "temp_size_in_bytes" in printed["known"]
    sent = ("collective", "gather", "reduce", "all", "permute", "scatter", "network", "wire", "link")
    named = [name for name in printed["known"] if any(word in name for word in sent)]
    assert not named, "XLA's own analyses know now what chips send: use them instead of reading the program"


# As libtpu writes: a gather in two pieces of one channel inside a loop of 32 inside a loop of 4, groups by mesh axes.
TPU = """HloModule jit_step
%first (p: bf16[256,8]) -> bf16[4096,8] {
  %all-gather.1 = bf16[4096,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=16] {'axis_1'}, dimensions={0}
}
%second (p: bf16[256,8]) -> bf16[4096,8] {
  ROOT %all-gather.2 = bf16[4096,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=16] {'axis_1'}, dimensions={0}
}
%inner_condition (s: (s32[])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(32)
  ROOT %lt.1 = pred[]{:T(512)} compare(%i, %constant.1), direction=LT
}
%inner (s: (s32[])) -> (s32[]) {
  %start = bf16[4096,8] fusion(%x), kind=kCustom, calls=%first
  %end = bf16[4096,8] fusion(%start), kind=kCustom, calls=%second
  %all-reduce.1 = (f32[10]{0}, /*index=1*/f32[2,5]{1,0}) all-reduce(%a, %b), channel_id=9, \
replica_groups=[2,16]<=[32], to_apply=%add
}
%outer_condition (s: (s32[])) -> pred[] {
  ROOT %lt.2 = pred[] compare(%i, %n), direction=LT
}
%outer (s: (s32[])) -> (s32[]) {
  %while.1 = (s32[]) while(%t), condition=%inner_condition, body=%inner
}
ENTRY %main (x: f32[]) -> f32[] {
  %while.2 = (s32[]) while(%t), condition=%outer_condition, body=%outer, \
backend_config={"known_trip_count":{"n":"4"}}
  %all-to-all.1 = f32[100]{0} all-to-all(%c), channel_id=11, replica_groups={{0,1},{2,3}}, dimensions={0}
  %all-gather.3 = f32[80]{0} all-gather(%e), channel_id=13, replica_groups=mesh['axis_0'=8,'axis_1'=4], \
device_ids=([4,8]T(1,0)) {'axis_0':(2)2,'axis_1'}, dimensions={0}
  %collective-permute-start = (f32[25]{0}, f32[25]{0}, u32[], u32[]) collective-permute-start(%d), channel_id=12
}
"""


def test_loops_multiply_pieces_of_a_channel_count_once_and_groups_are_read_in_every_spelling():
    gathered = 4 * 32 * 4096 * 8 * 2
    assert collectives(TPU, 32) == [
        Collective("all-gather", 16, 128, gathered, gathered * 15 // 16),
        Collective("all-reduce", 16, 128, 128 * 80, 128 * 2 * 80 * 15 // 16),
        Collective("all-gather", 8, 1, 320, 280),
        Collective("all-to-all", 2, 1, 400, 200),
        Collective("collective-permute", 32, 1, 100, 100),
    ]


# As XLA writes for GPUs: several arrays in one collective, whose start hands on all operands before the results.
GPU = """HloModule jit_step
ENTRY %main (x: f32[]) -> f32[] {
  %all-gather-start.17 = ((bf16[160,8]{1,0}, f32[160]{0}, bf16[1]{0}, bf16[1]{0}, bf16[1]{0}, /*index=5*/bf16[1]{0}), \
(bf16[1280,8]{1,0}, f32[1280]{0}, bf16[8]{0}, bf16[8]{0}, bf16[8]{0}, /*index=5*/bf16[8]{0})) all-gather-start(%a, %b, \
%c, %d, %e, /*index=5*/%f), channel_id=9, replica_groups=mesh['axis_0'=1,'axis_1'=8] {'axis_1'}, dimensions={0}
  %all-reduce-start.1 = (f32[25]{0}, f32[75]{0}) all-reduce-start(%h, %i), channel_id=10, replica_groups={{0,1}}, \
to_apply=%add
  %reduce-scatter-start = ((f32[80]{0}, f32[160]{0}), (f32[10]{0}, f32[20]{0})) reduce-scatter-start(%j, %k), \
channel_id=11, replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  %all-to-all-start = ((f32[8,10]{1,0}), f32[8,10]{1,0}) all-to-all-start(%l), channel_id=12, \
replica_groups=[1,8]<=[8], dimensions={0}
}
"""


def test_collectives_of_several_arrays_begun_early():
    gathered = 2 * 1280 * 8 + 4 * 1280 + 4 * 2 * 8
    assert collectives(GPU, 8) == [
        Collective("all-gather", 8, 1, gathered, gathered * 7 // 8),
        Collective("reduce-scatter", 8, 1, 120, 840),
        Collective("all-reduce", 2, 1, 400, 400),
        Collective("all-to-all", 8, 1, 320, 280),
    ]


def test_a_loop_that_nobody_can_count_is_an_error():
    with pytest.raises(ValueError, match="trip count"):
        collectives(TPU.replace("constant(32)", "parameter(0)"), 32)


def test_groups_that_nobody_can_read_are_an_error():
    with pytest.raises(ValueError, match="groups of chips"):
        collectives(TPU.replace("replica_groups={{0,1},{2,3}}", "replica_groups=something"), 32)
