"""Page of DiME-Aug's mixes next to their parents, to look at and listen to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.config import Config, load_config
from aer_jax.data import dime_aug
from aer_jax.data.augment import FASTEST, SEMITONES, SLOWEST, augment
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.examples import Example, mix_audio
from aer_jax.errors import UserError
from aer_jax.reports.pages.page import write_page
from aer_jax.reports.pages.sounds import Scale, picture, playable
from aer_jax.training.input_hashes import refuse_other_inputs
from aer_jax.training.run import read_run
from aer_jax.training.targets import Targets


def write_augmented(run: Path, out: Path, samples: int, licensed: bool = False) -> None:
    """Write the page about a run's plan, whole or not at all.

    Args:
        run: its directory, finished or not.
        out: the file; it carries the clips that it shows.
        samples: how many mixes it shows, from each class in turn, first come in the plan, whose order is random.
        licensed: write it for a licensed corpus too.

    Raises:
        UserError: `run` is none or has no plan, its dataset or journal is gone or another one now, `out` cannot be
            written, or the corpus is licensed.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is not a run directory (no config.yaml); `aer-jax train` makes one.")
    if samples < 1:
        raise UserError(f"--samples is {samples}; the page shows at least one.")
    config = load_config(run / "config.yaml")
    if config.data.dime_aug.ratio == 0:
        raise UserError(f"{run} has DiME-Aug turned off (data.dime_aug.ratio is 0); there is nothing to hear.")
    dataset = open_dataset(config.data.dataset)
    if dataset.licensed and not licensed:
        raise UserError(
            f"{dataset.name} is licensed, and the page would carry its audio and words; if it stays on your machines, "
            "say so with --licensed."
        )
    if (run / "environment.json").is_file():
        refuse_other_inputs(run, config, read_run(run).environment.get("learns_from", {}), base=False)
    try:
        plan = dime_aug.from_json((run / "dime_aug.json").read_text(encoding="utf-8"), dataset.utterances)
    except OSError:
        raise UserError(f"{run} has no dime_aug.json yet; `aer-jax train` writes it when it starts.") from None
    write_page("augmented.html", _content(config, dataset, plan, samples), out)


def choose(plan: dime_aug.Plan, samples: int) -> list[Example]:
    """The first mixes of each class in turn."""
    by_class: dict[int, list[Example]] = {}
    for mix in plan.mixes:
        by_class.setdefault(int(np.argmax(mix.target)), []).append(mix)
    turns = chain.from_iterable(zip_longest(*(by_class[k] for k in sorted(by_class))))
    return [mix for mix in turns if mix is not None][:samples]


def _content(config: Config, dataset: Dataset, plan: dime_aug.Plan, samples: int) -> dict[str, Any]:
    shown = choose(plan, samples)
    parents = list(dict.fromkeys(id for mix in shown for id in mix.heard))
    targets_nk = Targets(dataset, config.labels).distributions(parents)
    target_of = dict(zip(parents, targets_nk.tolist(), strict=True))
    most = round(config.data.max_seconds * SAMPLE_RATE)
    audio_of = {id: dataset.audio(id)[:most] for id in parents}
    after = plan.after
    return {
        "dataset": dataset.name,
        "plan": plan,
        "after": after,
        "largest": max(after.values()),
        "notes": plan.notes(),
        "shown": [_sample(mix, dataset, audio_of, target_of) for mix in shown],
        "probability": config.data.augment,
        "changed": _changed(audio_of[shown[0].first]) if shown and config.data.augment else [],
        "example": shown[0].first if shown else "",
    }


def _sample(
    mix: Example, dataset: Dataset, audio_of: dict[str, np.ndarray], target_of: dict[str, Sequence[float]]
) -> dict[str, Any]:
    first, second = mix.heard
    first_t, second_t = audio_of[first], audio_of[second]
    mixed_t = mix_audio(first_t, second_t, mix.alpha)
    scale = Scale.of(first_t, second_t)
    clips = [
        ("first", first, first_t, target_of[first], 1 - mix.alpha),
        ("mix", mix.spoken, mixed_t, mix.target, None),
        ("second", second, second_t, target_of[second], mix.alpha),
    ]
    return {
        "label": dataset.classes[int(np.argmax(mix.target))],
        "alpha": mix.alpha,
        "clips": [
            {
                "role": role,
                "id": id,
                "speaker": dataset.utterances[id].speaker,
                "words": dataset.utterances[id].transcript,
                "share": share,
                "seconds": len(audio_t) / SAMPLE_RATE,
                "picture": picture(
                    audio_t,
                    scale,
                    f"waveform and log-mel spectrogram of {'the mix' if role == 'mix' else id}",
                    len(mixed_t) if len(audio_t) > len(mixed_t) else None,
                ),
                "audio": playable(audio_t),
                "bars": list(zip(dataset.classes, target, strict=True)),
            }
            for role, id, audio_t, target, share in clips
        ],
    }


def _changed(audio_t: np.ndarray) -> list[dict[str, Any]]:
    ways = [
        ("As it is", 0.0, 1.0),
        (f"{SEMITONES:g} semitone lower", -SEMITONES, 1.0),
        (f"{SEMITONES:g} semitone higher", SEMITONES, 1.0),
        (f"{SLOWEST:g} times as fast", 0.0, SLOWEST),
        (f"{FASTEST:g} times as fast", 0.0, FASTEST),
    ]
    clips = [(name, augment(audio_t, semitones, tempo)) for name, semitones, tempo in ways]
    scale = Scale.of(*(clip_t for _, clip_t in clips))
    return [
        {
            "name": name,
            "seconds": len(clip_t) / SAMPLE_RATE,
            "picture": picture(clip_t, scale, f"waveform and log-mel spectrogram, {name}"),
            "audio": playable(clip_t),
        }
        for name, clip_t in clips
    ]
