import base64
import datetime
import hashlib
import html.parser
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_runs import TRANSCRIPT, small_dataset, small_run

from aer_jax import reports
from aer_jax.errors import UserError
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.reports.pages.report import write_report

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Counts elements, checks that they nest, and keeps the text of each table and all attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.tables, self.scripts = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append("")
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open:
            self.tables[-1] += data
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data


def clips_of(text):
    """The explorer's data, as the page's script reads it."""
    (about, data), _ = Page(text).scripts
    assert about == {"type": "application/json", "id": "clip-data"}
    return json.loads(data)


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    write_report(runs, out)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text()


def test_the_page_is_well_formed_and_asks_for_nothing(page):
    found = Page(page)
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert "http://" not in page and "https://" not in page and "@import" not in page
    outside = [value for name, value in found.attributes if name in ("src", "href") and not value.startswith("#")]
    assert outside == []
    assert not re.findall(r"url\((?!#)", page)


def test_the_one_script_is_ours_and_the_policy_allows_no_other(page):
    scripts = Page(page).scripts
    ours = (Path(reports.__file__).parent / "pages" / "explorer.js").read_text()
    assert [about for about, _ in scripts] == [{"type": "application/json", "id": "clip-data"}, {}]
    assert scripts[1][1] == ours
    policy = re.search(r'Policy" content="([^"]*)"', page)[1]
    digest = base64.b64encode(hashlib.sha256(ours.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_ids_are_unique_and_every_reference_has_one(page):
    found = Page(page)
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = [value[1:] for name, value in found.attributes if name == "href"] + re.findall(r"url\(#([^)]*)\)", page)
    used += [value for name, value in found.attributes if name == "aria-describedby"]
    assert used and set(used) <= set(ids)


def test_every_table_of_results_has_baselines(page):
    results, ambiguity, _, listeners, predicted, data, settings = Page(page).tables
    for name in (baseline.label for baseline in BASELINES.values()):
        assert name in results and name in ambiguity
    assert "Listeners with themselves" in listeners and "Predicted by human" in predicted
    assert all(split in data for split in ("train", "validation", "test"))
    assert (
        "Epochs run / allowed" in settings
        and "6 / 20" in settings
        and "4 x toaster" in settings
        and "tiny-qwen2-audio" in settings
    )
    assert "somewhere" not in page  # names, not where somebody keeps them


def test_the_confusion_of_listeners_is_theirs(runs, page):
    lines = [json.loads(line) for line in (runs[0] / "evaluation/test/predictions.jsonl").read_text().splitlines()]
    names = list(lines[0]["reference"])
    q_nk, p_nk = (np.array([[line[key][k] for k in names] for line in lines]) for key in ("reference", "probs"))
    for table, right_nk in zip(Page(page).tables[3:5], (q_nk, p_nk), strict=True):
        wanted_kk = q_nk.T @ right_nk / q_nk.sum(axis=0)[:, None]
        shown = [float(cell) for cell in re.findall(r"[01]\.\d\d", table)]
        np.testing.assert_allclose(np.reshape(shown, wanted_kk.shape), wanted_kk, atol=0.0051)
        np.testing.assert_allclose(wanted_kk.sum(axis=1), 1)


def test_provenance_is_shown_and_tells_no_folders(page):
    settings = Page(page).tables[-1]
    for words in (
        "2026-11-30T12:00:00", "0123456789ab+", "aer-jax train --config combined.yaml data.dataset=mine 'out=<b>run'",
        "small (sha256 fedcba987654…)", "tiny-qwen2-audio (sha256 0123", "1,234 / 5,678,901", "0.0001 / 0.03", "0.9.9",
    ):  # fmt: skip
        assert words in settings
    assert "/home" not in page
    today = datetime.datetime.now(datetime.UTC).date()
    assert f"made on {today}" in page or f"made on {today - datetime.timedelta(1)}" in page


def test_what_earlier_runs_did_not_record_is_said(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "run")
    (run / "environment.json").write_text("{}")
    file = run / "evaluation" / "test" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics.pop("inputs", None), metrics.pop("sha256", None)
    del metrics["accuracy_argmax"]
    metrics["ci"] = {**metrics["ci"], "resamples": 2000}
    del metrics["ci"]["method"]
    for row in metrics["baselines"].values():
        del row["js_difference"], row["accuracy_argmax"]
    file.write_text(json.dumps(metrics))
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert Page(text).tables[-1].count("not recorded") == 5
    assert "percentile bootstrap" in text and "evaluate the run again" in text


def test_clips_behind_each_point_of_the_calibration(runs, page):
    table = Page(page).tables[2]
    for run in runs:
        n_b = json.loads((run / "evaluation/test/metrics.json").read_text())["reliability"]["n"]
        assert sum(n_b) == 36
        for b, n in enumerate(n_b):
            assert not n or re.search(rf"{b / 10:.1f} to {(b + 1) / 10:.1f}[^.]*{n}", table)


def test_few_speakers_are_warned_of(page):
    assert "These numbers rest on 3 speakers." in page


def test_quantity_references_and_data_are_named(page):
    for words in (
        "Jensen-Shannon",
        "base 2",
        "lower is better",
        "human votes",
        "36 clips by 3",
        "95%",
        "t over speakers",
    ):
        assert words in page
    assert "16 clips" in page or "clips<br>" in page


def test_figures_follow_the_colours_of_the_page(page):
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 8  # divergence, ambiguity twice, distributions, calibration, three training curves
    for figure in figures:
        assert set(re.findall(r"#[0-9a-f]{6}\b", figure)) <= {"#000000", "#ffffff"}
        assert "var(--" in figure
    assert "prefers-color-scheme: dark" in page


def test_transcripts_are_escaped(page):
    assert TRANSCRIPT not in page and "<script>alert" not in page
    assert {clip["words"] for clip in clips_of(page)["clips"]} == {TRANSCRIPT}


def test_clips_are_those_of_the_evaluation(runs, page):
    data = clips_of(page)
    lines = [json.loads(line) for line in (runs[2] / "evaluation/test/predictions.jsonl").read_text().splitlines()]
    assert [clip["id"] for clip in data["clips"]] == [line["id"] for line in lines]
    for clip, line in zip(data["clips"], lines, strict=True):
        np.testing.assert_allclose(clip["predicted"][2], list(line["probs"].values()), atol=1e-4)
        np.testing.assert_allclose(clip["human"], list(line["reference"].values()), atol=1e-4)
        assert clip["votes"] == 6 and clip["heard"] == max(line["reference"], key=line["reference"].get)
        assert clip["audio"].startswith(("data:audio/mpeg;base64,", "data:audio/flac;base64,"))
    assert [arm["name"] for arm in data["arms"]] == ["human", "synthetic", "combined"]
    assert data["speakers"] == sorted({line["speaker"] for line in lines})


def test_the_audio_is_the_clip(dataset, page):
    clip = clips_of(page)["clips"][0]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["audio"].partition(",")[2])))
    original = dataset.audio(clip["id"])
    assert rate == 16_000 and abs(len(samples) - len(original)) <= 1152  # a frame of MP3
    assert 0.3 < np.std(samples) / np.std(original) < 1.5  # noise, of which MP3 keeps what is heard


