"""The report in headless Chromium, with hostile names and words in it: it filters, plays, and asks for nothing."""

import importlib.util
import json
import shutil

import chromium
import numpy as np
import pytest
from small_runs import small_run

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.labels.journal import Attempt, Journal
from aer_jax.labels.votes import Vote
from aer_jax.reports.pages.report import write_report

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><b>&amp;'\u2028"
CLASSES = ("anger", "happiness<i>", "neutral", "sadness")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two arms, 30 test clips of 3 speakers, synthetic votes; speakers, words, ids and classes carry markup."""
    here = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    sound_t = rng.normal(0, 0.1, 8000).astype(np.float32)
    clips = []
    for s in range(9):
        for c in range(10):
            id = f"clip{s}-{c}<b>'\"" if c == 0 else f"clip{s}-{c}"
            heard = rng.choice(4, size=6, p=rng.dirichlet([0.4, 0.4, 0.8, 0.4]))
            votes = tuple(Vote(id, CLASSES[k], rater=f"r{r}") for r, k in enumerate(heard))
            split = ("train", "test", "validation")[s % 3]
            sound = Waveform(np.roll(sound_t, len(clips)), 16_000)
            clips.append(Clip(id, f"speaker{s} {HOSTILE}", sound, votes, HOSTILE, split))
    dataset = open_dataset(prepare(Corpus("<u>small", CLASSES, CLASSES, clips), here / "data").path)
    with Journal(here / "journal.jsonl", "m", "p") as journal:
        journal.append(
            Attempt(id, i, "", 1.0, 0, "p", "m", "", label=CLASSES[int(rng.integers(4))])
            for id in dataset.splits["test"]
            for i in range(3)
        )
    runs = [small_run(here / "a<b>", dataset, "human", 0.6, 1), small_run(here / "b", dataset, "combined", 0.4, 2)]
    config = runs[1] / "config.yaml"
    config.write_text(config.read_text().replace("somewhere/journal.jsonl", str(here / "journal.jsonl")))
    write_report(runs, here / "report.html")
    return here / "report.html"


@pytest.fixture(scope="module")
def browser():
    if chromium.binary() is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    if importlib.util.find_spec("websocket") is None:
        pytest.skip("no websocket-client (pip install websocket-client)")
    browser = chromium.Browser()
    yield browser
    browser.close()


def card(browser, i, query):
    return browser(
        f"document.querySelectorAll('#explorer-list > li')[{i}].querySelector({json.dumps(query)})?.textContent"
    )


def choose(browser, name, value):
    browser(
        f"(() => {{ const s = document.getElementById('explorer-form').elements[{json.dumps(name)}]; "
        f"s.value = {json.dumps(value)}; s.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )


def shown(browser):
    return browser("[...document.querySelectorAll('#explorer-list .id')].map(e => e.textContent)")


@pytest.mark.parametrize(("width", "dark"), [(1180, False), (390, True)])
def test_the_page_fits_and_is_quiet(page, browser, tmp_path, width, dark):
    browser.open(page, width, dark=dark)
    assert browser("document.documentElement.scrollWidth") == width
    assert browser.complaints() == [] and browser.requests() == []
    assert browser("document.title") == "Emotion as a distribution: <u>small"
    assert browser("document.querySelectorAll('main img, main u, main b').length") == 0
    paper = browser("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 24, 27)" if dark else "rgb(253, 252, 250)")
    browser.screenshot(tmp_path / "page.png", whole=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


CUT_OFF = """[...document.querySelectorAll('figure svg, .scroll')].flatMap(box => {
  const {left, right} = box.getBoundingClientRect();
  box.scrollLeft = 0;
  const parts = box.matches('svg') ? [...box.querySelectorAll('text')] : [...box.querySelectorAll('tr > :last-child')];
  if (box.scrollWidth > box.clientWidth) box.scrollLeft = box.scrollWidth;
  return parts.filter(part => {
    const own = part.getBoundingClientRect();
    return own.left < left - 1 || own.right > right + 1;
  }).map(part => part.textContent);
})"""


@pytest.mark.parametrize("width", [1280, 390])
def test_no_text_of_a_figure_and_no_last_column_is_cut_off(page, browser, width):
    """Tables that are wider than a phone scroll, and say so; on a desk the results fit."""
    browser.open(page, width)
    assert browser(CUT_OFF) == []
    wide = browser("[...document.querySelectorAll('.scroll.wide')].map(e => e.getAttribute('aria-label'))")
    assert ("Results" in wide) == (width == 390)
    hints = browser(
        "[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth > e.clientWidth + 1, "
        "getComputedStyle(e, '::before').content.includes('Scroll sideways')])"
    )
    assert all(wider == said for wider, said in hints)


def test_numbers_of_listeners_and_prediction_are_labelled(page, browser):
    browser.open(page)
    data = json.loads(browser("document.getElementById('clip-data').textContent"))
    first = next(clip for clip in data["clips"] if clip["id"] == shown(browser)[0])
    rows = browser(
        "[...document.querySelector('.card').querySelectorAll('.share')].map(row => "
        "[...row.querySelectorAll('.value')].map(e => e.textContent))"
    )
    assert rows[0] == ["listeners", "synthetic", "predicted"]
    sources = (first["human"], first["synthetic"], first["predicted"][data["leader"]])
    for k, values in enumerate(rows[1:]):
        np.testing.assert_allclose([float(value) for value in values], [p[k] for p in sources], atol=0.0051)


def test_sorting_and_filtering(page, browser):
    browser.open(page)
    data = json.loads(browser("document.getElementById('clip-data').textContent"))
    clips, leader = data["clips"], data["leader"]
    assert len(clips) == 30 and len(shown(browser)) == 12
    assert browser("document.getElementById('explorer-status').textContent") == "12 of 30 clips"
    assert shown(browser)[0] == min(clips, key=lambda c: (-c["ambiguity"], c["id"]))["id"]
    assert card(browser, 0, "q") == HOSTILE
    assert HOSTILE in card(browser, 0, ".speaker")

    browser("document.getElementById('explorer-more').click()")
    assert len(shown(browser)) == 24
    choose(browser, "sort", "far")
    assert shown(browser) == [c["id"] for c in sorted(clips, key=lambda c: (-c["js"][leader], c["id"]))][:12]
    choose(browser, "arm", str(1 - leader))
    choose(browser, "sort", "near")
    assert shown(browser) == [c["id"] for c in sorted(clips, key=lambda c: (c["js"][1 - leader], c["id"]))][:12]
    assert card(browser, 0, ".card-foot").startswith(f"JS {min(c['js'][1 - leader] for c in clips):.3f}")

    speaker = clips[0]["speaker"]
    choose(browser, "speaker", speaker)
    choose(browser, "class", CLASSES[1])
    wanted = {c["id"] for c in clips if c["speaker"] == speaker and c["heard"] == CLASSES[1]}
    assert set(shown(browser)) == wanted
    assert browser("document.getElementById('explorer-more').hidden")
    assert browser.complaints() == []


def test_bars_stand_side_by_side(page, browser):
    browser.open(page)
    data = json.loads(browser("document.getElementById('clip-data').textContent"))
    first = next(clip for clip in data["clips"] if clip["id"] == shown(browser)[0])
    widths = browser("[...document.querySelector('.card').querySelectorAll('.track i')].map(e => e.style.width)")
    wanted = zip(first["human"], first["synthetic"], first["predicted"][data["leader"]], strict=True)
    np.testing.assert_allclose(
        [float(w.rstrip("%")) for w in widths], [100 * p for row in wanted for p in row], atol=0.01
    )
    colours = browser(
        "[...new Set([...document.querySelectorAll('.card .track i')].map(e => getComputedStyle(e).backgroundColor))]"
    )
    assert len(colours) == 3


def test_clips_play(page, browser):
    browser.open(page)
    assert browser("document.querySelectorAll('.card audio').length") == 12
    assert browser("document.querySelector('.card audio').src").startswith("data:audio/")
    length = browser(
        "new Promise(done => { const a = document.querySelector('.card audio'); a.onerror = () => done(-1); "
        "a.onloadedmetadata = () => done(a.duration); a.load(); })"
    )
    if length == -1 and browser("document.createElement('audio').canPlayType('audio/mpeg')") == "":
        pytest.skip("this Chromium has no MP3")
    assert length == pytest.approx(0.5, abs=0.1)
    browser("document.querySelector('.play').click()")
    assert browser("document.querySelector('.play').getAttribute('aria-label')").startswith("Play clip")
    assert browser.complaints() == [] and browser.requests() == []


def test_a_page_of_time_lines(browser, tmp_path):
    from aer_jax.inference.prediction import Prediction, Window
    from aer_jax.reports.pages.timeline import write_figure

    probs = dict(zip(CLASSES, (0.1, 0.2, 0.3, 0.4), strict=True))
    windows = [Window(0, 5, probs, 0.9), Window(5, 10, None, None), Window(10, 15, probs, 0.9)]
    write_figure([Prediction(HOSTILE, 15.0, probs, 0.9, None, windows)], tmp_path / "line.html")
    browser.open(tmp_path / "line.html", 390)
    assert browser("document.documentElement.scrollWidth") == 390
    assert browser.complaints() == [] and browser.requests() == []
    assert (
        browser("document.title") == "Emotion over time"
        and browser("document.querySelector('h2').textContent") == HOSTILE
    )
    shutil.rmtree(tmp_path)
