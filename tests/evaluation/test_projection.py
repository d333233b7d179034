"""More clips than an exact fit takes: all are learned from, in directions that a sample of them gives."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from aer_jax.evaluation import projection
from aer_jax.evaluation.linear_probe import L2, expand, fit, fit_coordinates, fit_probe
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.projection import describe, gather, load_parts


@pytest.fixture
def features():
    """id -> its features, float32 [F]: few directions and noise; and what they mean, [K]."""
    rng = np.random.default_rng(0)
    n, size = 400, 60
    latent_nd = rng.normal(size=(n, 6))
    x_nf = (latent_nd @ rng.normal(size=(6, size)) + 0.3 * rng.normal(size=(n, size)) + 2).astype(np.float32)
    p_nk = softmax(latent_nd @ rng.normal(size=(6, 3)) + 0.5 * rng.normal(size=(n, 3)), axis=1)
    ids = [f"clip{i:03}" for i in range(n)]
    return dict(zip(ids, x_nf, strict=True)), dict(zip(ids, p_nk, strict=True))


def blocks_of(x, asked, most=7):
    """Blocks in an order of their own, as batches come."""

    def blocks(ids):
        asked.append(list(ids))
        for start in reversed(range(0, len(ids), most)):
            some = range(start, min(start + most, len(ids)))
            yield np.array(some), np.stack([x[ids[i]] for i in some])

    return blocks


def test_few_clips_are_their_features(features):
    x, _ = features
    ids = list(x)
    asked = []
    (some, others), none = load_parts([ids[:9], ids[9:12]], blocks_of(x, asked))
    np.testing.assert_array_equal(some, [x[id] for id in ids[:9]])
    np.testing.assert_array_equal(others, [x[id] for id in ids[9:12]])
    assert none is None and asked == [ids[:9], ids[9:12]]
    assert describe(12, none) == "fitted to 12 clips"


def test_of_many_clips_all_are_fitted_in_axes_of_a_sample(features, monkeypatch):
    monkeypatch.setattr(projection, "EXACT", 100)
    monkeypatch.setattr(projection, "AXES", 5)
    x, _ = features
    ids, asked = list(x), []
    parts = [ids[:250], ids[250:300]]
    (some, others), axes = load_parts(parts, blocks_of(x, asked))
    assert (some.shape, others.shape, some.dtype) == ((250, 5), (50, 5), np.float32)
    assert len(asked[0]) == 100 == len(set(asked[0])) and set(asked[0]) < set(ids[:250]) and asked[1:] == parts
    assert describe(300, axes) == (
        "fitted to all 300 clips, in 5 directions: the principal axes of a sample of 100 clips"
    )
    # The axes are those that a singular value decomposition of the sample gives, whatever the order of its clips.
    sample_nf = np.stack([x[id] for id in asked[0]])
    z_nf = (sample_nf - sample_nf.mean(0)) / (sample_nf.std(0) + 1e-5) / 60**0.5
    theirs_rf = np.linalg.svd(z_nf, full_matrices=False)[2][:5]
    np.testing.assert_allclose(axes.axes_fr @ axes.axes_fr.T, theirs_rf.T @ theirs_rf, atol=1e-4)
    again = load_parts([ids[:250][::-1], ids[250:300]], blocks_of(x, []))[1]
    np.testing.assert_array_equal(again.axes_fr, axes.axes_fr)
    np.testing.assert_allclose(others, axes(np.stack([x[id] for id in parts[1]])), atol=1e-6)


def test_in_all_directions_the_fit_is_scikit_learns_on_the_features(features, monkeypatch):
    """A sample that spans the features loses nothing: coordinates are not standardised a second time."""
    monkeypatch.setattr(projection, "EXACT", 100)
    x, p = features
    ids = list(x)
    x_nf, p_nk = (np.stack([values[id] for id in ids]) for values in (x, p))
    weights_n = np.random.default_rng(1).uniform(0.2, 2, len(ids))
    (coordinates,), axes = load_parts([ids], blocks_of(x, []))
    assert axes.axes_fr.shape == (60, 60)
    (probe,) = fit_coordinates(coordinates, p_nk, (L2[3],), weights_n)
    z_nf = (x_nf - axes.mean_f) / axes.deviation_f / 60**0.5
    theirs = LogisticRegression(C=1 / (weights_n.sum() * L2[3]), tol=1e-10, max_iter=10_000)
    theirs.fit(np.repeat(z_nf, 3, axis=0), np.tile(np.arange(3), len(ids)), (p_nk * weights_n[:, None]).ravel())
    np.testing.assert_allclose(expand(probe, axes)(x_nf), theirs.predict_proba(z_nf), atol=2e-3)
    np.testing.assert_allclose(expand(probe, axes)(x_nf), probe(coordinates), atol=1e-5)


def test_more_clips_help_beyond_the_sample(features, monkeypatch):
    """All clips in a sample's directions predict others better than an exact fit to the sample alone."""
    monkeypatch.setattr(projection, "EXACT", 60)
    monkeypatch.setattr(projection, "AXES", 30)
    x, p = features
    ids = list(x)
    parts, test_ids = [ids[:200], ids[200:250]], ids[250:]
    targets = [np.stack([p[id] for id in part]) for part in parts]
    coordinates, axes = load_parts(parts, blocks_of(x, []))
    all_clips = expand(fit_probe(coordinates[0], targets[0], coordinates[1], targets[1], fit_coordinates), axes)
    x_nf, p_nk = (np.stack([values[id] for id in parts[0][:60]]) for values in (x, p))
    sample_alone = min(
        (fit(x_nf, p_nk, (l2,))[0] for l2 in L2),
        key=lambda probe: js_divergence(targets[1], probe(np.stack([x[id] for id in parts[1]]))).mean(),
    )
    test_mf, test_mk = (np.stack([values[id] for id in test_ids]) for values in (x, p))
    assert js_divergence(test_mk, all_clips(test_mf)).mean() < js_divergence(test_mk, sample_alone(test_mf)).mean()


def test_no_more_is_held_than_what_is_made_of_a_block(features):
    x, _ = features
    ids = list(x)
    sums = gather(ids, blocks_of(x, []), lambda rows: rows.sum(axis=1))
    np.testing.assert_allclose(sums, [x[id].sum() for id in ids], rtol=1e-5)
    with pytest.raises(ValueError, match="no clips"):
        gather([], blocks_of(x, []))
