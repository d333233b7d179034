"""Learning from few human votes and synthetic ones: real speech, features of a frozen audio tower.

Of the speakers that are not tested, half teach an annotator with all their human votes: a linear probe of the tower. It
then votes about the other half, whose voices it does not know, and a second probe learns from that half alone: from
thinned human votes, from synthetic ones, or from both pooled. So these synthetic votes come of listening, and err as a
model errs about new voices; but who taught them heard the same corpus.

    python -m aer_jax.studies.speech_student RUN OUT_DIR [JOURNAL]

RUN names dataset and checkpoint; JOURNAL holds votes of another annotator about the same clips, next to them.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from tqdm import tqdm

from aer_jax.data.dataset import open_dataset
from aer_jax.evaluation.ambiguity import NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.linear_probe import L2, LinearProbe, fit, left_out
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.projection import gather
from aer_jax.evaluation.significance import holm, sign_flip
from aer_jax.files.tables import markdown_rows
from aer_jax.labels.journal import read_votes
from aer_jax.labels.votes import normalise

FOLDS = 5
HUMAN = (1, 3, 5)
SYNTHETIC = 8


def study(
    features_nf: np.ndarray,
    counts_nk: np.ndarray,
    speakers_n: np.ndarray,
    others: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """JS (base 2) to all human votes of speakers that nothing was learned from, by whose votes the learner had.

    Args:
        features_nf: what the tower heard.
        counts_nk: human votes, whole numbers, at least one per clip.
        speakers_n: at least 10.
        others: name -> synthetic votes [N, K] of other annotators.

    Returns:
        JSON-able: `n` (level of ambiguity -> clips); `annotator` (mean JS of its shares to the votes of the clips that
        it annotates); `js`: source -> level -> mean, a source being "3 human", "8 synthetic", a name of `others`, or
        two of these with " + "; `tests`: what pooling changes, [{human, synthetic, level, difference, p, p_holm}], by
        signs of whole speakers, Holm's correction over all.
    """
    rng = np.random.default_rng(seed)
    human_nk = normalise(counts_nk)
    names, speaker_n = np.unique(speakers_n, return_inverse=True)
    group_n = (rng.permutation(len(names)) % (2 * FOLDS))[speaker_n]  # two groups are a fold
    js: dict[str, np.ndarray] = {}
    annotated = []

    def learned(counts_mk: np.ndarray, mine_n: np.ndarray) -> LinearProbe:
        return learn(features_nf[mine_n], normalise(counts_mk), speaker_n[mine_n])

    for fold in tqdm(range(FOLDS), "speech student", unit="fold"):
        test_n = group_n // 2 == fold
        teach_n, learn_n = (~test_n & (group_n % 2 == half) for half in (0, 1))
        shares_mk = learned(counts_nk[teach_n], teach_n)(features_nf[learn_n])
        annotated.append(js_divergence(human_nk[learn_n], shares_mk))
        synthetic = {f"{SYNTHETIC} synthetic": rng.multinomial(SYNTHETIC, shares_mk)}
        synthetic |= {name: votes_nk[learn_n] for name, votes_nk in (others or {}).items()}
        human = {f"{m} human": thin(counts_nk[learn_n], m, rng) for m in HUMAN} | {"all human": counts_nk[learn_n]}
        pooled = {f"{h} + {s}": human[h] + synthetic[s] for h in human for s in synthetic}
        for source, counts_mk in (human | synthetic | pooled).items():
            probs_tk = learned(counts_mk, learn_n)(features_nf[test_n])
            js.setdefault(source, np.zeros(len(human_nk)))[test_n] = js_divergence(human_nk[test_n], probs_tk)
    level_n = ambiguity_bins(ambiguity(human_nk))
    levels = {"all": np.ones(len(human_nk), bool)} | {name: level_n == b for b, name in enumerate(NAMES)}
    levels = {level: mine for level, mine in levels.items() if mine.any()}
    tests: list[dict[str, Any]] = []
    for h in human:
        for s in synthetic:
            for level, mine in levels.items():
                flip = sign_flip((js[f"{h} + {s}"] - js[h])[mine], speaker_n[mine])
                tests.append({"human": h, "synthetic": s, "level": level, "difference": flip.difference, "p": flip.p})
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = float(p)
    return {
        "n": {level: int(mine.sum()) for level, mine in levels.items()},
        "annotator": float(np.concatenate(annotated).mean()),
        "js": {s: {level: float(js_n[mine].mean()) for level, mine in levels.items()} for s, js_n in js.items()},
        "tests": tests,
    }


def learn(features_nf: np.ndarray, targets_nk: np.ndarray, speakers_n: np.ndarray) -> LinearProbe:
    """The probe whose penalty, of those that are tried, makes votes about speakers left out likeliest."""
    log_p_lnk = log_softmax(left_out(features_nf, targets_nk, speakers_n), axis=2)
    best = np.argmax((targets_nk * log_p_lnk).sum(axis=2).mean(axis=1))
    return fit(features_nf, targets_nk, (L2[best],))[0]


def thin(counts_nk: np.ndarray, votes: int, rng: np.random.Generator) -> np.ndarray:
    """So many of each clip's votes, drawn without putting back; all of them where there are fewer."""
    return np.array([rng.multivariate_hypergeometric(c_k, min(votes, c_k.sum())) for c_k in counts_nk])


def table(result: dict[str, Any]) -> str:
    """The study in Markdown."""
    scores = [
        {"learned from": source} | {f"{level} ({n})": f"{row[level]:.4f}" for level, n in result["n"].items()}
        for source, row in result["js"].items()
    ]
    tests = [
        {
            "pooled": f"{test['human']} + {test['synthetic']}",
            "level": test["level"],
            "difference": f"{test['difference']:+.4f}",
            "p": f"{test['p']:.4f}",
            "p, Holm": f"{test['p_holm']:.4f}",
        }
        for test in result["tests"]
    ]
    return f"{markdown_rows(scores)}\n\n{markdown_rows(tests)}"


def main(run_path: str, out_path: str, journal: str = "") -> None:
    """See the module."""
    from aer_jax.training.predictor import Predictor
    from aer_jax.training.run import open_run

    run = open_run(run_path)
    dataset = open_dataset(run.config.data.dataset)
    ids = sorted(dataset.utterances)
    others = {}
    if journal:
        others["the journal's"] = read_votes(Path(journal), dataset.classes).counts(ids, dataset.classes)
    result = study(
        gather(ids, functools.partial(Predictor(run).audio_statistics, dataset)),
        dataset.votes.whole.counts(ids, dataset.classes).astype(np.int64),
        np.array([dataset.utterances[id].speaker for id in ids]),
        others,
    )
    out = Path(out_path)
    out.mkdir(parents=True, exist_ok=True)
    (out / "speech_student.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
