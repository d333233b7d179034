"""A GPU as XLA's compiler wants to know it, where there is none to ask."""

from __future__ import annotations

from aer_jax.chips import Chip

# Of the CUDA programming guide's table of compute capabilities (8.0, 9.0) and NVIDIA's papers on the A100 and the H100.
_AMPERE = {
    "core_count": 108,
    "fpus_per_core": 64,
    "shared_memory_per_core": 164 * 1024,
    "shared_memory_per_block_optin": 163 * 1024,
    "l2_cache_size": 40 * 2**20,
    "clock_rate_ghz": 1.41,
}
_HOPPER = {
    "core_count": 132,
    "fpus_per_core": 128,
    "shared_memory_per_core": 228 * 1024,
    "shared_memory_per_block_optin": 227 * 1024,
    "l2_cache_size": 50 * 2**20,
    "clock_rate_ghz": 1.98,
}
_BOTH = {
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
_GPUS = {"a100": (8, _AMPERE), "h100": (9, _HOPPER), "h200": (9, _HOPPER)}


def target_config(chip: Chip) -> str:
    """XLA's `GpuTargetConfigProto` of a GPU in `chips.CHIPS`, as text.

    Driver and libraries are left out but for cuDNN, of a version that knows all that is asked of it here.
    """
    capability, own = _GPUS[chip.name]
    memory = {"device_memory_size": int(chip.hbm), "memory_bandwidth": int(chip.hbm_rate)}
    facts = "\n".join(f"  {name}: {value}" for name, value in (_BOTH | own | memory).items())
    return (
        f"gpu_device_info {{\n{facts}\n  cuda_compute_capability {{ major: {capability} }}\n}}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 }\n"
        f'device_description_str: "{chip.name}"\n'
    )
