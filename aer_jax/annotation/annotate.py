"""Ask synthetic listeners about a dataset and write down what they say."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.annotation.engines.interface import Answer, Asked, Engine
from aer_jax.annotation.engines.pytorch.transformers_engine import TransformersEngine
from aer_jax.annotation.listeners import Listener, crossed
from aer_jax.annotation.progress import Progress, cost
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import Questions
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.files.locks import locked
from aer_jax.labels.attempts import Attempt, Outcome, shorten
from aer_jax.labels.journal import Journal, read_journal
from aer_jax.labels.parsing import parse, synonyms_of

ATTEMPTS = 3
# Of an engine that has not answered yet, so many failures with the same error, about different clips, end the run.
ALIKE = 3
# So do so many failures of any engine without an answer in between.
HOPELESS = 32
_DIGITS = re.compile(r"[0-9a-f]*\d[0-9a-f]*")  # numbers, also those of a request, in an error


def annotate(
    questions: Questions,
    engine: Engine,
    people: Sequence[Listener],
    out: Path,
    *,
    limit: int | None = None,
    part: tuple[int, int] = (1, 1),
    attempts: int = ATTEMPTS,
    only_missing: bool = False,
) -> dict[str, Any]:
    """Let `people` hear the dataset's utterances, and append what they say to a journal.

    A journal that exists is continued: a pair of utterance and listener that is answered is not asked again, one that
    failed is, until it has failed `attempts` times.

    Args:
        questions: what is asked about which dataset.
        engine: who answers.
        people: who hears each utterance.
        out: the journal.
        limit: only the first so many utterances.
        part: (i, n): only each n-th of these utterances, beginning with the i-th, counted from 1. So n processes or
            machines share the work on one journal.
        attempts: how often a question may fail, earlier runs included.
        only_missing: ask about those utterances alone that have no vote in the journal yet. They may be asked in
            another way than the others: each line says whether its answer is free, constrained or exact.

    Returns:
        JSON-able: journal, model, prompt (fingerprint), answers, utterances, listeners, asked (in this run), how the
        latest attempts of this part's pairs came out: labelled (a label or a distribution), unparsed, failed; given_up
        (of the failed), unparsed_share of the answers; tokens_in, tokens_out and cost (dollars) of this run.

    Raises:
        UserError: a number is out of range, the journal was begun with another model, prompt, kind of answers or plan
            of listeners, the engine cannot go on, or all questions of this run failed.
    """
    ids = _ids(questions, limit, part)
    if not people or attempts < 1:
        raise UserError("--listeners and --attempts must be at least 1.")
    made: list[Attempt] = []
    number, parts = part
    lock = out.with_name(f".{out.name}.{number}of{parts}.lock")
    with (
        Journal(out, engine.model, questions.fingerprint, engine.answers, fill=only_missing) as journal,
        locked(lock, f"part {number}/{parts} of {out} is being annotated"),
    ):
        _tell_repairs(journal)
        _refuse_other_dataset(journal, questions.dataset)
        _refuse_other_people(journal, people)
        if only_missing:
            ids = [id for id in ids if id not in journal.voted]
        pairs = [Asked(id, person) for id in ids for person in people]
        unanswered = [pair for pair in pairs if _key(pair) not in journal.answered]
        open_pairs = [pair for pair in unanswered if journal.failures.get(_key(pair), 0) < attempts]
        told = len(journal.repaired)
        if open_pairs:
            with Progress(len(pairs), len(pairs) - len(open_pairs), len(people), engine.price) as progress:
                made = _ask(questions, engine, open_pairs, journal, progress)
    _tell_repairs(journal, told)
    if made and all(attempt.outcome == "failed" for attempt in made):
        raise UserError(f"all {len(made)} questions failed, the first with: {made[0].error}")
    return {
        "journal": str(out),
        "model": engine.model,
        "prompt": questions.fingerprint,
        "answers": engine.answers,
        "utterances": len(ids),
        "listeners": len(people),
        "asked": len(made),
        **_outcomes(out, {_key(pair) for pair in pairs}),
        "given_up": len(unanswered) - len(open_pairs),
        "tokens_in": sum(attempt.tokens_in or 0 for attempt in made),
        "tokens_out": sum(attempt.tokens_out or 0 for attempt in made),
        "cost": cost(made, engine.price),
    }


def _ask(
    questions: Questions, engine: Engine, pairs: Sequence[Asked], journal: Journal, progress: Progress
) -> list[Attempt]:
    """What came of the questions in this process, written down as it came."""
    synonyms = synonyms_of(questions.dataset.name, questions.prompt.labels)
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
            attempts = [_attempt(*pair, questions, engine, synonyms) for pair in some]
            held += attempts
            row = [] if any(attempt.answered for attempt in attempts) else row + attempts
            if journal.answered or not row:
                write()
            _refuse_hopeless(engine, row, journal, min(ALIKE, clips))
        write()
    return made


def _refuse_hopeless(engine: Engine, failed: Sequence[Attempt], journal: Journal, few: int) -> None:
    """End a run whose questions all fail: that is not the questions' fault."""
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


