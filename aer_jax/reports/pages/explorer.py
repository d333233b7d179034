"""Explorer of a report's clips: audio, and the shares given by raters, proxies and models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.predictions import shares
from aer_jax.labels.journal import read_votes
from aer_jax.labels.votes import normalise
from aer_jax.reports import theme
from aer_jax.reports.pages.sounds import compressed
from aer_jax.reports.runs import EvaluatedRun

MOST = 3000  # clips; a page with more opens slowly on a phone
AUDIO_MB = 8.0


def explorer(
    runs: Sequence[EvaluatedRun], leader: EvaluatedRun, dataset: Dataset | None, audio_mb: float
) -> tuple[dict[str, Any], list[str]]:
    """Content for the page's script, and sentences about what it leaves out.

    Args:
        runs: the arms, all with the same clips.
        leader: the arm whose errors come first.
        dataset: where words, votes and audio are; None where it cannot be opened.
        audio_mb: how much audio the page may carry, as it lies in the page.
    """
    classes = leader.metrics["classes"]
    lines = leader.predictions
    predicted_rnk = np.array([shares(run.predictions, "probs", classes) for run in runs])
    human_nk = shares(lines, "reference", classes)
    js_rn = np.array([js_divergence(human_nk, predicted_nk) for predicted_nk in predicted_rnk])
    ambiguity_n = np.array([line["ambiguity"] for line in lines])
    order = _most_telling(ambiguity_n, js_rn[list(runs).index(leader)])
    shown, left_out = order[:MOST], []
    if len(order) > MOST:
        left_out.append(
            f"{len(order) - MOST} of {len(order)} clips are left out, the clearest and best predicted ones."
        )

    ids = [lines[n]["id"] for n in range(len(lines))]
    votes_n, synthetic_nk = _votes(runs, dataset, ids, classes)
    words, audio, sentences = _heard(dataset, [ids[n] for n in shown], audio_mb)
    left_out += sentences
    clips = []
    for n in sorted(shown):
        clip: dict[str, Any] = {
            "id": ids[n],
            "speaker": lines[n]["speaker"],
            "heard": classes[int(human_nk[n].argmax())],
            "ambiguity": round(float(ambiguity_n[n]), 4),
            "human": _short(human_nk[n]),
            "predicted": [_short(predicted_nk[n]) for predicted_nk in predicted_rnk],
            "js": _short(js_rn[:, n]),
        }
        if votes_n is not None:
            clip["votes"] = round(float(votes_n[n]), 2)
        if synthetic_nk is not None and (total := synthetic_nk[n].sum()):
            clip |= {"synthetic": _short(normalise(synthetic_nk[n])), "synthetic_votes": round(float(total), 2)}
        clip |= {key: by_id[ids[n]] for key, by_id in (("words", words), ("audio", audio)) if ids[n] in by_id}
        clips.append(clip)
    data = {
        "classes": classes,
        "speakers": sorted({clip["speaker"] for clip in clips}),
        "arms": [{"name": run.name, "colour": theme.arm_colour(i)} for i, run in enumerate(runs)],
        "leader": list(runs).index(leader),
        "clips": clips,
    }
    return data, left_out


def in_script(value: Any) -> Markup:
    """JSON that can stand in a <script> element, whatever its strings say."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _most_telling(ambiguity_n: np.ndarray, js_n: np.ndarray) -> list[int]:
    turns = zip(np.argsort(-ambiguity_n, kind="stable"), np.argsort(-js_n, kind="stable"), strict=True)
    return list(dict.fromkeys(int(n) for pair in turns for n in pair))


def _votes(
    runs: Sequence[EvaluatedRun], dataset: Dataset | None, ids: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Human votes per clip [N] and synthetic counts [N, K] of the arms' common journal; None where there are none."""
    if dataset is None:
        return None, None
    human_n = dataset.votes.human.counts(ids, classes).sum(axis=1)
    journals = {run.config.labels.journal for run in runs if run.config.labels.journal}
    if len(journals) != 1 or not Path(journal := journals.pop()).is_file():
        return human_n, None
    try:
        return human_n, read_votes(Path(journal), classes).counts(ids, classes)
    except UserError:  # damaged since; the run's own figures do not need it
        return human_n, None


def _heard(
    dataset: Dataset | None, ids: Sequence[str], audio_mb: float
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Words and playable audio by id, in order of interest while there is room, and what is missing."""
    if dataset is None:
        return {}, {}, ["No words and no audio: the dataset that the run names cannot be opened here."]
    if dataset.licensed:
        return {}, {}, ["No words and no audio: the corpus's licence forbids passing them on."]
    words = {id: dataset.utterances[id].transcript for id in ids if id in dataset.utterances}
    audio: dict[str, str] = {}
    room = round(audio_mb * 1e6)
    for id in tqdm(ids if room else [], desc="audio of the page", unit="clip"):
        sound = compressed(dataset.audio(id))
        if len(sound) > room:
            break
        room -= len(sound)
        audio[id] = sound
    silent = len(ids) - len(audio)
    left_out = f"{silent} of {len(ids)} clips are without audio, to keep the page below {audio_mb:g} MB of it."
    return words, audio, [left_out] if silent and audio_mb else ["The page was made without audio."] if silent else []


def _short(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