def test_audio_is_bounded_and_what_is_missing_is_said(runs, tmp_path):
    write_report(runs[:1], tmp_path / "some.html", audio_mb=0.01)
    clips = clips_of((tmp_path / "some.html").read_text())["clips"]
    with_audio = [clip for clip in clips if "audio" in clip]
    assert 0 < sum(len(clip["audio"]) for clip in with_audio) <= 10_000
    left = f"{len(clips) - len(with_audio)} of {len(clips)} clips are without audio"
    assert left in (tmp_path / "some.html").read_text()
    assert max(clips, key=lambda clip: clip["ambiguity"]) in with_audio  # the most telling first
    write_report(runs[:1], tmp_path / "none.html", audio_mb=0)
    text = (tmp_path / "none.html").read_text()
    assert "The page was made without audio" in text and "data:audio" not in text
    with pytest.raises(UserError, match="--audio is -1"):
        write_report(runs[:1], tmp_path / "page.html", audio_mb=-1)


PROXIES = {
    "model": "somewhere/toy-listener",
    "classes": ["anger", "happiness", "neutral", "sadness"],
    "utterances": 36,
    "listeners": 5,
    "unparsed_share": 0.021,
    "js": 0.21,
    "ci": {"js": [0.18, 0.25]},
    "js_shuffled": 0.4,
    "p_shuffled": 0.001,
    "baselines": {"uniform": {"js": 0.37, "ci": {"js": None}}, "split_half": {"js": 0.19, "ci": {"js": [0.1, 0.2]}}},
    "by_class": {
        name: {"bias": bias, "ci": [bias - 0.1, bias + 0.1]}
        for name, bias in zip(("anger", "happiness", "neutral", "sadness"), (0.1, -0.2, 0.05, 0.05), strict=True)
    },
    "saturation": {
        "js": [0.4, 0.3, 0.26, 0.24, 0.23],
        "ci": [[0.3, 0.5]] * 5,
        "exponential": {"a": 0.22, "b": -0.3, "c": 0.6},
        "inverse": {"a": 0.19, "b": 0.2},
    },
    "exact": None,
}


