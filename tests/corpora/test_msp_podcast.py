import json
import re
import string

import msp_tree
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aer_jax import cli
from aer_jax.corpora.base import UNKNOWN_SPEAKER, UNREADABLE, Corpus
from aer_jax.corpora.msp_podcast import reader as msp_podcast
from aer_jax.corpora.msp_podcast.votes import read_votes
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError

FORMS = {
    "text": "labels.txt",
    "detail": "labels_detailed.csv",
    "columns": "labels_detailed.csv",
    "json": "labels_detailed.json",
}


@pytest.fixture
def tree(tmp_path):
    return msp_tree.write(tmp_path / "MSP")


def votes_of(corpus):
    return {clip.id: [(vote.rater, vote.label) for vote in clip.votes] for clip in corpus.clips}


@pytest.mark.parametrize("release", msp_tree.RELEASES)
def test_every_release_gives_the_votes_by_hand(tmp_path, release):
    corpus = msp_podcast.read(msp_tree.write(tmp_path / "MSP", release))
    assert votes_of(corpus) == msp_tree.VOTES
    assert {vote.weight for clip in corpus.clips for vote in clip.votes} == {1.0}
    assert {clip.id: clip.speaker for clip in corpus.clips} == msp_tree.SPEAKER
    assert {clip.id: clip.split for clip in corpus.clips} == {
        turn: msp_tree.SPLIT[part] for turn, (part, _, _) in msp_tree.PLACES.items()
    }
    assert all(clip.audio.is_file() for clip in corpus.clips)
    words = [clip.transcript for clip in corpus.clips]
    assert words[:2] == ["", "words of 1, café"] and corpus.licensed
    assert corpus.dropped == {"turn without votes in test3": [msp_tree.TEST3]}
    assert (
        "The speaker of 1 turns is unknown, and each" in corpus.notes[0]
        and "1 turns have no transcript" in corpus.notes[1]
    )


@pytest.mark.parametrize("missing", ["table", "speakers", "partitions"])
def test_any_two_of_three_tables_are_enough(tmp_path, missing):
    corpus = msp_podcast.read(msp_tree.write(tmp_path / "MSP", **{missing: False}))
    assert {clip.id: clip.speaker for clip in corpus.clips} == msp_tree.SPEAKER
    assert all(clip.split for clip in corpus.clips)


def test_without_speakers_nothing_can_be_split(tmp_path):
    with pytest.raises(UserError, match=r"tells no speakers: labels_consensus.csv \(SpkrID\) and Speaker_ids.txt"):
        msp_podcast.read(msp_tree.write(tmp_path / "MSP", table=False, speakers=False))


def test_missing_parts_are_said(tree, tmp_path):
    with pytest.raises(UserError, match="cannot read the folder"):
        msp_podcast.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not MSP-Podcast as released: it has none of labels, label"):
        msp_podcast.read(tmp_path)
    (tree / "Labels" / "labels_detailed.csv").unlink()
    with pytest.raises(UserError, match=r"none of labels_detailed.json, labels_detailed.csv, labels.txt"):
        msp_podcast.read(tree)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Labels/labels_consensus.csv", ",7,Female,Dev", ",8,Female,Dev", "speaker 7 of .*_0003, but 8 elsewhere"),
        ("Labels/labels_consensus.csv", "Development", "Test1", "partition validation of .*, but test1 elsewhere"),
        ("Labels/labels_consensus.csv", "Development", "Dev", 'line 4: "Dev" is no partition'),
        ("Labels/labels_consensus.csv", "MSP-PODCAST_0002", "MSP_PODCAST_0002", 'line 4: "MSP_.*" is no file name'),
        ("Labels/labels_consensus.csv", ",7,Female", ",7", "line 4 has 7 cells, the header has 8"),
        ("Labels/labels_consensus.csv", "FileName", "File", 'line 1: the column "FileName" must stand there once'),
        ("Speaker_ids.txt", "Speaker_7; Female", "Speaker_7, Female", r"Speaker_ids.txt, line \d is neither"),
        ("Partitions.txt", "Train; MSP", "Train, MSP", r"Partitions.txt, line 1 is not partition; file"),
        ("Labels/labels_detailed.csv", "Angry,Angry", "Angri,Angry", r'line 12: "Angri" is no primary .* mean "Angry"'),
        ("Labels/labels_detailed.csv", "WorkerID", "Who", "line 1: the columns are neither"),
        ("Labels/labels_detailed.csv", "WORKER0000003", "WORKER0000002", "line 4: a second answer of WORKER0000002"),
        ("Labels/labels_detailed.csv", "WORKER0000003", "", 'line 4: "" is no rater'),
        ("Labels/labels_detailed.csv", '"Other-A', "Other-A", "line 5 has"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tree, file, old, new, message):
    path = tree / file
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(UserError, match=message):
        msp_podcast.read(tree)
    if "header" in message or "line 1: the" in message:
        return
    corpus = msp_podcast.read(tree, lenient=True)
    assert len(corpus.dropped[UNREADABLE]) == 1
    for id, votes in votes_of(corpus).items():
        assert set(votes) <= set(msp_tree.VOTES[id])


