import json
import re
import string

import iemocap_tree
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aer_jax import cli
from aer_jax.corpora import read_corpus
from aer_jax.corpora.base import UNREADABLE, Corpus
from aer_jax.corpora.iemocap import reader as iemocap
from aer_jax.corpora.iemocap.blocks import read_answers
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError
from aer_jax.labels.votes import Votes

IMPRO, SCRIPT = (
    "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt",
    "Session1/dialog/EmoEvaluation/Ses01F_script01_1b.txt",
)


@pytest.fixture
def tree(tmp_path):
    return iemocap_tree.write(tmp_path / "IEMOCAP")


def votes_of(corpus):
    return {clip.id: [(v.rater, v.label, v.weight) for v in clip.votes] for clip in corpus.clips}


def by_hand(excited="excited", whole=False):
    return {
        id: [
            (rater, excited if label == "excited" else label, 1 if whole else weight) for rater, label, weight in votes
        ]
        for id, votes in iemocap_tree.VOTES.items()
    }


def first_session(votes):
    return {id: given for id, given in votes.items() if id.startswith("Ses01")}


@pytest.mark.parametrize("multi_label", ["shared", "whole"])
@pytest.mark.parametrize(("excited", "counts_as"), [("apart", "excited"), ("happy", "happy")])
def test_votes_by_hand(tree, excited, counts_as, multi_label):
    corpus = iemocap.read(tree, excited=excited, multi_label=multi_label)
    assert first_session(votes_of(corpus)) == by_hand(counts_as, multi_label == "whole")
    assert ("excited" in corpus.labels) == (excited == "apart")
    assert corpus.choices["excited"] == excited and corpus.choices["multi_label"] == multi_label


def test_counting_excited_as_happy_is_adding_the_two(tree):
    """Whether it is done here or afterwards, a distribution must be the same."""
    ids = list(iemocap_tree.VOTES)
    apart, merged = (
        Votes([v for c in iemocap.read(tree, excited=excited).clips for v in c.votes]).counts(ids, labels)
        for excited, labels in (("apart", ("happy", "excited")), ("happy", ("happy",)))
    )
    assert merged[:, 0].tolist() == pytest.approx(apart.sum(axis=1).tolist())


def test_the_last_token_says_who_speaks(tree):
    clips = {clip.id: clip for clip in iemocap.read(tree).clips}
    assert {id: clips[id].speaker for id in iemocap_tree.SPEAKERS} == iemocap_tree.SPEAKERS
    assert clips["Ses03M_impro05a_F000"].speaker == "Ses03_F"
    assert {clip.session for clip in clips.values()} == set("12345")
    assert all(clip.audio.is_file() for clip in clips.values())


def test_words_are_matched(tree):
    clips = {clip.id: clip for clip in iemocap.read(tree).clips}
    assert clips["Ses01F_impro01_F000"].transcript == "Excuse me."
    assert clips["Ses01F_impro01_M000"].transcript == "Do you have your forms?: [LAUGHTER]"
    assert clips["Ses01F_impro01_F001"].transcript == "no time"
    assert clips["Ses01F_script01_1b_M000"].transcript == ""


def test_everything_left_out_is_counted(tree):
    corpus = iemocap.read(tree)
    dropped = {reason: len(what) for reason, what in corpus.dropped.items()}
    assert dropped == {
        iemocap.SELF_EVALUATION: 2,
        "evaluator's answer is blank": 1,
        "transcription line of no evaluated turn": 2,
        "transcription file missing": 5,
        "evaluation file whose name is no dialogue of its session": 1,
        "clip on disk without an evaluation": 1,
    }
    assert corpus.dropped["clip on disk without an evaluation"] == ["Ses01F_impro01_F099"]
    assert corpus.licensed and corpus.classes == ("angry", "happy", "neutral", "sad")


