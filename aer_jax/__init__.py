"""Emotion in speech as a distribution: Qwen2-Audio fine-tuned in JAX on human and synthetic votes.

For notebooks and scripts: `prepare`, `train`, `evaluate`, `load`, `predict`; see aer_jax/api.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aer_jax.api import evaluate, load, predict, prepare, train

__version__ = "0.1.0"
__all__ = ["evaluate", "load", "predict", "prepare", "train"]


def __getattr__(name: str) -> Any:
    # JAX and the rest come with the first of the names that is used, so that `import aer_jax` answers at once.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aer_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