def unknown(tree, turn, speaker, word="Unknown"):
    """Make the speaker of a turn unknown in both tables."""
    for name in ("Labels/labels_consensus.csv", "Speaker_ids.txt"):
        text, times = re.subn(rf"({turn}.wav[,;].*?)\b{speaker}\b", rf"\g<1>{word}", (tree / name).read_text())
        assert times == 1
        (tree / name).write_text(text)


def test_an_unknown_speaker_outside_training_is_left_out_and_counted(tree, tmp_path, capsys):
    unknown(tree, "0003_0002_0001", 12)
    dataset = prepare(tree, tmp_path / "out")
    assert dataset.splits["test"] == ["MSP-PODCAST_0003_0001"]
    assert dataset.splits["train"] == ["MSP-PODCAST_0001_0008", "MSP-PODCAST_0001_0009"]  # there it may be unknown
    reason = (
        "speaker unknown outside training, may be anybody of the training split: 1 (the first MSP-PODCAST_0003_0002"
    )
    assert reason in capsys.readouterr().out
    random = prepare(tree, tmp_path / "random", "--split", "random")  # which shares speakers anyway
    assert "MSP-PODCAST_0003_0002_0001" in random.utterances


@pytest.mark.parametrize("word", ["nan", "NaN", "N/A", "unknown"])
def test_a_speaker_that_is_not_available_is_unknown(tree, word):
    unknown(tree, "0001_0008", 30, word)
    assert msp_podcast.read(tree).clips[0].speaker == UNKNOWN_SPEAKER


def test_nested_audio_in_any_ending(tree, tmp_path):
    """Unpacked into Audios/Audio, in folders, with .WAV; a copy beside is counted."""
    folder = tree / "Audios" / "Audio" / "part 1"
    folder.mkdir(parents=True)
    for path in (tree / "Audios").glob("*.wav"):
        path.rename(folder / (path.stem + ".WAV"))
    (tree / "Transcripts").rename(tree / "elsewhere")
    (tree / "Transcripts").mkdir()
    (tree / "elsewhere").rename(tree / "Transcripts" / "transcripts")
    copy = tree / "Audios" / "msp-podcast_0001_0008.wav"
    copy.write_bytes((folder / "MSP-PODCAST_0001_0008.WAV").read_bytes())
    (tree / "Audios" / "._MSP-PODCAST_0001_0008.wav").write_bytes(b"left behind by macOS")
    (folder / "loop").symlink_to(tree / "Audios")
    corpus = msp_podcast.read(tree)
    assert all(clip.audio.is_file() for clip in corpus.clips)
    assert sum(clip.transcript != "" for clip in corpus.clips) == len(corpus.clips) - 1
    assert len(corpus.dropped["second file of one name, not read"]) == 1
    assert set(prepare(tree, tmp_path / "out").utterances) == set(
        prepare(msp_tree.write(tmp_path / "MSP2"), tmp_path / "two").utterances
    )


