import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from aer_jax.corpora.base import UNKNOWN_SPEAKER, Clip, Waveform
from aer_jax.data.preparation.splits import (
    Rule,
    assert_splits,
    draw_speakers,
    parse_rule,
    shared_speakers,
    split_clips,
)
from aer_jax.errors import UserError

NOISE = Waveform(np.ones(1, np.float32), 8000)


def clip(i, speaker=None, split=None, session=""):
    return Clip(f"utt{i:03d}", speaker or f"s{i % 6}", NOISE, (), "", split, session)


def speakers_of(splits, clips):
    of = {c.id: c.speaker for c in clips}
    return [{of[id] for id in splits[part]} for part in ("train", "validation", "test")]


def test_splits_are_by_speaker_and_seeded():
    clips = [clip(i, speaker=f"s{i % 20}") for i in range(200)]
    splits, _ = split_clips(clips, 0)
    speaker = {c.id: c.speaker for c in clips}
    parts = [{speaker[id] for id in splits[part]} for part in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [13, 3, 4] and len(set.union(*parts)) == 20
    assert {k: set(v) for k, v in split_clips(clips[::-1], 0)[0].items()} == {k: set(v) for k, v in splits.items()}
    assert split_clips(clips, 1)[0] != splits


def test_the_seeded_draw_never_changes():
    """A dataset prepared elsewhere, or next year, must have the same test speakers."""
    parts = draw_speakers({f"s{i}" for i in range(8)}, 0)
    assert [s for s, part in parts.items() if part == "test"] == ["s2", "s4"]
    assert [s for s, part in parts.items() if part == "validation"] == ["s3"]


@pytest.mark.parametrize("n", range(3, 40))
def test_every_part_has_a_speaker(n):
    parts = list(draw_speakers({f"s{i}" for i in range(n)}, 5).values())
    assert len(parts) == n and {"train", "validation", "test"} == set(parts)
    assert parts.count("train") >= max(parts.count("validation"), parts.count("test"))


def test_two_speakers_are_too_few():
    with pytest.raises(UserError, match=r"2 speaker\(s\) cannot be divided"):
        split_clips([clip(0), clip(1)], 0)


def test_the_corpus_own_split_wins():
    given = ["train", "test", "validation", "train"]
    clips = [clip(i, split=part) for i, part in enumerate(given)]
    splits, how = split_clips(clips, 0)
    assert splits == {"train": ["utt000", "utt003"], "validation": ["utt002"], "test": ["utt001"]}
    assert how == "as the corpus says"


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([clip(0, split="train"), clip(1)], r"split for 1 of 2 clips \(utt001 has none\)"),
        ([clip(0, split="train"), clip(1, split="test")], "no usable clip for validation"),
        (
            [clip(0, split="train"), clip(1, split="validation"), clip(2, split="test", speaker="s0")],
            "speaker s0 into both train and test",
        ),
    ],
)
def test_a_bad_split_is_refused(clips, message):
    with pytest.raises(UserError, match=message):
        split_clips(clips, 0)


def test_disjoint_means_utterances_too():
    with pytest.raises(UserError, match="names u twice"):
        assert_splits({"train": ["u", "u"]}, {"u": "s"}, "x")
    with pytest.raises(UserError, match="names v but the dataset has no such utterance"):
        assert_splits({"train": ["u", "v"]}, {"u": "s"}, "x")


def test_folds_are_of_speakers_and_every_speaker_is_tested_once():
    clips = [clip(i, speaker=f"s{i % 23}") for i in range(230)]
    tested, validated = [], []
    for fold in range(1, 6):
        splits, how = split_clips(clips, 3, parse_rule(f"fold:{fold}/5", clips))
        train, validation, test = speakers_of(splits, clips)
        assert len(train | validation | test) == 23 == len(train) + len(validation) + len(test)
        assert len(test) in (4, 5)
        tested.append(test)
        validated.append(validation)
        assert f"fold {fold} of 5" in how and "seed 3" in how
    assert sorted(name for test in tested for name in test) == sorted({c.speaker for c in clips})
    assert validated == tested[1:] + tested[:1]
    again, _ = split_clips(clips[::-1], 3, parse_rule("fold:2/5", clips))
    assert speakers_of(again, clips)[2] == tested[1]
    other, _ = split_clips(clips, 4, parse_rule("fold:2/5", clips))
    assert speakers_of(other, clips)[2] != tested[1]


