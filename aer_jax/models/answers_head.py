"""Answers head: the distribution over labels that the language model itself would answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aer_jax.base.label_trie import make_trie
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.qwen2_audio import Features

Labels = tuple[tuple[int, ...], ...]


class AnswersHead(nnx.Module):
    """Log-likelihoods of the labels as answers, over a learned temperature, plus a bias per class.

    An answer is bound to the labels: at each node of their trie the tokens that some label goes on with share all
    probability, so only those columns of the output layer are read. At temperature 1 and bias 0, as it starts, the
    prediction is what infinitely many answers would come to.

    Args:
        hidden_size: of the language model.
        labels: tokens of each class as a whole answer, the one that ends it included, see `chat.label_tokens`.
    """

    def __init__(self, hidden_size: int, labels: Labels):
        self.labels = labels
        self.columns = HeadStatistics(jnp.zeros((hidden_size, len(self.tokens))))
        self.log_temperature = nnx.Param(jnp.zeros(1))
        self.bias = nnx.Param(jnp.zeros(len(labels)))

    @property
    def tokens(self) -> list[int]:
        """The tokens of all labels, whose columns of the output layer are read."""
        return sorted({token for label in self.labels for token in label})

    @property
    def packed_ln(self) -> np.ndarray:
        """int32 [labels, longest label - 1]: all tokens but each label's last, padded on the right."""
        packed_ln = np.zeros((len(self.labels), max(map(len, self.labels)) - 1), np.int32)
        for row, label in zip(packed_ln, self.labels, strict=True):
            row[: len(label) - 1] = label[:-1]
        return packed_ln

    def log_likelihoods(self, features: Features) -> jax.Array:
        """float32 [batch, labels]: of each label, given that the answer is one of them."""
        assert features.answers_bph is not None
        states_bph = features.answers_bph
        logits_bpu = jnp.matmul(
            states_bph, self.columns[...].astype(states_bph.dtype), preferred_element_type=jnp.float32
        )
        column = {token: i for i, token in enumerate(self.tokens)}
        trie, length = make_trie(self.labels), self.packed_ln.shape[1]
        by_label = []
        for i, label in enumerate(self.labels):
            total_b = jnp.zeros(len(states_bph))
            for depth, token in enumerate(label):
                following = trie[label[:depth]]
                if len(following) > 1:
                    at = 0 if depth == 0 else i * length + depth  # the state behind the prompt is the first
                    choices_bf = logits_bpu[:, at, np.array([column[t] for t in following])]
                    total_b += choices_bf[:, following.index(token)] - jax.nn.logsumexp(choices_bf, axis=1)
            by_label.append(total_b)
        return jnp.stack(by_label, axis=1)

    def logits(self, log_likelihoods_bk: jax.Array) -> jax.Array:
        """Logits of what `log_likelihoods` gives."""
        return log_likelihoods_bk * jnp.exp(-self.log_temperature[...]) + self.bias[...]

    def __call__(self, features: Features, key: jax.Array | None = None) -> jax.Array:
        """Logits [batch, classes], float32; nothing is dropped, so `key` is not used."""
        return self.logits(self.log_likelihoods(features))
