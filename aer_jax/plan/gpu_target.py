"""XLA's description of a GPU that is absent."""

from __future__ import annotations

from aer_jax.chips import Chip

# From the CUDA programming guide's table of compute capabilities and NVIDIA's papers on the A100 and the H100:
# cores, FPUs per core, shared memory per core and block, L2 cache, clock in GHz.
_FIELDS = ("core_count", "fpus_per_core", "shared_memory_per_core", "shared_memory_per_block_optin", "l2_cache_size",
           "clock_rate_ghz")  # fmt: skip
_AMPERE = (108, 64, 164 * 1024, 163 * 1024, 40 * 2**20, 1.41)
_HOPPER = (132, 128, 228 * 1024, 227 * 1024, 50 * 2**20, 1.98)
_GPUS = {"a100": (8, _AMPERE), "h100": (9, _HOPPER), "h200": (9, _HOPPER)}
_ALL = {
    "threads_per_warp": 32,
    "threads_per_block_limit": 1024,
    "threads_per_core_limit": 2048,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "shared_memory_per_block": 48 * 1024,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
}


def target_config(chip: Chip) -> str:
    """XLA's `GpuTargetConfigProto` of a GPU in `chips.CHIPS`, as text.

    Driver and libraries are left out but for cuDNN, of a version that knows all that is asked of it here.
    """
    capability, own = _GPUS[chip.name]
    memory = {"device_memory_size": int(chip.hbm), "memory_bandwidth": int(chip.hbm_rate)}
    numbers = _ALL | dict(zip(_FIELDS, own, strict=True)) | memory
    facts = "\n".join(f"  {name}: {value}" for name, value in numbers.items())
    return (
        f"gpu_device_info {{\n{facts}\n  cuda_compute_capability {{ major: {capability} }}\n}}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 }\n"
        f'device_description_str: "{chip.name}"\n'
    )
