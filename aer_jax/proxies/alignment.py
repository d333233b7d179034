"""Do synthetic listeners hear what people hear? Their distributions beside the human ones, utterance by utterance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.baselines import best_constant
from aer_jax.evaluation.metrics import bhattacharyya, js_divergence
from aer_jax.labels.votes import Vote, count_votes, normalise
from aer_jax.proxies.journal import Attempt, read_journal, read_votes


class Agreement(NamedTuple):
    """Mean JS divergence (base 2) as annotated, the same when shuffled (mean), and the permutation p-value."""

    js: float
    js_shuffled: float
    p: float


def shuffled_agreement_p(
    votes_human: Iterable[Vote],
    votes_synthetic: Iterable[Vote],
    classes: Sequence[str],
    permutations: int = 999,
    seed: int = 0,
) -> Agreement:
    """Is the agreement about the utterances, or would anyone's votes agree as well?

    The synthetic distributions are shuffled over the utterances; p = (1 + shuffles that agree at least as well)
    / (1 + shuffles), one-sided (Phipson and Smyth, 2010). Utterances that lack votes of one side are left out.

    Args:
        votes_human: the reference.
        votes_synthetic: what is tested.
        classes: the classes that distributions are over.
        permutations: how many shuffles.
        seed: of the shuffles.

    Raises:
        UserError: fewer than two utterances have votes of both sides.
    """
    _, human_nk, synthetic_nk = _paired(list(votes_human), list(votes_synthetic), classes)
    js = js_divergence(human_nk, synthetic_nk).mean()
    rng = np.random.default_rng(seed)
    shuffled = np.array([js_divergence(human_nk, rng.permutation(synthetic_nk)).mean() for _ in range(permutations)])
    # Sums in another order differ by rounding; a tie counts as agreeing as well.
    p = (1 + (shuffled <= js + 1e-12).sum()) / (1 + permutations)
    return Agreement(float(js), float(shuffled.mean()), float(p))


def alignment(dataset: Dataset, journal: Path) -> dict[str, Any]:
    """Quality of a journal's synthetic votes, as `aer-jax proxies` shows it.

    Returns:
        JSON-able: model and prompt; pairs asked, shares of them unparsed and failed (their latest attempts),
        also by listener; utterances compared; js (base 2) and bc between synthetic and human distributions,
        the same of the uniform and the best constant distribution; js_shuffled and p_shuffled.

    Raises:
        UserError: the journal is damaged, is about other utterances, holds several models or prompts, or holds
            too few answers to compare.
    """
    latest = _latest(dataset, journal)
    synthetic = read_votes(journal, dataset.classes)
    human = [vote for vote in dataset.votes if vote.source == "human"]
    utterances, human_nk, synthetic_nk = _paired(human, synthetic, dataset.classes)
    agreement = shuffled_agreement_p(human, synthetic, dataset.classes)
    uniform_k = np.full(len(dataset.classes), 1 / len(dataset.classes))
    people = sorted({attempt.listener for attempt in latest})
    return {
        "model": latest[0].model,
        "prompt": latest[0].prompt,
        "references": "human",
        "utterances": len(utterances),
        "listeners": len(people),
        **_shares(latest),
        **_against(human_nk, synthetic_nk),
        "js_shuffled": agreement.js_shuffled,
        "p_shuffled": agreement.p,
        "baselines": {
            "uniform": _against(human_nk, uniform_k),
            "best_constant": _against(human_nk, best_constant(human_nk)),
        },
        "by_listener": [_listener([attempt for attempt in latest if attempt.listener == i]) for i in people],
    }


def _latest(dataset: Dataset, journal: Path) -> list[Attempt]:
    """The last attempt of each pair, after checking that the journal is one and is about this dataset."""
    attempts = {attempt.key: attempt for attempt in read_journal(journal)}
    if not attempts:
        raise UserError(f"the journal {journal} is empty; `aer-jax annotate` fills it.")
    foreign = [id for id, _ in attempts if id not in dataset.utterances]
    if foreign:
        raise UserError(
            f"{journal} is about {len(foreign)} utterances that {dataset.path} does not hold, the first is "
            f'"{foreign[0]}"; give the dataset that was annotated.'
        )
    origins = {(attempt.model, attempt.prompt) for attempt in attempts.values()}
    if len(origins) > 1:
        raise UserError(f"{journal} mixes models or prompts: {', '.join(sorted(map(' '.join, origins)))}.")
    return list(attempts.values())


def _paired(
    human: list[Vote], synthetic: list[Vote], classes: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Utterances with votes of both sides, and both sides' distributions [N, K]."""
    ids = list(dict.fromkeys(vote.utterance for vote in synthetic))
    human_nk, synthetic_nk = (normalise(count_votes(votes, ids, classes)) for votes in (human, synthetic))
    both = ~np.isnan(human_nk + synthetic_nk).any(axis=1)
    if both.sum() < 2:
        raise UserError(
            f"{both.sum()} utterances have both human and synthetic votes; at least 2 are needed to compare them."
        )
    return [id for id, here in zip(ids, both, strict=True) if here], human_nk[both], synthetic_nk[both]


def _against(human_nk: np.ndarray, other: np.ndarray) -> dict[str, float]:
    return {
        "js": float(js_divergence(human_nk, other).mean()),
        "bc": float(bhattacharyya(human_nk, other).mean()),
    }


def _shares(attempts: list[Attempt]) -> dict[str, float]:
    outcomes = Counter(attempt.outcome for attempt in attempts)
    shares = {f"{outcome}_share": outcomes[outcome] / len(attempts) for outcome in ("unparsed", "failed")}
    return {"asked": len(attempts), **shares}


def _listener(attempts: list[Attempt]) -> dict[str, Any]:
    """One listener's row; its attempts share persona and temperature."""
    first = attempts[0]
    labels = Counter(attempt.label for attempt in attempts if attempt.label is not None)
    return {
        "listener": first.listener,
        "persona": first.persona,
        "temperature": first.temperature,
        **_shares(attempts),
        "labels": dict(labels.most_common()),
    }
