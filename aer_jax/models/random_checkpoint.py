"""A checkpoint with the published 7B's names, shapes and files but random weights: for timing, not for results.

python -m aer_jax.models.random_checkpoint OUT --text-layers 4
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from flax import nnx
from safetensors.numpy import save_file
from tqdm import tqdm
from transformers import Qwen2AudioConfig

from aer_jax.errors import UserError
from aer_jax.files.atomic import whole_directory
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.weights import base_parameters

PUBLISHED = Path(__file__).with_name("qwen2_audio_7b.json")
TOY = Path(__file__).parents[1] / "demo" / "checkpoint"
SHARD = 2 << 30  # bytes of a file, before the next one is begun


def published_config(audio_layers: int | None = None, text_layers: int | None = None) -> dict:
    """config.json of Qwen2-Audio-7B-Instruct, as sparse as its authors wrote it; fewer layers where asked."""
    config = json.loads(PUBLISHED.read_text())
    if audio_layers is not None:
        config["audio_config"]["encoder_layers"] = audio_layers
    if text_layers is not None:
        config["text_config"]["num_hidden_layers"] = text_layers
    return config


def write_random_checkpoint(
    out: Path,
    *,
    audio_layers: int | None = None,
    text_layers: int | None = None,
    seed: int = 0,
    tokenizer: bool = False,
) -> None:
    """Write config.json, shards of bfloat16 tensors and their index.

    Norm scales are 1, all other values have random sign and mantissa and the magnitude of trained weights, so that
    activations keep their scale.

    Args:
        out: the directory to make.
        audio_layers, text_layers: how many of each kind; None for the published 32.
        seed: of the values.
        tokenizer: put the toy checkpoint's processor next to them, so that prompts can be read. They are then about as
            long as with the published one, and the audio token is the toy's.

    Raises:
        UserError: `out` is taken.
    """
    if out.exists():
        raise UserError(f"{out} exists; choose another place.")
    with whole_directory(out) as partial:
        config = published_config(audio_layers, text_layers)
        if tokenizer:
            config["audio_token_index"] = json.loads((TOY / "config.json").read_text())["audio_token_index"]
            _copy_processor(partial, config["audio_config"]["num_mel_bins"])
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        shapes = dict(_shapes(Qwen2AudioConfig.from_dict(config)))
        shards: list[list[str]] = [[]]
        for name in shapes:
            if shards[-1] and 2 * sum(math.prod(shapes[other]) for other in (*shards[-1], name)) > SHARD:
                shards.append([])
            shards[-1].append(name)
        rng = np.random.default_rng(seed)
        file_of: dict[str, str] = {}
        for number, names in enumerate(tqdm(shards, "write", unit="file"), 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            save_file({n: _random(n, shapes[n], rng) for n in names}, partial / file, metadata={"format": "pt"})
            file_of |= dict.fromkeys(names, file)
        total = 2 * sum(map(math.prod, shapes.values()))
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(file_of.items()))}
        (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _copy_processor(out: Path, mels: int) -> None:
    for file in TOY.iterdir():
        if file.name.startswith("tokenizer") or file.suffix == ".jinja":
            shutil.copyfile(file, out / file.name)
    processor = json.loads((TOY / "processor_config.json").read_text())
    processor["feature_extractor"]["feature_size"] = mels
    (out / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def _shapes(config: Qwen2AudioConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    for parameter in base_parameters(model):
        for name in parameter.names:
            yield name, parameter.torch_shape


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith("norm.weight"):
        return np.ones(shape, ml_dtypes.bfloat16)
    # Sign and mantissa are drawn; the exponent makes the magnitude 1/64 to 1/32.
    bits = rng.integers(0, 1 << 16, shape, np.uint16)
    bits &= 0x807F
    bits |= (127 - 6) << 7
    return bits.view(ml_dtypes.bfloat16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--audio-layers", type=int)
    parser.add_argument("--text-layers", type=int)
    args = parser.parse_args()
    write_random_checkpoint(args.out, audio_layers=args.audio_layers, text_layers=args.text_layers)