def test_improvised_only(tree):
    corpus = iemocap.read(tree, improvised=True)
    assert not any("script" in clip.id for clip in corpus.clips) and len(corpus.clips) == 11
    assert corpus.dropped["scripted dialogue"] == ["Ses01F_script01_1b_M000"]
    # What is left out is not read in another sense: a damaged scripted dialogue is still an error.
    path = tree / SCRIPT
    path.write_text(path.read_text().replace("Sadness", "Sadnes"))
    with pytest.raises(UserError, match=r'Ses01F_script01_1b.txt, line 4: "Sadnes" is no label\. Did you mean "Sad'):
        iemocap.read(tree, improvised=True)


def test_missing_parts(tree, tmp_path):
    with pytest.raises(UserError, match="has no folder Session1 to Session5"):
        iemocap.read(tmp_path / "nowhere")
    (tmp_path / "release").mkdir()
    tree.rename(tmp_path / "release" / "IEMOCAP_full_release")
    assert len(iemocap.read(tmp_path / "release").clips) == 12
    root = tmp_path / "release" / "IEMOCAP_full_release"
    (root / "Session5").rename(root / "elsewhere")
    assert iemocap.read(root).notes == ["Only Session1, Session2, Session3, Session4 of five sessions are there."]
    (root / "Session4" / "dialog").rename(root / "Session4" / "other")
    with pytest.raises(UserError, match=r"Session4 is not a session of IEMOCAP: .*EmoEvaluation is missing"):
        iemocap.read(root)


def test_names_in_other_case(tree):
    """As file systems without case, and people, change them."""
    right = {clip.id: clip.transcript for clip in iemocap.read(tree).clips}
    for path in sorted(tree.rglob("*"), key=lambda path: -len(path.parts)):
        if path.name.startswith("Session"):
            path.rename(path.with_name(path.name.lower()))
        elif path.suffix in (".wav", ".txt"):
            path.rename(path.with_suffix(path.suffix.upper()))
        elif path.name in ("EmoEvaluation", "wav"):
            path.rename(path.with_name(path.name.swapcase()))
    corpus = iemocap.read(tree)
    assert {clip.id: clip.transcript for clip in corpus.clips} == right
    assert all(clip.audio.is_file() for clip in corpus.clips)


@pytest.mark.parametrize("word", ["nan", "N/A", "None"])
def test_a_word_for_nothing_is_no_label(tree, word):
    path = tree / IMPRO
    path.write_bytes(path.read_bytes().replace(b"C-E2:\tNeutral;", f"C-E2:\t{word};".encode(), 1))
    corpus = iemocap.read(tree)
    assert [vote.rater for vote in corpus.clips[0].votes] == ["E3", "E4"]
    assert corpus.dropped["evaluator's answer is blank"][0] == "Ses01F_impro01_F000 E2"


# What to replace in the first file, by what, and the error; lines are counted from 1.
DAMAGE = [
    ("C-E2:\tNeutral;", "C-E2:\tNeutrl;", r'line 4: "Neutrl" is no label\. Did you mean "Neutral"'),
    ("C-E2:\tNeutral;\t()", "C-E2:\tNeutral\t()", "line 4 ends inside an answer"),
    ("C-E2:\tNeutral;\t()", "C-E2:\tNeutral;", "line 4 is no answer of a rater"),
    ("C-E3:\tNeutral; Anger;", "C-E3:\tNeutral; (Anger;", "line 14 is no answer of a rater"),
    ("C-E2:\tNeutral;", "%C-E2:\tNeutral;", "line 4 is no line of an evaluation file"),
    ("C-E2:\tNeutral;", "C-X2:\tNeutral;", "line 4 is no answer of a rater"),
    ("C-E3:\tNeutral;\t()", "C-E2:\tNeutral;\t()", "line 5: a second answer of E2 about Ses01F_impro01_F000"),
    ("[6.2901 - ", "[6.2901 _ ", "line 3 is no head of a block"),
    ("Ses01F_impro01_M000", "Ses01F_impro02_M000", "line 12: the turn .* is not of this file's dialogue"),
    ("Ses01F_impro01_M000", "Ses01F_impro01_X000", "line 12 is no head of a block"),
    ("Ses01F_impro01_M000", "Ses01F_impro01_F000", "line 12: a second block of Ses01F_impro01_F000"),
    ("A-E3:\tval 3; act 2; dom  2;", "A-E3:\tNeutral;", "line 8 is no line of an evaluation file"),
    ("A-E3:\tval 3", "val 3", "line 8 is no line of an evaluation file"),
    (
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\r\n",
        "",
        "line 3: an answer that belongs to",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), DAMAGE)
