"""Shared by the JAX workers: a job's settings, opened on the first device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from safetensors.numpy import save_file

from aer_jax.config import Config, load_config
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.adapters.peft_format import adapter_config, adapter_tensors
from aer_jax.models.emotion_model import EmotionModel, load_model
from aer_jax.models.sharding import make_mesh


class JaxRun(NamedTuple):
    """Settings of a job, and what they name."""

    config: Config
    mesh: jax.sharding.Mesh
    dataset: Dataset
    prompt: PromptEncoder
    model: EmotionModel


def open_run(job: Mapping[str, Any]) -> JaxRun:
    """The run of a job; adapters and head are written to its `trainables` for PyTorch."""
    config = load_config(job["config"])
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    jax.set_mesh(mesh)
    dataset = open_dataset(config.data.dataset)
    prompt = PromptEncoder.of(config, dataset.classes)
    model = load_model(config.model, dataset.classes, mesh, config.seed)
    save_file(adapter_tensors(model), job["trainables"])
    return JaxRun(config, mesh, dataset, prompt, model)


def describe(run: JaxRun) -> dict[str, Any]:
    """What the PyTorch workers and the result need to know of it."""
    return device() | {"lora": adapter_config(run.model, run.config.model), "classes": len(run.dataset.classes)}


def device() -> dict[str, Any]:
    """Device and versions, for a result."""
    return {"device": jax.devices()[0].device_kind, "versions": {"jax": jax.__version__}}
