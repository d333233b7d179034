"""When synthetic votes can help: the toy corpus, whose true distributions are known.

A clip's human votes are drawn from its truth p, its synthetic votes from q = (1 - b) p + b e: listeners of whose
answers a share b is "neutral" whatever they hear. m human and N synthetic votes of weight w are pooled. Of the squared
error,

    E |pooled - p|^2 = (m V(p) + w^2 N V(q) + (w N)^2 |q - p|^2) / (m + w N)^2,   V(p) = 1 - sum p^2,

the first two terms fall with more votes, the third does not. So pooling helps while human votes are so few that
their own error V(p) / m is above what the bias costs, and then it harms, however many synthetic votes there are;
weighed best it never harms, but what it gains vanishes.

    python -m aer_jax.studies.toy_truth OUT_DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.corpora.toy import corpus as toy
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.labels.votes import normalise

CLIPS = 1000
REPEATS = 20  # drawn votes per clip
HUMAN = (1, 2, 3, 4, 5, 7, 10, 15, 20)
SYNTHETIC = 8
BIASES = (0.0, 0.3, 0.6)
WEIGHTS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def biased(truth_nk: np.ndarray, bias: float) -> np.ndarray:
    """Distributions [N, K] of listeners who answer neutral in a share `bias` of cases."""
    return (1 - bias) * truth_nk + bias * np.eye(truth_nk.shape[1])[toy.CLASSES.index("neutral")]


def squared_error(truth_nk: np.ndarray, heard_nk: np.ndarray, human: int, synthetic: int, weight: float) -> np.ndarray:
    """Expected squared distance of the pooled votes to the truth, as above: [N]."""
    spread_n, spread_synthetic_n = (1 - (p_nk**2).sum(axis=1) for p_nk in (truth_nk, heard_nk))
    bias_n = ((heard_nk - truth_nk) ** 2).sum(axis=1)
    share = weight * synthetic
    return (human * spread_n + weight * share * spread_synthetic_n + share**2 * bias_n) / (human + share) ** 2


def study(seed: int = 0) -> dict[str, Any]:
    """JS to the truth (base 2, mean over clips) of human votes, synthetic ones and both pooled.

    Returns:
        JSON-able: `human` (numbers of votes), `synthetic`, `weights`, and `biases`: bias -> js of "human", "pooled" (a
        vote is a vote, the paper's), "pooled, best weight" (one value for each number of human votes), "weight" (that
        best weight), and "synthetic" (alone).
    """
    truth_nk = np.array(list(toy.truth(clips=CLIPS).values()))
    truth_nk /= truth_nk.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    many_nk = np.tile(truth_nk, (REPEATS, 1))
    human_mnk = [rng.multinomial(m, many_nk) for m in HUMAN]

    def js(counts_nk: np.ndarray) -> float:
        return float(js_divergence(many_nk, normalise(counts_nk)).mean())

    results = {}
    for bias in BIASES:
        synthetic_nk = rng.multinomial(SYNTHETIC, biased(many_nk, bias))
        pooled_mw = np.array([[js(counts_nk + w * synthetic_nk) for w in WEIGHTS] for counts_nk in human_mnk])
        results[f"{bias:g}"] = {
            "human": pooled_mw[:, WEIGHTS.index(0.0)].tolist(),
            "pooled": pooled_mw[:, WEIGHTS.index(1.0)].tolist(),
            "pooled, best weight": pooled_mw.min(axis=1).tolist(),
            "weight": [WEIGHTS[i] for i in pooled_mw.argmin(axis=1)],
            "synthetic": js(synthetic_nk),
        }
    return {"clips": CLIPS, "human": list(HUMAN), "synthetic": SYNTHETIC, "weights": list(WEIGHTS), "biases": results}


if __name__ == "__main__":
    from aer_jax.experiments.figures import toy_truth_figure

    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    result = study()
    (out / "toy_truth.json").write_text(json.dumps(result, indent=1) + "\n")
    toy_truth_figure(result, out / "toy_truth.svg")
    for bias, row in result["biases"].items():
        print(f"bias {bias}: synthetic votes alone {row['synthetic']:.3f}")
        for i, m in enumerate(result["human"]):
            values = "  ".join(f"{name} {row[name][i]:.3f}" for name in ("human", "pooled", "pooled, best weight"))
            print(f"  {m:2d} human votes: {values} (weight {row['weight'][i]:g})")
