import pytest

from aer_jax.corpora.tables.columns import find_columns, looks_like_time_or_channel, normalise, parse_map
from aer_jax.errors import UserError

BASE = ("id", "audio", "speaker", "votes")


def find(*columns, map=None):
    return find_columns(columns, parse_map(map), "m.csv, line 1")


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (BASE, {"id": "id", "audio": "audio", "speaker": "speaker", "votes": "votes"}),
        *((header, dict(zip(BASE, header, strict=True))) for header in (
            ("ID", "File Name", "Speaker_ID", "Label"),
            ("utt-id", "WAV", "SpkrID", "Emotion"),
            ("uttId", "filePath", "spk", "labels"),
        )),
        # A field's own name goes before the others.
        ((*BASE, "path", "emotion"), dict(zip(BASE, BASE, strict=True))),
        ((*BASE[1:], "utterance_id", "Text", "Partition"),
         {"id": "utterance_id", "audio": "audio", "speaker": "speaker", "votes": "votes", "transcript": "Text",
          "split": "Partition"}),
        ((*BASE[:3], "annotator", "label"),
         {"id": "id", "audio": "audio", "speaker": "speaker", "rater": "annotator", "votes": "label"}),
    ],
)  # fmt: skip
def test_names(header, fields):
    assert find(*header).one == fields


@pytest.mark.parametrize(
    ("times", "start", "end", "duration", "milliseconds"),
    [
        (("start", "end"), "start", "end", None, ()),
        (("Start (s)", "End (s)"), "Start (s)", "End (s)", None, ()),
        (("StartTime", "EndTime"), "StartTime", "EndTime", None, ()),
        (("start_ms", "end_ms"), "start_ms", "end_ms", None, ("end", "start")),
        (("Start [ms]", "duration_s"), "Start [ms]", None, "duration_s", ("start",)),
        (("onset", "offset"), "onset", "offset", None, ()),
        (("onset", "duration"), "onset", None, "duration", ()),
        (("offset", "duration"), "offset", None, "duration", ()),
        (("start", "end", "duration"), "start", "end", None, ()),
        (("start", "end", "offset"), "start", "end", None, ()),
        (("utt_start_time_ms", "segmentEnd"), "utt_start_time_ms", "segmentEnd", None, ("start",)),
        (("t_onset", "t_offset"), "t_onset", "t_offset", None, ()),
        (("xmin", "xmax"), "xmin", "xmax", None, ()),
        (("begin",), "begin", None, None, ()),
        (("duration",), None, None, None, ()),  # of the whole recording
    ],
)
def test_times(times, start, end, duration, milliseconds):
    found = find(*BASE, *times)
    assert tuple(found.one.get(name) for name in ("start", "end", "duration")) == (start, end, duration)
    assert tuple(sorted(found.milliseconds)) == milliseconds
    unread = {*times} - found.used
    assert all(looks_like_time_or_channel(column) for column in unread)


def test_a_mapping():
    found = find("Name", "spk", "A", "B", "a b", map="id=name, audio=Name,speaker=spk,counts=A+B")
    assert found.one == {"id": "Name", "audio": "Name", "speaker": "spk"} and found.many == {"counts": ("A", "B")}
    assert find(*BASE, "emotion", map="votes=emotion").one["votes"] == "emotion"
    assert find(*BASE, "from", "to", map="start=from,end=to").one["end"] == "to"
    assert "start" not in find(*BASE, "start", "end", map="start=").one
    assert "end" not in find(*BASE, "start", "end", map="start=").one
    assert find(*BASE[:3], "R1", "R2", map="raters=R1+R2").many == {"raters": ("R1", "R2")}
    assert find(*BASE[:3], "rater1", "Rater 2", "rater_3").many == {"raters": ("rater1", "Rater 2", "rater_3")}


@pytest.mark.parametrize(
    ("header", "map", "message"),
    [
        (("id", "file", "path", "speaker", "votes"), None, '"file" and "path" could both be audio.*--map audio='),
        (("Audio", "audio", "speaker", "votes"), None, '"Audio" and "audio" could both be audio'),
        ((*BASE[:3], "label", "emotion"), None, '"label" and "emotion" could both be votes'),
        ((*BASE, "rater1", "rater2"), None, r'could be "votes" or rater1\+rater2; say which'),
        ((*BASE, "start", "onset"), None, None),
        ((*BASE, "begin", "onset"), None, '"begin" and "onset" could both be start'),
        ((*BASE, "start", "start_ms"), None, '"start" and "start_ms" could both be start'),
        ((*BASE, "offset"), None, '"offset" could be the start or the end'),
        ((*BASE, "start", "offset"), None, '"offset" could be the start or the end'),
        ((*BASE, "end", "offset"), None, '"offset" could be the start or the end'),
        (BASE[:3], None, 'a column "votes" or "distribution" is missing'),
        (("a", "speaker", "Angry", "Sad"), "audio=a", r"--map counts=Angry\+Sad"),
        (("id", "speaker", "votes"), None, 'the column "audio" is missing'),
        (BASE, "audio=adio", r'no column "adio", which --map names as audio\. Did you mean "audio"'),
        (BASE, "adio=audio", r'unknown field "adio"\. Did you mean "audio"'),
        (BASE, "audio", '"audio" is not field=column'),
        (BASE, "audio=a,audio=b", 'names the field "audio" twice'),
        (BASE, "counts=votes", "counts needs two or more columns"),
        (BASE, "raters=votes+votes", "raters needs two or more columns, each named once"),
        ((*BASE, "A", "B"), "votes=votes,counts=A+B", "gives votes in several ways"),
        (BASE, "duration=id", "goes with a start"),
    ],
)
def test_what_is_refused(header, map, message):
    if message is None:
        assert find(*header, map=map).one["start"] == "start"
        return
    with pytest.raises(UserError, match=message):
        find(*header, map=map)


def test_what_looks_like_a_time_or_a_channel():
    for column in ("channel", "Ch", "num_frames", "timestamp", "segment_length", "t_start", "Start Frame"):
        assert looks_like_time_or_channel(column), column
    for column in ("gender", "attempt", "sentiment", "chapter", "weekend"):
        assert not looks_like_time_or_channel(column), column


def test_normalise():
    assert {normalise(name) for name in ("File Name", "fileName", "file-name", " FILE_NAME ", "file.name")} == {
        "file_name"
    }