def move(tree, old, new):
    for name in ("Labels/labels_consensus.csv", "Partitions.txt"):
        (tree / name).write_text((tree / name).read_text().replace(old, new))


def test_a_release_whose_only_test_is_test2(tree, tmp_path):
    move(tree, "Test1", "Test2")
    dataset = prepare(tree, tmp_path / "out")
    assert len(dataset.splits["test"]) == 3
    assert "the test being test2" in re.sub(" +", " ", (dataset.path / "report.md").read_text())


def test_a_release_without_a_test_split(tree, tmp_path, capsys):
    for test in ("Test1", "Test2"):
        move(tree, test, "Train")
    args = ["prepare", "--corpus", "msp-podcast", "--root", tree, "--out", tmp_path / "out"]
    assert cli.main([str(a) for a in args]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the corpus' own split leaves no usable clip for test (5 train, 1 validation, 0 test)" in said
    assert "draw all three parts with --split speakers" in said
    assert cli.main([str(a) for a in [*args, "--split", "speakers"]]) == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_blank_answer_is_no_vote(tmp_path, contents, form):
    for word in (b"", b"nan", b"N/A"):
        content = contents[form]
        old = {"text": b"Surprise; ;", "detail": b"Surprise; ;", "columns": b"Surprise,,", "json": b'"Surprise"'}[form]
        new = {"text": word + b";", "detail": word + b";", "columns": word + b",,", "json": b'"' + word + b'"'}[form]
        assert old in content
        votes, corpus = read_bytes(tmp_path, form, content.replace(old, new, 1))
        assert votes["MSP-PODCAST_0002_0003"] == [("WORKER0000001", "angry")]
        assert corpus.dropped == {"rater's answer is blank": ["MSP-PODCAST_0002_0003 WORKER0000002"]}


def test_spellings_of_one_speaker(tree):
    path = tree / "Speaker_ids.txt"
    path.write_text(path.read_text().replace("0008.wav; 30", "0008.wav; Speaker_0030;"))
    table = tree / "Labels" / "labels_consensus.csv"
    table.write_text(table.read_text().replace(",30,", ",30.0,"))
    assert msp_podcast.read(tree).clips[0].speaker == "30"


def test_a_turn_has_one_head(tmp_path):
    text = msp_tree.text()
    (tmp_path / "labels.txt").write_text(text.replace("MSP-PODCAST_0001_0009", "MSP-PODCAST_0001_0008"))
    with pytest.raises(UserError, match="line 8: a second head of MSP-PODCAST_0001_0008"):
        read_votes(tmp_path / "labels.txt", Corpus("msp-podcast", (), (), []), msp_podcast.LABELS)
    corpus = Corpus("msp-podcast", (), (), [], lenient=True)
    votes = read_votes(tmp_path / "labels.txt", corpus, msp_podcast.LABELS)
    assert len(votes["MSP-PODCAST_0001_0008"]) == 5 and len(corpus.dropped[UNREADABLE]) == 6


def read_bytes(folder, form, content, lenient=False):
    path = folder / FORMS[form]
    path.write_bytes(content)
    corpus = Corpus("msp-podcast", (), (), [], lenient=lenient)
    votes = read_votes(path, corpus, msp_podcast.LABELS)
    return {id: [(vote.rater, vote.label) for vote in given] for id, given in votes.items()}, corpus


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    found = {}
    for form, name in FORMS.items():
        folder = tmp_path_factory.mktemp(form)
        msp_tree.write_votes(folder, form)
        found[form] = (folder / name).read_bytes()
    return found


KEEP = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("form", FORMS)
def test_the_four_grammars_say_the_same(tmp_path, contents, form):
    assert read_bytes(tmp_path, form, contents[form])[0] == msp_tree.VOTES
    assert (
        read_bytes(tmp_path, form, contents[form].replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"))[0] == msp_tree.VOTES
    )


@pytest.mark.parametrize("form", FORMS)
@KEEP
@given(content=st.binary(max_size=300), lenient=st.booleans())
def test_random_bytes_give_no_traceback(tmp_path, contents, form, content, lenient):
    for data in (content, contents[form][:150] + content, content + contents[form][-150:]):
        try:
            read_bytes(tmp_path, form, data, lenient)
        except UserError as error:
            assert FORMS[form] in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["MSP-PODCAST_0001_0001.wav", "W1", "EmoClass_Major"]) | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@KEEP
@given(JSON, st.booleans())
def test_random_json_gives_no_traceback(tmp_path, value, lenient):
    try:
        votes, _ = read_bytes(tmp_path, "json", json.dumps(value).encode(), lenient)
    except UserError:
        return
    for id, given_votes in votes.items():
        assert re.fullmatch(r"MSP-PODCAST(_\d+)+", id) and len({rater for rater, _ in given_votes}) == len(given_votes)


@KEEP
@given(
    rows=st.lists(st.lists(st.text(max_size=8) | st.sampled_from(["Neutral", "MSP-PODCAST_0001_0001.wav"]), max_size=4))
)
def test_random_cells_give_no_traceback(tmp_path, rows):
    lines = ["FileName,WorkerID,EmoClass_Major", *(",".join(row) for row in rows)]
    try:
        read_bytes(tmp_path, "columns", "\n".join(lines).encode("utf-8", "surrogatepass"))
    except UserError:
        return


def in_a_name(content, at):
    """Whether the byte is part of a name that can be another valid one: a worker's, or a turn's numbers."""
    names = re.finditer(rb"MSP-PODCAST[0-9_]+\.wav|WORKER[0-9]+", content)
    return any(name.start() - 1 <= at <= name.end() for name in names)


@pytest.mark.parametrize("form", FORMS)
@KEEP
@given(data=st.data())
def test_one_changed_byte_gives_the_votes_or_an_error(tmp_path, contents, form, data):
    """A byte is replaced, put in or taken out; only a changed name may pass, and what was said must still be right."""
    content = contents[form]
    at = data.draw(st.integers(0, len(content) - 1))
    byte = bytes([data.draw(st.sampled_from([*string.printable.encode(), 0, 0x85, 0xE9]))])
    change = data.draw(st.sampled_from(["replace", "insert", "delete"]))
    middle = {"replace": byte, "insert": byte + content[at : at + 1], "delete": b""}[change]
    check_changed(tmp_path, form, content, at, content[:at] + middle + content[at + 1 :])


def check_changed(folder, form, content, at, changed):
    try:
        votes, _ = read_bytes(folder, form, changed)
    except UserError:
        return
    if in_a_name(content, at):
        said = sorted(label for given_votes in votes.values() for _, label in given_votes)
        assert said == sorted(label for given_votes in msp_tree.VOTES.values() for _, label in given_votes)
    else:
        assert votes == msp_tree.VOTES


@pytest.mark.parametrize("form", FORMS)
@KEEP
@given(data=st.data())
def test_a_truncated_file_gives_no_wrong_vote(tmp_path, contents, form, data):
    end = data.draw(st.integers(0, len(contents[form])))
    try:
        votes, _ = read_bytes(tmp_path, form, contents[form][:end])
    except UserError:
        return
    for id, given_votes in votes.items():
        assert given_votes == msp_tree.VOTES[id][: len(given_votes)]


def test_of_two_speakers_of_a_turn_neither_is_believed(tree):
    """Lenient reading kept the first: a speaker under a wrong name may be in two parts of a split."""
    path = tree / "Labels" / "labels_consensus.csv"
    path.write_text(path.read_text().replace(",30,", ",3,"))
    with pytest.raises(UserError, match="speaker 30 of MSP-PODCAST_0001_0008, but 3 elsewhere"):
        msp_podcast.read(tree)
    speakers = {clip.id: clip.speaker for clip in msp_podcast.read(tree, lenient=True).clips}
    assert speakers == msp_tree.SPEAKER | {"MSP-PODCAST_0001_0008": UNKNOWN_SPEAKER}


@pytest.fixture(scope="module")
def module_tree(tmp_path_factory):
    return msp_tree.write(tmp_path_factory.mktemp("msp") / "MSP")


TABLES = ["Labels/labels_consensus.csv", "Speaker_ids.txt", "Partitions.txt"]


@pytest.mark.parametrize("table", TABLES)
@KEEP
@given(data=st.data(), lenient=st.booleans())
def test_damaged_tables_give_no_traceback_and_never_touch_a_vote(module_tree, table, data, lenient):
    path = module_tree / table
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    junk = data.draw(st.binary(max_size=4))
    try:
        path.write_bytes(data.draw(st.sampled_from([junk, content[:at], content[:at] + junk + content[at + 1 :]])))
        corpus = msp_podcast.read(module_tree, lenient=lenient)
    except UserError:
        return
    finally:
        path.write_bytes(content)
    for id, votes in votes_of(corpus).items():
        assert votes == msp_tree.VOTES[id]
    # The other two tables hold the truth: what is said of a turn is right, or has become unknown.
    for clip in corpus.clips:
        assert clip.speaker in (msp_tree.SPEAKER[clip.id], UNKNOWN_SPEAKER) or clip.id == "MSP-PODCAST_0001_0009"


def test_a_file_where_a_folder_should_be(tree):
    (tree / "Transcripts").rename(tree / "elsewhere")
    (tree / "Transcripts").write_text("")
    with pytest.raises(UserError, match=r"cannot read the folder .*Transcripts"):
        msp_podcast.read(tree)


def prepare(tree, out, *flags):
    args = ["prepare", "--corpus", "msp-podcast", "--root", tree, "--out", out, *flags]
    assert cli.main([str(a) for a in args]) == 0
    return open_dataset(out, verify=True)


def test_prepare_with_the_official_partitions(tree, tmp_path, capsys):
    """Four classes: 0002_0003 keeps its vote for angry, surprise is renormalised away."""
    dataset = prepare(tree, tmp_path / "out")
    assert "msp-podcast is licensed" in capsys.readouterr().err and dataset.licensed
    assert dataset.splits == {
        "train": ["MSP-PODCAST_0001_0008", "MSP-PODCAST_0001_0009"],
        "validation": ["MSP-PODCAST_0002_0003"],
        "test": ["MSP-PODCAST_0003_0001", "MSP-PODCAST_0003_0002_0001"],
    }
    assert dataset.utterances["MSP-PODCAST_0001_0009"].speaker == UNKNOWN_SPEAKER
    report = re.sub(" +", " ", (dataset.path / "report.md").read_text())
    assert "as the corpus says, the test being test1; no speaker is in two of them" in report
    assert "| official partition test2, not used | 1 | MSP-PODCAST_0004_0001 |" in report
    assert "| turn without votes in test3 | 1 | MSP-PODCAST_0005_0001 |" in report
    assert "| votes | primary emotion, from labels_detailed.csv |" in report
    assert "café" not in report + (dataset.path / "report" / "dropped.jsonl").read_text()
    both = prepare(tree, tmp_path / "both", "--split", "official:test1+test2")
    assert len(both.splits["test"]) == 3


def test_prepare_with_speakers_drawn(tree, tmp_path):
    dataset = prepare(tree, tmp_path / "out", "--split", "speakers", "--classes", "angry,happy,neutral,sad,other")
    assert "MSP-PODCAST_0001_0009" not in dataset.utterances
    assert "speaker unknown, may be anybody of any split" in re.sub(" +", " ", (dataset.path / "report.md").read_text())
    assert {u.speaker for u in dataset.utterances.values()} == {"30", "7", "12"}