def sample_votes(
    dataset: Dataset, model: str | Path, out: Path, *, listeners: int = 8, batch: int = 16
) -> dict[str, Any]:
    """`annotate` as the command does it where nothing is chosen: crossed listeners, free answers, PyTorch."""
    questions = Questions(dataset, load_prompt(dataset.classes))
    people = crossed(listeners, questions.prompt.personas)
    return annotate(questions, TransformersEngine(model, questions, batch=batch), people, out)


def without_vote(dataset: Dataset, journal: Path) -> list[str]:
    """The dataset's utterances that were asked about, and have no vote in a journal."""
    attempts = read_journal(journal)
    missing = {attempt.utterance for attempt in attempts} - {a.utterance for a in attempts if a.shares}
    return [id for id in dataset.utterances if id in missing]


def _ids(questions: Questions, limit: int | None, part: tuple[int, int]) -> list[str]:
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}.")
    number, parts = part
    if not 1 <= number <= parts:
        raise UserError(f"--part {number}/{parts} is none; the first of three is 1/3.")
    ids = list(questions.dataset.utterances)[:limit][number - 1 :: parts]
    if not ids:
        raise UserError(f"--part {number}/{parts} holds no utterance; the dataset has fewer than that.")
    return ids


def _key(pair: Asked) -> tuple[str, int]:
    return pair.utterance, pair.listener.index


def _tell_repairs(journal: Journal, told: int = 0) -> None:
    for torn in journal.repaired[told:]:
        note = f"{journal.path}: its last line was cut short and has been repaired: {torn[:60]}"
        tqdm.write(note, file=sys.stderr)


def _refuse_other_people(journal: Journal, people: Sequence[Listener]) -> None:
    for person in people:
        begun = journal.people.get(person.index)
        if begun is not None and begun != (person.persona, person.temperature):
            raise UserError(
                f'{journal.path} was begun with another plan: its listener {person.index} has the persona "{begun[0]}" '
                f'and the temperature {begun[1]}, not "{person.persona}" and {person.temperature}; name another --out.'
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
    asked: Asked, answer: Answer, questions: Questions, engine: Engine, synonyms: Mapping[str, str]
) -> Attempt:
    label: str | None = None
    outcome: Outcome | None = None
    if answer.error is not None:
        outcome = "failed"
    elif answer.probs is None:
        label = parse(answer.response, questions.prompt.labels, synonyms)
        outcome = "unparsed" if label is None else None
    return Attempt(
        utterance=asked.utterance,
        listener=asked.listener.index,
        persona=asked.listener.persona,
        temperature=asked.listener.temperature,
        seed=asked.listener.seed(asked.utterance),
        prompt=questions.fingerprint,
        model=engine.model,
        response=shorten(answer.response),
        label=label,
        outcome=outcome,
        error=answer.error,
        answers=engine.answers,
        probs=answer.probs,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        request=answer.request,
    )


def _outcomes(out: Path, pairs: set[tuple[str, int]]) -> dict[str, int | float]:
    """How the latest attempts of these pairs came out."""
    latest = {attempt.key: attempt.outcome for attempt in read_journal(out) if attempt.key in pairs}
    counts = Counter(latest.values())
    answers = counts[None] + counts["unparsed"]
    return {
        "labelled": counts[None],
        "unparsed": counts["unparsed"],
        "failed": counts["failed"],
        "unparsed_share": counts["unparsed"] / max(answers, 1),
    }