def test_proxies(runs, tmp_path):
    (tmp_path / "proxies.json").write_text(json.dumps(PROXIES))
    write_report(runs, tmp_path / "page.html", proxies=tmp_path)
    text = (tmp_path / "page.html").read_text()
    table = Page(text).tables[5]
    assert (
        "Synthetic votes" in table and "0.210" in table and "0.180" in table and "Half the listeners vs half" in table
    )
    assert "5 synthetic listeners of toy-listener" in text and "2.1%" in text and "somewhere" not in text
    assert len(re.findall("<svg", text)) == 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "lacks everything"),
        (json.dumps({"model": "m"}), "lacks by_class"),
        (json.dumps(PROXIES | {"classes": ["a", "b"]}), "is about a, b"),
    ],
)
def test_proxies_that_cannot_be_shown(runs, tmp_path, content, words):
    if content is not None:
        (tmp_path / "proxies.json").write_text(content)
    with pytest.raises(UserError, match=words):
        write_report(runs, tmp_path / "page.html", proxies=tmp_path / "proxies.json")


def test_what_a_band_held(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "run")
    file = run / "evaluation" / "test" / "metrics.json"
    held = {"level": 0.9, "coverage": 0.874, "width": 0.41, "fitted_on": "36 validation clips of 3 speakers"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"band": held}))
    write_report([run], tmp_path / "page.html")
    assert "fitted on 36 validation clips of 3 speakers, hold\n87.4%" in (tmp_path / "page.html").read_text()


def test_names_of_runs_are_escaped_in_text_and_figures(runs, tmp_path):
    evil = shutil.copytree(runs[0], tmp_path / "<b onclick=x>&$x_1$")
    write_report([evil, runs[1]], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<b onclick" not in text
    assert "&lt;b onclick=x&gt;&amp;$x_1$" in text
    Page(text)


def test_licensed_transcripts_stay_away(tmp_path):
    data = small_dataset(tmp_path / "data", licensed=True)
    run = small_run(tmp_path / "run", data)
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "alert" not in text and "licence forbids" in text and "data:audio" not in text


def test_a_moved_dataset_is_said(tmp_path):
    data = small_dataset(tmp_path / "data")
    run = small_run(tmp_path / "run", data)
    shutil.rmtree(tmp_path / "data")
    (run / "metrics.jsonl").write_text('{"ste')
    (run / "environment.json").unlink()
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "the dataset that the run names cannot be opened" in text and "This run has no training log" in text
    assert "1 unreadable line(s) of its log left out" in text


def test_the_page_does_without_what_has_no_meaning(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "run")
    file = run / "evaluation" / "test" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["ci"] |= {"js": None, "reason": "there is one speaker"}
    metrics["r2"] = None
    half = metrics["baselines"]["split_half"]
    half |= {"js": None, "bc": None, "n": 0, "reason": "only shares of votes"}
    half["ci"]["js"] = None
    for name, part in metrics["by_ambiguity"].items():
        part["baselines"]["split_half"] |= {"js": None, "ci": {"js": None}}
        if name == "high":
            part |= {"n": 0, "js": None, "ci": {"js": None}}
    file.write_text(json.dumps(metrics))
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No intervals: there is one speaker." in text and "only shares of votes" in text
    assert "None" not in text and not re.search(r"\bnan\b", text)


def test_the_page_is_the_same_twice(runs, tmp_path, page):
    write_report(runs, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page


def test_an_output_that_cannot_be_written_is_said(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the page"):
        write_report(runs, tmp_path / "file" / "report.html")