def test_sessions_are_folds_too():
    clips = [clip(i, speaker=f"{i % 5 + 1}{'MF'[i % 2]}", session=str(i % 5 + 1)) for i in range(50)]
    splits, how = split_clips(clips, 0, parse_rule("session:5", clips))
    train, validation, test = speakers_of(splits, clips)
    assert (test, validation) == ({"5M", "5F"}, {"1M", "1F"}) and len(train) == 6
    assert how == "by session, 5 the test and 1 validation"


def test_official_partitions():
    parts = ["train", "train", "validation", "test1", "test1", "test2"]
    clips = [clip(i, split=part, speaker="t" if "test" in part else f"s{i}") for i, part in enumerate(parts)]
    rule = parse_rule(None, clips)
    assert rule == Rule("official") and [rule.leaves_out(c) for c in clips].count(None) == 5
    assert "test2, not used" in rule.leaves_out(clips[5])
    splits, how = split_clips(clips[:5], 0, rule)
    assert [len(splits[part]) for part in ("train", "validation", "test")] == [2, 1, 2]
    assert how == "as the corpus says, the test being test1"
    for text, tested, words in (
        ("official:test2", ["utt005"], "test2"),
        ("official:test1+test2", None, "test1 and test2"),
    ):
        rule = parse_rule(text, clips)
        kept = [c for c in clips if rule.leaves_out(c) is None]
        splits, how = split_clips(kept, 0, rule)
        assert splits["test"] == (tested or ["utt003", "utt004", "utt005"]) and how.endswith(words)


def test_unknown_speakers_are_in_no_split_drawn_by_speaker():
    unknown = clip(0, speaker=UNKNOWN_SPEAKER)
    for text in ("speakers", "fold:1/3"):
        assert "unknown" in parse_rule(text, [unknown]).leaves_out(unknown)
    assert parse_rule("random", [unknown]).leaves_out(unknown) is None
    assert parse_rule("official", [clip(1, split="train")]).leaves_out(unknown) is None


@pytest.mark.parametrize("n", [10, 4373, 4114])
def test_the_papers_split(n):
    """scikit-learn's draw over the records in order; 3,498 / 875 and 3,291 / 823 are published."""
    clips = [clip(i) for i in range(n)]
    splits, how = split_clips(clips, 42, parse_rule("random", clips))
    others, test = train_test_split(range(n), test_size=0.2, random_state=42)
    assert set(splits["test"]) == {clips[i].id for i in test}
    published = {4373: (3498, 875), 4114: (3291, 823)}
    if n in published:
        assert (len(splits["train"]) + len(splits["validation"]), len(splits["test"])) == published[n]
        assert abs(len(splits["validation"]) - 0.1 * len(others)) < 1
        assert shared_speakers(splits, {c.id: c.speaker for c in clips}) == 6
    assert "at random" in how


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speaker", 'unknown split "speaker"; known: speakers'),
        ("speakers:3", "unknown split"),
        ("fold:1", "unknown split"),
        ("fold:0/5", "I from 1 to K"),
        ("fold:6/5", "I from 1 to K"),
        ("fold:1/2", "K of at least 3"),
        ("session:3", "no such session; the corpus has 1, 2"),
        ("official", "no split of its own"),
        ("official:", "unknown split"),
        ("", "unknown split"),
        ("random:0.5", "unknown split"),
    ],
)
def test_bad_rules_are_said(text, message):
    with pytest.raises(UserError, match=message):
        parse_rule(text, [clip(0, session="1"), clip(1, session="2")])


def test_rules_that_the_clips_cannot_follow():
    with pytest.raises(UserError, match=r'"test3" is no test of the corpus; it has test1'):
        parse_rule("official:test3", [clip(0, split="test1"), clip(1, split="train")])
    with pytest.raises(UserError, match=r"6 speaker\(s\) cannot be dealt to 7 folds"):
        split_clips([clip(i) for i in range(12)], 0, Rule("fold", fold=1, folds=7))
    with pytest.raises(UserError, match="usable clips come from session 1, 2"):
        split_clips([clip(i, session=str(i % 2 + 1)) for i in range(12)], 0, Rule("session", session="1"))
    with pytest.raises(UserError, match="puts speaker s into both"):
        split_clips([clip(i, speaker="s", session=str(i)) for i in range(3)], 0, Rule("session", session="1"))
    with pytest.raises(UserError, match=r"2 clip\(s\) cannot be divided"):
        split_clips([clip(0), clip(1)], 0, Rule("random"))
