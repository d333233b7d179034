import numpy as np

from aer_jax.labels.votes import Vote, Votes, normalise


def test_counts_are_weighted_and_others_do_not_count():
    votes = [
        Vote("u1", "sad"),
        Vote("u1", "sad", weight=0.5),
        Vote("u1", "angry"),
        Vote("u1", "bored"),  # no class
        Vote("u3", "sad"),  # not asked for
    ]
    counts_nk = Votes(votes).counts(["u0", "u1"], ["angry", "sad"])
    assert counts_nk.dtype == np.float64
    assert counts_nk.tolist() == [[0, 0], [1, 1.5]]


def test_a_row_without_votes_cannot_be_used_unseen():
    p_nk = normalise(np.array([[1.0, 3.0], [0.0, 0.0]]))
    assert p_nk[0].tolist() == [0.25, 0.75]
    assert np.isnan(p_nk[1]).all()
