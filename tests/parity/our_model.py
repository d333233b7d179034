"""Our model, its trainables under torch's names, and batches of the clips that PyTorch is given too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from aer_jax.config import LoraConfig, MeshConfig, ModelConfig
from aer_jax.corpora import crema_d
from aer_jax.corpora.base import Waveform
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.audio.read import read_audio, to_16k
from aer_jax.data.batching.buckets import NO_PREFIX, Batch, collate
from aer_jax.data.batching.shapes import window_for
from aer_jax.data.prompt import PromptEncoder
from aer_jax.labels.votes import Votes, normalise
from aer_jax.models.emotion_model import TRAINABLE, EmotionModel, load_model
from aer_jax.models.sharding import make_mesh

SILENT = "1076_MTI_SAD_XX"  # in every copy of CREMA-D
PEFT = {"a": "lora_A.default.weight", "b": "lora_B.default.weight"}
# How far a matrix is moved, in units of 1 / sqrt(inputs), and a vector; last layers far, for predictions of all kinds.
SPREAD = {("lora", "b"): 0.3, ("linear3", "kernel"): 3.0}
TORCH = {"kernel": "weight", "scale": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Speech:
    """Clips with what listeners heard.

    Attributes:
        name: of the corpus.
        classes: its labels.
        audio: float32 [samples] at 16 kHz, each.
        transcripts: the words.
        targets_nk: shares of the votes, float64.
    """

    name: str
    classes: tuple[str, ...]
    audio: list[np.ndarray]
    transcripts: list[str]
    targets_nk: np.ndarray

    def first(self, clips: int) -> Speech:
        """The first few."""
        return replace(
            self, audio=self.audio[:clips], transcripts=self.transcripts[:clips], targets_nk=self.targets_nk[:clips]
        )


def read_speech(crema_d_root: Path | None, clips: int) -> Speech:
    """Recordings spread over CREMA-D, or as many toy clips where there is none."""
    if crema_d_root is None:
        corpus = toy.generate(clips=clips, speakers=12, seed=7)
        chosen = corpus.clips
    else:
        corpus = crema_d.read(crema_d_root)
        usable = [clip for clip in corpus.clips if clip.votes and clip.id != SILENT]
        chosen = [usable[i] for i in np.random.default_rng(0).permutation(len(usable))[:clips]]
    audio = [to_16k(c.audio if isinstance(c.audio, Waveform) else read_audio(c.audio)) for c in chosen]
    votes = [vote for clip in chosen for vote in clip.votes]
    targets_nk = normalise(Votes(votes).counts([clip.id for clip in chosen], corpus.classes))
    return Speech(corpus.name, corpus.classes, audio, [clip.transcript for clip in chosen], targets_nk)


def load_ours(
    checkpoint: Path, classes: int, *, head: str = "paper", dtype: str = "float32", rank: int = 8, dropout: float = 0.0
) -> EmotionModel:
    """Ours on one device, every trainable moved off its initial value: a B of zero would give A no gradient."""
    settings = LoraConfig(rank=rank, alpha=2.0 * rank, dropout=dropout)
    config = ModelConfig(checkpoint=str(checkpoint), head=head, dtype=dtype, lora=settings)
    model = load_model(config, "abcdefgh"[:classes], one_device(), seed=0)
    rng = np.random.default_rng(1)
    for path, variable in nnx.to_flat_state(nnx.state(model, TRAINABLE)):
        value = np.asarray(variable[...])
        noise = rng.standard_normal(value.shape).astype(np.float32)
        spread = SPREAD.get(path[-2:], 0.05)
        if path[-2:] == ("linear", "kernel"):
            spread = 1.0  # the readout divides its inputs by the root of their number itself
        elif value.ndim > 1:
            spread *= value.shape[-2] ** -0.5
        variable.set_value(jax.device_put(value + spread * noise, variable.sharding))
    return model


def one_device() -> jax.sharding.Mesh:
    """The first device alone, whatever else there is."""
    return make_mesh(MeshConfig(), jax.devices()[:1])


def named_tensors(trainable: nnx.State) -> dict[str, np.ndarray]:
    """Adapters and head, or their gradients, under the names and in the layout of `PaperModel.named_tensors`."""
    tensors = {}
    for path, variable in nnx.to_flat_state(trainable):
        *module, kind = path
        array = np.asarray(variable[...])
        if kind in PEFT:
            before, after = ".".join(module[1:]).removesuffix(".lora").split(".layers.")
            for layer, matrix in enumerate(array):
                name = f"adapted.base_model.model.model.{before}.layers.{layer}.{after}.{PEFT[kind]}"
                tensors[name] = matrix.T
        else:
            tensors[".".join([*module, TORCH[kind]])] = array.T
    return tensors


def our_batch(speech: Speech, encoder: PromptEncoder, rows: Sequence[int], prefix: np.ndarray = NO_PREFIX) -> Batch:
    """Clips as the training stream collates them, in one shape for the whole corpus; `prefix` is read once for all."""
    tokens = [
        encoder.encode(words, "", len(clip)) for words, clip in zip(speech.transcripts, speech.audio, strict=True)
    ]
    return collate(
        [speech.audio[i] for i in rows],
        [tokens[i] for i in rows],
        speech.targets_nk[list(rows)],
        rows,
        batch=len(rows),
        window=int(window_for([len(clip) for clip in speech.audio]).max()),
        text_length=max(map(len, tokens)) - len(prefix),
        pad_id=encoder.pad_id,
        prefix=prefix,
    )
