"""Token trie of the labels: allowed next tokens of an answer, and the labels' likelihoods under that constraint.

An answer is a label's tokens and the token that ends the turn. Bound to the labels, each token is drawn from those that
some label goes on with, in proportion to p ** (1 / temperature). A label's probability is the product over its tokens:
a temperature acts token by token, so labels that begin alike share what their beginning is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Trie = dict[tuple[int, ...], list[int]]


def make_trie(labels: Sequence[Sequence[int]]) -> Trie:
    """Tokens so far -> the tokens that may follow, without repetition.

    Args:
        labels: each label's tokens, the one that ends the turn included; none begins with all of another.
    """
    trie: Trie = {}
    for label in labels:
        for at, token in enumerate(label):
            following = trie.setdefault(tuple(label[:at]), [])
            if token not in following:
                following.append(token)
    return trie


def tempered(log_probs_nlt: np.ndarray, labels: Sequence[Sequence[int]], temperature: float) -> np.ndarray:
    """Label distribution of sampling at `temperature` under the trie's constraint.

    Args:
        log_probs_nlt: [N, labels, longest label], the log-probability of each token after those before it, over the
            whole vocabulary: logits up to one constant at each node of the trie. See `label_log_probs`.
        labels: as in `make_trie`.
        temperature: 0 takes the likeliest token, the first of equals.

    Returns:
        float64 [N, labels], rows sum to 1.
    """
    probs_nl = np.ones(log_probs_nlt.shape[:2])
    for prefix, following in make_trie(labels).items():
        depth = len(prefix)
        # Labels of one branch have the same log-probability here; the first stands for all.
        branches = [
            [i for i, label in enumerate(labels) if tuple(label[: depth + 1]) == (*prefix, token)]
            for token in following
        ]
        logits_nb = log_probs_nlt[:, [branch[0] for branch in branches], depth].astype(np.float64)
        shares_nb = _softmax(logits_nb, temperature)
        for share_n, branch in zip(shares_nb.T, branches, strict=True):
            probs_nl[:, branch] *= share_n[:, None]
    return probs_nl


def _softmax(logits_nb: np.ndarray, temperature: float) -> np.ndarray:
    if temperature == 0:
        return np.eye(logits_nb.shape[1])[logits_nb.argmax(axis=1)]
    scaled_nb = (logits_nb - logits_nb.max(axis=1, keepdims=True)) / temperature
    weights_nb = np.exp(scaled_nb)
    return weights_nb / weights_nb.sum(axis=1, keepdims=True)
