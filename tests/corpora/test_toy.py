"""The toy corpus: known truth, imbalance, speech-like audio, emotion that is heard across speakers."""

import librosa
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chisquare
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aer_jax.corpora.toy import corpus as toy
from aer_jax.errors import UserError
from aer_jax.labels.votes import Votes


@pytest.fixture(scope="module")
def corpus():
    return toy.generate()


@pytest.fixture(scope="module")
def counts(corpus):
    votes = [vote for clip in corpus.clips for vote in clip.votes]
    return Votes(votes).counts([clip.id for clip in corpus.clips], toy.CLASSES)


def test_shape(corpus):
    assert len({clip.id for clip in corpus.clips}) == 240
    assert len({clip.speaker for clip in corpus.clips}) == 20
    assert corpus.classes == ("angry", "happy", "neutral", "sad") and not corpus.licensed
    for clip in corpus.clips:
        assert [vote.rater for vote in clip.votes] == [f"listener{r}" for r in range(5)]
        assert {vote.label for vote in clip.votes} <= set(corpus.labels)
        samples = clip.audio.samples
        assert samples.dtype == np.float32 and clip.audio.rate == 16_000
        assert 0.8 <= len(samples) / 16_000 <= 2.0
        assert np.isfinite(samples).all() and 0.01 < np.abs(samples).max() <= 0.98
        assert clip.transcript


def test_seed_decides_everything(corpus):
    again, other = toy.generate(clips=4), toy.generate(clips=4, seed=1)
    for a, b, c in zip(corpus.clips[:4], again.clips, other.clips, strict=True):
        assert (a.id, a.speaker, a.votes, a.transcript) == (b.id, b.speaker, b.votes, b.transcript)
        np.testing.assert_array_equal(a.audio.samples, b.audio.samples)
        assert a.id != c.id and a.speaker != c.speaker
        assert not np.array_equal(a.audio.samples[:8000], c.audio.samples[:8000])
    assert [v.voice for v in toy.utterances(4)] != [v.voice for v in toy.utterances(4, seed=1)]


def test_votes_are_draws_from_the_truth():
    clips, raters = 3, 4000
    drawn = toy.generate(clips, raters=raters)
    votes = [vote for clip in drawn.clips for vote in clip.votes]
    truth = toy.truth(clips)
    for counts_k, truth_k in zip(Votes(votes).counts(list(truth), toy.CLASSES), truth.values(), strict=True):
        assert truth_k.sum() == pytest.approx(1.0)
        usual = truth_k * raters >= 5
        observed = np.append(counts_k[usual], counts_k[~usual].sum())
        expected = np.append(truth_k[usual], truth_k[~usual].sum()) * raters
        assert chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_classes_are_imbalanced_and_cases_ambiguous(counts):
    truth = np.array(list(toy.truth().values()))
    sizes = np.bincount(truth.argmax(axis=1), minlength=4)
    voted = np.bincount(counts.argmax(axis=1), minlength=4)
    for found in (sizes, voted):
        assert found.argmax() == toy.CLASSES.index("neutral")
        assert 0 < found.min() < 0.27 * found.max()
    top = truth.max(axis=1)
    assert (top > 0.9).mean() > 0.1 and (top < 0.6).mean() > 0.1


def test_audio_is_voiced_speech(corpus):
    """Harmonic at the speaker's pitch, with energy that rises and falls syllable by syllable."""
    said = toy.utterances()
    for index in (0, 1, 5, 9):
        samples, voice = corpus.clips[index].audio.samples, said[index].voice
        f0, voiced, _ = librosa.pyin(samples, fmin=60, fmax=500, sr=16_000)
        expected = voice.pitch * 2 ** (said[index].prosody.pitch / 12)
        assert 0.3 < voiced.mean() < 1.0
        assert abs(12 * np.log2(np.nanmedian(f0) / expected)) < 3.0
        level = librosa.amplitude_to_db(librosa.feature.rms(y=samples, frame_length=512, hop_length=160)[0])
        assert np.ptp(level) > 20
        flatness = librosa.feature.spectral_flatness(y=samples)[0]
        assert np.quantile(flatness, 0.2) < 0.01


def test_emotion_can_be_heard_across_speakers(corpus, counts):
    """A linear probe on log-mel averages and pitch beats the constant on unheard speakers."""
    truth = np.array(list(toy.truth().values()))
    features = np.array([_features(clip.audio.samples) for clip in corpus.clips])
    speakers = [clip.speaker for clip in corpus.clips]
    probe, constant = np.zeros_like(truth), np.zeros_like(truth)
    for train, test in GroupKFold(4).split(features, groups=speakers):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        model.fit(
            np.repeat(features[train], 4, axis=0),
            np.tile(np.arange(4), len(train)),
            logisticregression__sample_weight=counts[train].ravel(),
        )
        probe[test] = model.predict_proba(features[test])
        constant[test] = counts[train].sum(axis=0) / counts[train].sum()

    def js(p):
        return np.mean(jensenshannon(truth, p, base=2, axis=1) ** 2)

    assert 0.03 < js(probe) < 0.6 * js(constant)


def _features(samples):
    mel = librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=40)
    log_mel = np.log(mel + 1e-8)
    pitch = np.log(librosa.yin(samples, fmin=60, fmax=500, sr=16_000, frame_length=1024))
    return np.r_[log_mel.mean(axis=1), log_mel.std(axis=1), pitch.mean(), pitch.std(), len(samples) / 16_000]


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"speakers": 0}, {"raters": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(UserError, match="at least 1 of " + next(iter(wrong))):
        toy.generate(**wrong)
