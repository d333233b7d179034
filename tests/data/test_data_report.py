import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.preparation.data_figures import bars, columns, histogram, nice_step
from aer_jax.data.preparation.prepare import prepare
from aer_jax.labels.votes import Vote

SVG = "{http://www.w3.org/2000/svg}"


def heights(svg, style="a"):
    """Of the bars with this style; the file must be well-formed XML."""
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(r.get("height")) for r in rects if r.get("class") == style and float(r.get("height")) != 10]


def test_histogram_heights_are_the_counts():
    values = np.array([0, 0, 0, 0, 1, 1, 3])
    tall = heights(histogram("t", values, "x", np.arange(-0.5, 4)))
    assert np.array(tall) / tall[0] * 4 == pytest.approx([4, 2, 0, 1], abs=0.01)


def test_bars_have_lengths_and_columns_are_sorted():
    svg = bars("a < b & c", [("<angry>", 3, "3", "a"), ("sad\x00", 1, "1", "off"), ("x" * 40, 0, "0", "a")])
    widths = [float(r.get("width")) for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")]
    assert widths[0] / widths[1] == pytest.approx(3, abs=0.02) and widths[2] == 0
    tall = heights(columns("t", [(1, "a"), (4, "a"), (2, "b")], "speakers", [("a", "train"), ("b", "test")]))
    assert len(tall) == 2 and tall[0] / tall[1] == pytest.approx(4, abs=0.01)


def test_a_long_tail_stands_on_a_logarithmic_scale():
    tall = heights(columns("t", [(1, "a")] * 200 + [(1000, "a")], "speakers", []))
    assert tall[1] / tall[0] == pytest.approx(np.log(2) / np.log(2000), rel=0.01)


@pytest.mark.parametrize(
    ("span", "most", "step"), [(10, 8, 2), (1, 8, 0.2), (9.2, 4, 5), (400, 4, 100), (0.3, 8, 0.05)]
)
def test_round_steps(span, most, step):
    assert nice_step(span, most) == pytest.approx(step)


@pytest.fixture
def report(tmp_path):
    rng = np.random.default_rng(0)

    def clip(i, votes, speaker):
        id = f"utt{i}"
        heard = tuple(Vote(id, label, f"r{rater}", weight) for rater, label, weight in votes)
        noise = Waveform(rng.normal(0, 0.1, 8000 * (i % 3 + 1)).astype(np.float32), 8000)
        return Clip(id, speaker, noise, heard, f"secret words of {i}")

    clips = [clip(i, [(0, "a", 1), (1, "b" if i % 2 else "a", 1)], f"s{i % 4}") for i in range(8)]
    # Two raters, four votes: one of them named three labels.
    clips.append(clip(8, [(0, "a", 1), (1, "a", 1 / 3), (1, "b", 1 / 3), (1, "c", 1 / 3)], "s0"))
    corpus = Corpus("small", ("a", "b", "c"), ("a", "b"), clips, licensed=True)
    corpus.drop("a | reason\nof two lines", "utt|99")
    folder = prepare(corpus, tmp_path / "out").path
    return folder, re.sub(" +", " ", (folder / "report.md").read_text())


def test_the_report_counts(report):
    _, text = report
    for line in (
        "9 clips found, **9 kept**, 4 speakers, 20 votes",
        "**Licensed**: the audio, the words and the votes must not be passed on.",
        "| raters per clip | 2.0 | 2.0 | 2.0 | 2.0 | 2.0 | 2.0 |",
        "| clips per speaker | 2.2 | 2.0 | 2.0 | 2.0 | 2.2 | 3.0 |",
        "not counted: c 0.333333.",
        "| a \\| reason of two lines | 1 | utt\\|99 |",
        "All of them are in `report/dropped.jsonl`.",
    ):
        assert line in text, line


def test_each_split_has_its_mean_distribution(report):
    folder, text = report
    splits = json.loads((folder / "splits.json").read_text())
    p_of = {f"utt{i}": (1, 0) if i % 2 == 0 else (0.5, 0.5) for i in range(8)} | {"utt8": (0.8, 0.2)}
    for part in ("train", "validation", "test"):
        mean = np.mean([p_of[id] for id in splits[part]], axis=0)
        row = next(line for line in text.splitlines() if line.startswith(f"| {part} |"))
        assert f"| {mean[0]:.1%} | {mean[1]:.1%} |" in row


def test_every_figure_is_there_and_none_tells_words(report):
    folder, text = report
    named = re.findall(r"!\[[^]]+\]\((report/[a-z]+\.svg)\)", text)
    assert len(named) == 5 == len(list((folder / "report").glob("*.svg")))
    for name in named:
        ElementTree.parse(folder / name)
    for path in [folder / "report.md", *(folder / "report").iterdir()]:
        assert "secret" not in path.read_text()
    dropped = [json.loads(line) for line in (folder / "report" / "dropped.jsonl").read_text().splitlines()]
    assert dropped == [{"reason": "a | reason\nof two lines", "what": "utt|99"}]


def test_nothing_in_it_is_markup(tmp_path):
    """Names are data: no HTML, no cell, code, image or link begins in them."""
    nasty = "<script>alert(1)</script> `x` | ![i](http://h/p) *b* &amp; \\"
    noise = np.random.default_rng(0)
    clips = [
        Clip(f"{nasty}{i}", f"{nasty}{i % 3}", Waveform(noise.normal(0, 0.1, 4000).astype(np.float32) * 20, 8000),
             (Vote(f"{nasty}{i}", f"a{nasty}"), Vote(f"{nasty}{i}", "b"), Vote(f"{nasty}{i}", f"c{nasty}")))
        for i in range(6)
    ]  # fmt: skip
    corpus = Corpus("small", ("b", f"a{nasty}", f"c{nasty}"), ("b", f"a{nasty}"), clips, notes=[nasty])
    corpus.choices = {"choice": nasty}
    corpus.drop(nasty, nasty)
    folder = prepare(corpus, tmp_path / "out").path
    text = re.sub(" +", " ", (folder / "report.md").read_text())
    plain = re.sub(r"\\\\|\\[|`*\[\]]", "", text)  # what is escaped is only text
    assert "alert" in text and "<" not in plain and "&amp;amp;" in plain
    assert set(re.findall(r"`[^`]*`", plain)) <= {"`votes.jsonl`", "`report/dropped.jsonl`"}
    assert set(re.findall(r"!\[[^\]]*\]\(([^)]*)\)", plain)) == {
        f"report/{path.name}" for path in folder.glob("report/*.svg")
    }
    for table in re.findall(r"(?:^\|.*\n)+", plain, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    for name in folder.glob("report/*.svg"):
        ElementTree.parse(name)


def test_shares_tell_no_number_of_raters(tmp_path):
    def clip(id, votes):
        noise = Waveform(np.random.default_rng(ord(id)).normal(0, 0.1, 8000).astype(np.float32), 8000)
        return Clip(id, id, noise, tuple(Vote(id, label, rater, weight) for label, rater, weight in votes))

    shares = [clip("x", [("a", None, 0.7), ("b", None, 0.3)]), clip("y", [("a", None, 1.0)])]
    shares += [clip(name, [("a", None, 0.5), ("b", None, 0.5)]) for name in "uvw"]
    counts = clip("z", [("a", None, 1.0)] * 3)
    for name, clips, row in [
        ("shares", shares, "| raters per clip | unknown | unknown |"),
        ("both", [*shares, counts], "| raters per clip | 3.0 | 3.0 |"),
    ]:
        corpus = Corpus("small", ("a", "b"), ("a", "b"), clips)
        assert row in re.sub(" +", " ", (prepare(corpus, tmp_path / name).path / "report.md").read_text())
