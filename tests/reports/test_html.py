import html.parser
import json
import re
import shutil

import pytest
from small_runs import TRANSCRIPT, small_dataset, small_run

from aer_jax.errors import UserError
from aer_jax.reports.html import write_report
from aer_jax.reports.table import BASELINES

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Counts elements, checks that they nest, and keeps the text of each table and all attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.tables = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open:
            self.tables[-1] += data


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    write_report(runs, out)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text()


def test_the_page_is_well_formed_and_asks_for_nothing(page):
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert "http" not in page and "@import" not in page
    outside = [value for name, value in found.attributes if name in ("src", "href") and not value.startswith("#")]
    assert outside == []
    assert not re.findall(r"url\((?!#)", page)


def test_ids_are_unique_and_every_reference_has_one(page):
    found = Page(page)
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = [value[1:] for name, value in found.attributes if name == "href"] + re.findall(r"url\(#([^)]*)\)", page)
    used += [value for name, value in found.attributes if name == "aria-describedby"]
    assert used and set(used) <= set(ids)


def test_every_table_of_results_has_baselines(page):
    results, ambiguity, settings, clips = Page(page).tables
    for name in BASELINES.values():
        assert name in results and name in ambiguity
    assert "training mean" in clips
    assert (
        "Epochs run / allowed" in settings
        and "6 / 20" in settings
        and "4 x toaster" in settings
        and "tiny-qwen2-audio" in settings
    )
    assert "somewhere" not in page  # names, not where somebody keeps them


def test_quantity_references_and_data_are_named(page):
    for words in ("Jensen-Shannon", "base 2", "lower is better", "human votes", "36 clips by 3", "95%", "bootstrap"):
        assert words in page
    assert "16 clips" in page or "clips<br>" in page


def test_figures_follow_the_colours_of_the_page(page):
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 7  # divergence, ambiguity, distributions, calibration, three training curves
    for figure in figures:
        assert set(re.findall(r"#[0-9a-f]{6}\b", figure)) <= {"#000000", "#ffffff"}
        assert "var(--" in figure
    assert "prefers-color-scheme: dark" in page


def test_transcripts_are_escaped(page):
    assert TRANSCRIPT not in page
    assert "&lt;script&gt;alert(&#34;it&#39;s&#34;)&lt;/script&gt; &amp; more" in page


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
    assert "alert" not in text and "licence forbids" in text


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