def test_a_bad_line_is_named(tree, old, new, message):
    path = tree / IMPRO
    text = path.read_bytes().decode("latin-1")
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("latin-1"))
    with pytest.raises(UserError, match=message) as error:
        iemocap.read(tree)
    assert str(path) in str(error.value) and "--lenient" in str(error.value)
    corpus = iemocap.read(tree, excited="apart", lenient=True)
    assert all(re.fullmatch(r".*Ses01F_impro01\.txt, line \d+", where) for where in corpus.dropped[UNREADABLE])
    # Votes may be missing, but none is wrong.
    for id, given_votes in first_session(votes_of(corpus)).items():
        assert set(given_votes) <= set(by_hand()[id])


def test_a_head_that_cannot_be_read_takes_its_block_with_it(tree):
    path = tree / IMPRO
    path.write_bytes(path.read_bytes().replace(b"[10.0100 - 11.3925]", b"[10.0100 - ]"))
    corpus = iemocap.read(tree, excited="apart", lenient=True)
    expected = by_hand()
    del expected["Ses01F_impro01_M000"]
    assert first_session(votes_of(corpus)) == expected
    assert len(corpus.dropped[UNREADABLE]) == 5  # the head and its four answers


def read_bytes(folder, content, lenient=False):
    path = folder / "Ses01F_impro01.txt"
    path.write_bytes(content)
    corpus = Corpus("iemocap", (), (), [], lenient=lenient)
    return read_answers(path, corpus, iemocap.LABELS), corpus


CONTENT = iemocap_tree.IMPRO01.encode("latin-1")
KEEP = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KEEP
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_give_no_traceback(tmp_path, content, lenient):
    for data in (content, CONTENT[:200] + content, content + CONTENT[-200:]):
        try:
            read_bytes(tmp_path, data, lenient)
        except UserError as error:
            assert not lenient and "Ses01F_impro01.txt, line" in str(error)


@KEEP
@given(st.data(), st.booleans())
def test_one_changed_byte_gives_the_votes_or_an_error(tmp_path, data, lenient):
    """A byte is replaced, put in or taken out: strictly the votes are right or refused, leniently none is wrong.

    A changed name of a rater or turn can make another valid name; then the answers must be right all the same.
    """
    at = data.draw(st.integers(0, len(CONTENT) - 1))
    byte = data.draw(st.sampled_from([*string.printable.encode(), 0, 0x85, 0xE9]))
    change = data.draw(st.sampled_from(["replace", "insert", "delete"]))
    middle = {"replace": bytes([byte]), "insert": bytes([byte, CONTENT[at]]), "delete": b""}[change]
    check_changed(tmp_path, at, CONTENT[:at] + middle + CONTENT[at + 1 :], lenient)


def check_changed(folder, at, content, lenient):
    right, _ = read_bytes(folder, CONTENT)
    try:
        answers, corpus = read_bytes(folder, content, lenient)
    except UserError:
        assert not lenient
        return
    dropped = corpus.dropped.get(UNREADABLE, [])
    assert lenient or not dropped
    start = CONTENT.rfind(b"\n", 0, at) + 1
    line, before = CONTENT[start:], CONTENT[start:at]
    renamed = line.startswith(b"[") and before.count(b"\t") == 1
    rater = line.startswith(b"C-") and len(before) < 5
    said, meant = (
        [[(None if rater else a.rater, a.labels) for a in given_answers] for given_answers in votes.values()]
        for votes in (answers, right)
    )
    if not renamed:
        assert list(answers) == [id for id in right if id in answers]
    if dropped:
        assert all(any(set(one) <= set(other) for other in meant) for one in said)
    else:
        assert said == meant


