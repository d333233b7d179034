"""Tables of odd cells: each is read right or refused in one sentence that names the file."""

import csv
import io
import json
import math

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.manifest import reader as manifest
from aer_jax.errors import UserError

CELLS = """
nan|N/A|#N/A|-|?|0|1|-1|0.5|0,5|1e400|inf|3|happy|Happy|happy;sad|happy,sad|happy/sad|['happy', 'sad']|['happy' 'sad']
{'happy': 2}|{"happy": 0.5, "sad": 0.5}|[[]]|[|{|(|"|'|happy:2;sad:1|happy:0.5;sad:0.5|happy:0,5;sad:0,5|happy:nan|:|;|,
a.wav|~nobody/a.wav|file:///a.wav|http://a/b.wav|C:\\a.wav|\u2028|\u200b|\ud800|00:00:01.5|0 days 00:00:01|2021-01-01
train|dev|eval|&a [*a]|!!python/object:os.system|=1+1|None|null|true|\u00e9|e\u0301|99999999999999999999|1.5 s|10 ms
"""
CELLS = [cell for line in CELLS.split("\n") for cell in line.split("|")]
VALUES = [None, True, 0, 3, -1, 1.5, math.nan, math.inf, 10**400, [], {}, ["happy", None], [["happy"]], {"happy": 2}]
VALUES += [
    {"happy": 0.5, "sad": 0.5},
    {"happy": math.nan},
    [{"rater": "r", "label": "sad"}],
    [{"label": 3}],
    {"path": "a.wav"},
]
NAMES = (
    "id audio speaker votes distribution transcript split start end duration offset onset rater rater1 rater2 channel"
)
NAMES = [*NAMES.split(), "File Name", "Label", "start_ms", "Happy", "Sad", "", " "]
MAPS = [
    None,
    "counts=Happy+Sad",
    "shares=Happy+Sad",
    "raters=Happy+Sad",
    "start=",
    "votes=Label",
    "audio=id",
    "x",
    "audio=",
    ",",
]
KEEP = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@st.composite
def tables(draw):
    """(name, bytes) of a manifest in which some cells are as they should be."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    names += [name for name in ("id", "audio", "speaker", "votes") if name not in names and draw(st.integers(0, 9))]
    good = {"audio": "a.wav", "speaker": "s", "votes": "happy;sad"}
    json_form = draw(st.booleans())
    pool = st.sampled_from(CELLS + VALUES if json_form else CELLS)
    rows = []
    for number in range(draw(st.integers(1, 3))):
        row = {name: good.get(name, str(number)) for name in names}
        for name in draw(st.lists(st.sampled_from(names), max_size=3)) if names else ():
            row[name] = draw(pool)
        rows.append(row)
    if json_form:
        suffix = draw(st.sampled_from(["json", "jsonl"]))
        lines = [json.dumps(row) for row in rows]
        return f"m.{suffix}", ("[" + ",".join(lines) + "]" if suffix == "json" else "\n".join(lines)).encode()
    text = io.StringIO()
    writer = csv.writer(text, delimiter=draw(st.sampled_from(",;\t|")))
    writer.writerows([names, *([row[name] for name in names] for row in rows)])
    return "m.csv", text.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])), "replace")


@KEEP
@given(table=tables(), map=st.sampled_from(MAPS), synonyms=st.booleans(), lenient=st.booleans())
@example(
    table=("m.json", b'[{"id": "a", "audio": "a.wav", "speaker": "s", "votes": 1e999}]'),
    map=None,
    synonyms=False,
    lenient=False,
)
def test_odd_tables(tmp_path, table, map, synonyms, lenient):
    path = tmp_path / table[0]
    path.write_bytes(table[1])
    labels = tmp_path / "synonyms.csv"
    labels.write_text("Joy,happy\n3,sad\n")
    try:
        corpus = manifest.read(path, lenient, map, labels if synonyms else None)
    except UserError as error:
        assert str(path) in str(error) or "--map" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 1500
        return
    assert corpus.clips and len({clip.id for clip in corpus.clips}) == len(corpus.clips)
    for label in corpus.labels:
        assert label and not is_missing(label) and not set(label) & set(',;|/[]{}"#\t\n\u2028'), label
    for clip in corpus.clips:
        assert (
            clip.id
            and clip.speaker
            and not is_missing(clip.speaker)
            and clip.split in (None, "train", "validation", "test")
        )
        assert all(0 < vote.weight <= 1 and vote.utterance == clip.id for vote in clip.votes)
        start, end = clip.start or 0.0, math.inf if clip.end is None else clip.end
        assert 0 <= start < end and start < math.inf
    json.dumps([clip.transcript for clip in corpus.clips], ensure_ascii=False).encode()
