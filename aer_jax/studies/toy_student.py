"""Learning from human and synthetic votes: the toy corpus, a student with perfect features.

On the toy corpus the truth is a softmax of a linear map of the manner of speaking, so multinomial logistic regression
on that manner can be right: what is left of its error is what the votes did to it. A learner sees many clips, and
averages the chance in their votes; it cannot average a bias that all votes share.

    python -m aer_jax.studies.toy_student OUT_DIR
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from aer_jax.corpora.toy import corpus as toy
from aer_jax.evaluation.ambiguity import NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.labels.votes import normalise
from aer_jax.studies.toy_truth import BIASES, biased

TRAIN, TEST = 150, 1000  # clips
HUMAN = (1, 3, 5)
SYNTHETIC = 8
REPEATS = 20


def study(seed: int = 0) -> dict[str, Any]:
    """JS (base 2) to the truth of unheard clips, by whose votes the student learned from and by ambiguity of the truth.

    Returns:
        JSON-able: `n` (level -> test clips) and `js`: label source -> level -> [mean, standard deviation] over
        `REPEATS` drawings of training clips and votes. A source is "5 human", "8 synthetic, bias 0.3", or both with
        "+".
    """
    utterances = toy.utterances(clips=TEST + TRAIN * REPEATS, speakers=20, seed=seed)
    manner_nf = np.array([utterance.manner for utterance in utterances])
    truth_nk = normalise(np.array([utterance.distribution for utterance in utterances]))
    rng = np.random.default_rng(seed)
    test_nk = truth_nk[:TEST]
    level_n = ambiguity_bins(ambiguity(test_nk))
    levels = {"all": np.ones(TEST, bool)} | {name: level_n == b for b, name in enumerate(NAMES)}
    results: dict[str, list[np.ndarray]] = {}
    for start in range(TEST, len(utterances), TRAIN):
        here = slice(start, start + TRAIN)
        human = {f"{m} human": rng.multinomial(m, truth_nk[here]) for m in HUMAN}
        synthetic = {
            f"{SYNTHETIC} synthetic, bias {b:g}": rng.multinomial(SYNTHETIC, biased(truth_nk[here], b)) for b in BIASES
        }
        pooled = {f"{h} + {s}": human[h] + synthetic[s] for h in human for s in synthetic}
        for source, counts_nk in (human | synthetic | pooled).items():
            probs_nk = learn(manner_nf[here], normalise(counts_nk))(manner_nf[:TEST])
            results.setdefault(source, []).append(js_divergence(test_nk, probs_nk))
    js = {
        source: {level: _spread([js_n[mine].mean() for js_n in repeats]) for level, mine in levels.items()}
        for source, repeats in results.items()
    }
    return {"n": {level: int(mine.sum()) for level, mine in levels.items()}, "js": js}


def learn(features_nf: np.ndarray, targets_nk: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression with soft targets: each clip once for every class, weighing what the class has of it."""
    n, k = targets_nk.shape
    model = LogisticRegression(C=10.0, max_iter=2000)
    model.fit(np.repeat(features_nf, k, axis=0), np.tile(np.arange(k), n), sample_weight=targets_nk.ravel())
    return model.predict_proba


def _spread(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values, ddof=1))]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    result = study()
    (out / "toy_student.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"test clips: {result['n']}")
    for source, row in result["js"].items():
        print(f"{source:42s} " + "  ".join(f"{level} {mean:.4f} ±{sd:.4f}" for level, (mean, sd) in row.items()))
