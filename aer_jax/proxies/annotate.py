"""Ask synthetic listeners about a dataset and write down what they say."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.hub import find_checkpoint
from aer_jax.proxies.journal import Attempt, Journal
from aer_jax.proxies.listeners import Listener, listener
from aer_jax.proxies.model_name import model_name
from aer_jax.proxies.parsing import parse
from aer_jax.proxies.process import Worker, WorkerDied
from aer_jax.proxies.prompts import FOLDER, Prompt, load_prompt


def annotate(
    dataset: Dataset,
    model: str | Path,
    out: Path,
    listeners: int = 8,
    limit: int | None = None,
    batch: int = 16,
    prompts: Path = FOLDER,
) -> dict[str, Any]:
    """Let a Qwen2-Audio checkpoint, in a PyTorch process of its own, vote as `listeners` listeners.

    A journal that exists is continued: answered pairs of utterance and listener are not asked again, failed
    ones are.

    Args:
        dataset: where audio, transcripts and classes come from.
        model: checkpoint directory in Hugging Face layout, or a hub id, see `hub.find_checkpoint`.
        out: the journal.
        listeners: how many listeners hear each utterance.
        limit: only the first so many utterances.
        batch: questions asked at a time.
        prompts: folder with system.txt, question.txt and personas.txt.

    Returns:
        JSON-able: journal, model, prompt (fingerprint), utterances, listeners, asked (in this run), and how the
        latest attempts of all asked pairs came out: labelled, unparsed, failed.

    Raises:
        UserError: a number is below 1, the checkpoint or the prompt is unusable, the journal was begun with
            another model or prompt, the worker died, or all questions of this run failed.
    """
    for name, value in (("listeners", listeners), ("limit", limit), ("batch", batch)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}.")
    checkpoint, name = find_checkpoint(model), model_name(model)
    prompt = load_prompt(dataset.classes, prompts)
    ids = list(dataset.utterances)[:limit]
    people = [listener(index) for index in range(listeners)]
    blanks = [_blank(id, person, prompt, name) for id in ids for person in people]

    with Journal(out, name, prompt.fingerprint) as journal:
        if journal.repaired:
            note = f"{out}: its last line was cut short and has been repaired: {journal.repaired[:60]}"
            tqdm.write(note, file=sys.stderr)
        answered = {key for key, attempt in journal.latest().items() if attempt.answered}
        open_blanks = [blank for blank in blanks if blank.key not in answered]
        asked: list[Attempt] = []
        if open_blanks:
            with tqdm(total=len(blanks), initial=len(blanks) - len(open_blanks), unit="answer") as bar:
                for attempts in _ask(dataset, checkpoint, prompt, open_blanks, batch, journal, bar):
                    asked += attempts
                    bar.update(len(attempts))
        latest = journal.latest()
    if asked and all(attempt.outcome == "failed" for attempt in asked):
        raise UserError(f"all {len(asked)} questions failed, the first with: {asked[0].error}")
    outcomes = Counter(latest[blank.key].outcome for blank in blanks)
    return {
        "journal": str(out),
        "model": name,
        "prompt": prompt.fingerprint,
        "utterances": len(ids),
        "listeners": listeners,
        "asked": len(asked),
        "labelled": outcomes[None],
        "unparsed": outcomes["unparsed"],
        "failed": outcomes["failed"],
    }


def _blank(id: str, person: Listener, prompt: Prompt, name: str) -> Attempt:
    """What will be asked; the answer is filled in later."""
    return Attempt(
        utterance=id,
        listener=person.index,
        persona=person.persona(prompt.personas),
        temperature=person.temperature,
        seed=person.seed(id),
        prompt=prompt.fingerprint,
        model=name,
        response="",
    )


def _filled(blank: Attempt, answer: dict[str, str], labels: tuple[str, ...]) -> Attempt:
    if "error" in answer:
        return replace(blank, outcome="failed", error=answer["error"])
    label = parse(answer["response"], labels)
    outcome = "unparsed" if label is None else None
    return replace(blank, response=answer["response"], label=label, outcome=outcome)


def _ask(
    dataset: Dataset,
    checkpoint: Path,
    prompt: Prompt,
    blanks: list[Attempt],
    batch: int,
    journal: Journal,
    bar: tqdm,
) -> Iterator[list[Attempt]]:
    """Ask batch by batch; each batch is in the journal before it is handed on."""
    outcomes: Counter[str | None] = Counter()
    bar.set_description("loading the annotator")
    try:
        with Worker(checkpoint, dataset.path) as worker:
            bar.set_description("annotating")
            for start in range(0, len(blanks), batch):
                some = blanks[start : start + batch]
                answers = worker.ask([_question(dataset, prompt, blank) for blank in some])
                attempts = [_filled(*pair, prompt.labels) for pair in zip(some, answers, strict=True)]
                journal.append(attempts)
                outcomes.update(attempt.outcome for attempt in attempts)
                bar.set_postfix(unparsed=outcomes["unparsed"], failed=outcomes["failed"], refresh=False)
                yield attempts
    except WorkerDied as death:
        raise UserError(
            f"the annotation worker is gone: {death}. What was answered is in {journal.path}; the same command "
            "goes on from there."
        ) from None


def _question(dataset: Dataset, prompt: Prompt, blank: Attempt) -> dict[str, Any]:
    transcript = dataset.utterances[blank.utterance].transcript
    return {
        "utterance": blank.utterance,
        "messages": prompt.messages(transcript, blank.persona),
        "temperature": blank.temperature,
        "seed": blank.seed,
    }