@KEEP
@given(st.integers(0, len(CONTENT)))
def test_a_truncated_file_gives_no_wrong_vote(tmp_path, end):
    """Whole lines may be missing, which no reader can know; what is there is right."""
    right, _ = read_bytes(tmp_path, CONTENT)
    try:
        answers, _ = read_bytes(tmp_path, CONTENT[:end])
    except UserError:
        return
    for id, said in answers.items():
        assert said == right[id][: len(said)]


@KEEP
@given(data=st.data())
def test_damaged_transcriptions_give_no_traceback_and_never_touch_a_vote(module_tree, data):
    path = module_tree / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt"
    content = path.read_bytes()
    at, junk = data.draw(st.integers(0, len(content))), data.draw(st.binary(max_size=6))
    try:
        path.write_bytes(data.draw(st.sampled_from([junk, content[:at], content[:at] + junk + content[at:]])))
        corpus = iemocap.read(module_tree, excited="apart")
    finally:
        path.write_bytes(content)
    assert first_session(votes_of(corpus)) == by_hand()


@pytest.fixture(scope="module")
def module_tree(tmp_path_factory):
    return iemocap_tree.write(tmp_path_factory.mktemp("iemocap") / "IEMOCAP", sessions=1)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path, line_end):
    answers, _ = read_bytes(tmp_path, iemocap_tree.IMPRO01.replace("\r\n", line_end).encode())
    assert answers == read_bytes(tmp_path, CONTENT)[0]


def test_prepare(tree, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["prepare", "--corpus", "iemocap", "--root", tree, "--out", out, "--split", "session:4", "--json"]
    args += ["--outside", "drop", "--multi-label", "whole", "--improvised"]
    assert cli.main([str(a) for a in args]) == 0
    printed = capsys.readouterr()
    assert "iemocap is licensed" in printed.err
    dataset = open_dataset(out, verify=True)
    assert json.loads(printed.out)["test"] == 2 == len(dataset.splits["test"])
    assert {dataset.utterances[id].speaker for id in dataset.splits["test"]} == {"Ses04_F", "Ses04_M"}
    assert {dataset.utterances[id].speaker for id in dataset.splits["validation"]} == {"Ses05_F", "Ses05_M"}
    # Frustration and Other are outside the four classes, so two turns of Session1 are left out, as in the paper.
    assert [id for id in dataset.utterances if id.startswith("Ses01")] == ["Ses01F_impro01_F000"]
    about = json.loads((out / "dataset.json").read_text())
    assert about["licensed"] and dataset.licensed
    chosen = {"excited": "happy", "multi_label": "whole", "improvised": "only", "outside": "drop", "split": "session:4"}
    assert about["settings"].items() >= chosen.items()
    report = re.sub(" +", " ", (out / "report.md").read_text()) + (out / "report" / "dropped.jsonl").read_text()
    assert "Excuse me" not in report and "haughty" not in report
    assert f"| {iemocap.SELF_EVALUATION} | 2 |" in report


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"corpus": "crema-d", "excited": "apart"}, "--excited is a choice of iemocap, paper-json, not of crema-d"),
        ({"corpus": "msp-podcast", "multi_label": "whole"}, "--multi-label is a choice of iemocap, not of msp-podcast"),
    ],
)
def test_a_choice_that_a_corpus_does_not_have(choices, message):
    corpus = choices.pop("corpus")
    with pytest.raises(UserError, match=message):
        read_corpus(corpus, "x", None, **choices)
