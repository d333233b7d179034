"""Annotation of a dataset by synthetic listeners, whose answers are appended to a journal."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.annotation.engines.interface import Answer, Engine, Question
from aer_jax.annotation.engines.pytorch.transformers_engine import TransformersEngine
from aer_jax.annotation.listeners import Listener, crossed
from aer_jax.annotation.progress import Progress
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.files.locks import locked
from aer_jax.labels.attempts import Attempt, Outcome, shorten
from aer_jax.labels.journal import Journal
from aer_jax.labels.parsing import parse, synonyms_of

ATTEMPTS = 3
# Failures with the same error, about different clips and before any answer, after which the run ends.
ALIKE = 3
# Failures of any kind in a row after which the run ends.
HOPELESS = 32
_DIGITS = re.compile(r"[0-9a-f]*\d[0-9a-f]*")  # numbers, also those of a request, in an error


def annotate(
    task: AnnotationTask,
    engine: Engine,
    listeners: Sequence[Listener],
    out: Path,
    *,
    limit: int | None = None,
    only_missing: bool = False,
) -> dict[str, Any]:
    """Ask synthetic listeners about the dataset's utterances, and append their answers to a journal.

    A journal that exists is continued: a pair of utterance and listener that is answered is not asked again, one that
    failed is, until it has failed ATTEMPTS times.

    Args:
        task: prompt and dataset.
        engine: who answers.
        listeners: the listeners of each utterance.
        out: the journal.
        limit: number of utterances, from the first; None for all.
        only_missing: ask about those utterances alone that have no vote in the journal yet. They may be asked in
            another way than the others: each line says whether its answer is free, constrained or exact.

    Returns:
        JSON-able: journal, model, prompt (fingerprint), answers, utterances, listeners, asked (in this run); of the
        latest attempts labelled, unparsed, failed, given_up, unparsed_share, last; clips_without_vote.

    Raises:
        UserError: a number is out of range, the journal was begun with another model, prompt, kind of answers or plan
            of listeners, the engine cannot go on, or all questions of this run failed.
    """
    if not listeners or (limit is not None and limit < 1):
        raise UserError("--listeners and --limit must be at least 1.")
    ids = list(task.dataset.utterances)[:limit]
    made: list[Attempt] = []
    with (
        Journal(out, engine.model, task.fingerprint, engine.answers, fill=only_missing) as journal,
        locked(out.with_name(f".{out.name}.lock"), f"{out} is being annotated"),
    ):
        _report_repairs(journal)
        _refuse_other_dataset(journal, task.dataset)
        _refuse_other_listeners(journal, listeners)
        if only_missing:
            ids = [id for id in ids if id not in journal.voted]
        pairs = [Question(id, listener) for id in ids for listener in listeners]
        unanswered = [pair for pair in pairs if _key(pair) not in journal.answered]
        open_pairs = [pair for pair in unanswered if journal.failures.get(_key(pair), 0) < ATTEMPTS]
        if open_pairs:
            repaired = len(journal.repaired)
            with Progress(len(pairs), len(pairs) - len(open_pairs), len(listeners)) as progress:
                made = _ask(task, engine, open_pairs, journal, progress)
            _report_repairs(journal, repaired)
        journal.read_new()
    if made and all(attempt.outcome == "failed" for attempt in made):
        raise UserError(f"all {len(made)} questions failed, the first with: {made[0].error}")
    about = {"journal": str(out), "model": engine.model, "prompt": task.fingerprint, "answers": engine.answers}
    counts = {"utterances": len(ids), "listeners": len(listeners), "asked": len(made)}
    without = (journal.utterances - journal.voted) & task.dataset.utterances.keys()
    given_up = {"given_up": len(unanswered) - len(open_pairs), "clips_without_vote": len(without)}
    return about | counts | _outcomes(journal, pairs) | given_up


def _ask(
    task: AnnotationTask, engine: Engine, pairs: Sequence[Question], journal: Journal, progress: Progress
) -> list[Attempt]:
    """Ask the questions, writing each answer as it comes; returns counts of outcomes."""
    synonyms = synonyms_of(task.dataset.name, task.prompt.labels)
    made: list[Attempt] = []
    held: list[Attempt] = []  # not written yet: before its first answer, a failure may be the engine's, not its own
    row: list[Attempt] = []  # failures since the last answer

    def write() -> None:
        nonlocal held
        made.extend(new := journal.append(held))
        progress.update(new)
        held = []

    clips = len({pair.utterance for pair in pairs})
    with closing(engine.ask(pairs)) as answers:
        for some in answers:
            attempts = [_attempt(*pair, task, engine, synonyms) for pair in some]
            held += attempts
            row = [] if any(attempt.answered for attempt in attempts) else row + attempts
            if journal.answered or not row:
                write()
            _refuse_hopeless(engine, row, journal, min(ALIKE, clips))
        write()
    return made


def _refuse_hopeless(engine: Engine, failed: Sequence[Attempt], journal: Journal, few: int) -> None:
    if not failed:
        return
    last = str(failed[-1].error).rstrip(".")
    clips, errors = {attempt.utterance for attempt in failed}, {_DIGITS.sub("#", str(a.error)) for a in failed}
    if not journal.answered and len(failed) >= ALIKE and len(clips) >= few and len(errors) == 1:
        raise UserError(
            f"{engine.model} refuses every question alike, the first {len(failed)} with: {last}. Nothing more was "
            "asked; none of these counts as an attempt."
        )
    if len(failed) >= HOPELESS:
        raise UserError(
            f"{engine.model} failed {len(failed)} times without an answer in between, at last with: {last}. What was "
            "answered is kept; the same command goes on from there."
        )


def refuse_without_votes(result: Mapping[str, Any]) -> None:
    """Refuse an annotation without any vote.

    Raises:
        UserError: what came instead.
    """
    if not result["utterances"] or result["labelled"]:
        return
    last = result["last"]
    if last["error"]:
        raise UserError(f"no vote came; the last attempt failed with: {last['error'].rstrip('.')}.")
    raise UserError(
        f'no vote came; the last answer is "{last["response"][:200]}", which is no label; try --answers constrained or '
        "--engine exact."
    )


def sample_votes(
    dataset: Dataset, model: str | Path, out: Path, *, listeners: int = 8, batch: int = 16
) -> dict[str, Any]:
    """`annotate` as the command does it where nothing is chosen: crossed listeners, free answers, PyTorch."""
    task = AnnotationTask(dataset, load_prompt(dataset.classes))
    chosen = crossed(listeners, task.prompt.personas)
    return annotate(task, TransformersEngine(model, task, batch=batch), chosen, out)


def _key(pair: Question) -> tuple[str, int]:
    return pair.utterance, pair.listener.index


def _report_repairs(journal: Journal, start: int = 0) -> None:
    for torn in journal.repaired[start:]:
        note = f"{journal.path}: its last line was cut short and has been repaired: {torn[:60]}"
        tqdm.write(note, file=sys.stderr)


def _refuse_other_listeners(journal: Journal, listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        begun = journal.listeners.get(listener.index)
        if begun is not None and begun != (listener.persona, listener.temperature):
            persona, temperature = begun
            raise UserError(
                f"{journal.path} was begun with another plan: its listener {listener.index} has the persona "
                f'"{persona}" and the temperature {temperature}, not "{listener.persona}" and {listener.temperature}; '
                "name another --out."
            )


def _refuse_other_dataset(journal: Journal, dataset: Dataset) -> None:
    others = sorted(journal.utterances - dataset.utterances.keys())
    if others and len(others) == len(journal.utterances):
        raise UserError(
            f"{journal.path} is about other clips (the first is {others[0]}), none of which {dataset.path} holds; name "
            "another --out."
        )
    if others:
        note = f"{journal.path}: {len(others)} of its clips are not in {dataset.path} (the first is {others[0]})"
        tqdm.write(note, file=sys.stderr)


def _attempt(
    question: Question, answer: Answer, task: AnnotationTask, engine: Engine, synonyms: Mapping[str, str]
) -> Attempt:
    label: str | None = None
    outcome: Outcome | None = None
    if answer.error is not None:
        outcome = "failed"
    elif answer.probs is None:
        label = parse(answer.response, task.prompt.labels, synonyms)
        outcome = "unparsed" if label is None else None
    return Attempt(
        utterance=question.utterance,
        listener=question.listener.index,
        persona=question.listener.persona,
        temperature=question.listener.temperature,
        seed=question.listener.seed(question.utterance),
        prompt=task.fingerprint,
        model=engine.model,
        response=shorten(answer.response),
        label=label,
        outcome=outcome,
        error=answer.error,
        answers=engine.answers,
        probs=answer.probs,
        request=answer.request,
    )


def _outcomes(journal: Journal, pairs: Sequence[Question]) -> dict[str, Any]:
    attempts = [journal.latest[_key(pair)] for pair in pairs if _key(pair) in journal.latest]
    last = attempts[-1] if attempts else None
    counts = Counter(attempt.outcome for attempt in attempts)
    answers = counts[None] + counts["unparsed"]
    return {
        "labelled": counts[None],
        "unparsed": counts["unparsed"],
        "failed": counts["failed"],
        "unparsed_share": counts["unparsed"] / max(answers, 1),
        "last": last and {"response": last.response, "error": last.error},
    }
