"""The annotating models: each engine takes questions and yields answers, see `interface.Engine`.

An engine knows no journal and no listener but those it is asked for; a new one is a class and a line in `open_engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aer_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from aer_jax.annotation.engines.interface import Engine
    from aer_jax.annotation.task import AnnotationTask

ENGINES = ("transformers", "openai", "exact")


def open_engine(name: str, model: str, task: AnnotationTask, **options: Any) -> Engine:
    """An engine by its name; each is imported on use, since one needs JAX and another an HTTP client.

    Args:
        name: one of ENGINES.
        model: a checkpoint, or what the server calls it.
        task: prompt and dataset.
        options: of this engine's constructor.

    Raises:
        UserError: there is no such engine, or it cannot be opened.
    """
    if name == "transformers":
        from aer_jax.annotation.engines.pytorch.transformers_engine import TransformersEngine

        return TransformersEngine(model, task, **options)
    if name == "openai":
        from aer_jax.annotation.engines.served.openai_engine import OpenAIEngine

        return OpenAIEngine(model, task, **options)
    if name == "exact":
        from aer_jax.annotation.engines.exact import ExactEngine

        return ExactEngine(model, task, **options)
    raise UserError(f'there is no engine "{name}".{nearest(name, ENGINES)} Known: {", ".join(ENGINES)}.')
