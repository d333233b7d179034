"""The page of augmented clips: what it shows is what training hears, and licensed audio does not leave unasked."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from small_runs import small_dataset
from test_html import Page

from aer_jax import cli
from aer_jax.config import load_config, to_yaml
from aer_jax.data import dime_aug
from aer_jax.data.augment import augment
from aer_jax.data.examples import mix_audio
from aer_jax.errors import UserError
from aer_jax.labels.votes import Votes, normalise
from aer_jax.reports.pages.augmented import choose, write_augmented
from aer_jax.reports.pages.sounds import Scale, picture


def planned_run(path, dataset, *settings):
    config = load_config(None, [f"data.dataset={dataset.path}", "data.dime_aug.ratio=0.9", *settings])
    ids = dataset.splits["train"]
    plan = dime_aug.plan(
        ids,
        normalise(Votes(dataset.votes).counts(ids, dataset.classes)),
        dataset.classes,
        lambda wanted: np.random.default_rng(0).normal(size=(len(wanted), 3)),
        ratio=0.9,
        neighbours=3,
        seed=0,
    )
    path.mkdir()
    (path / "config.yaml").write_text(to_yaml(config))
    (path / "dime_aug.json").write_text(dime_aug.to_json(plan))
    return plan


@pytest.fixture(scope="module")
def shown(dataset, tmp_path_factory):
    """The plan of a run and its page with five mixes."""
    run = tmp_path_factory.mktemp("augmented") / "run"
    plan = planned_run(run, dataset)
    write_augmented(run, run / "page.html", samples=5)
    return plan, (run / "page.html").read_text()


def sounds(page):
    return [
        soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
        for data in re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    ]


def test_the_page_is_well_formed_and_asks_for_nothing(shown):
    found = Page(shown[1])
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "http" not in shown[1]
    assert all(value.startswith("data:") for name, value in found.attributes if name in ("src", "href"))
    assert found.tags.count("audio") == 5 * 3 + 5 and found.tags.count("image") == 5 * 3 + 5


def test_one_hears_what_training_hears(shown, dataset):
    plan, page = shown
    heard = sounds(page)
    assert {rate for _, rate in heard} == {16_000}
    mixes = choose(plan, 5)
    for mix, row in zip(mixes, range(0, 15, 3), strict=True):
        first_t, mix_t, second_t = (audio_t for audio_t, _ in heard[row : row + 3])
        a_t, b_t = dataset.audio(mix.first), dataset.audio(mix.second)
        for got_t, want_t in ((first_t, a_t), (second_t, b_t), (mix_t, mix_audio(a_t, b_t, mix.alpha))):
            np.testing.assert_allclose(got_t, want_t, atol=0.51 / 32768)  # 16 bits
    first_t = dataset.audio(mixes[0].first)
    for (got_t, _), change in zip(heard[15:], ((0, 1), (-1, 1), (1, 1), (0, 0.95), (0, 1.05)), strict=True):
        np.testing.assert_allclose(got_t, np.clip(augment(first_t, *change), -1, 1), atol=1.01 / 32768)


def test_classes_take_turns_and_the_table_counts_them(shown):
    plan, page = shown
    classes = [max(zip(mix.target, plan.real, strict=True))[1] for mix in choose(plan, 5)]
    filled = [label for label in plan.real if plan.after[label] > plan.real[label]]
    assert classes == [filled[i % len(filled)] for i in range(5)]
    assert len(choose(plan, 10_000)) == len(plan.mixes)
    table = "".join(Page(page).tables[0].split())
    for label, real in plan.real.items():
        assert f"{label}{real}{plan.wanted[label]}{plan.after[label] - real}{plan.after[label]}" in table
    for mix in choose(plan, 5):
        assert f" = {mix.alpha:.3f}</span>" in page and f"words of {mix.spoken}" in page


def test_words_of_the_corpus_are_text_not_markup(shown):
    assert "<script>" not in shown[1] and "&lt;script&gt;" in shown[1]


def test_a_licensed_corpus_is_shown_only_on_request(tmp_path, capsys):
    dataset = small_dataset(tmp_path / "licensed", licensed=True)
    planned_run(tmp_path / "run", dataset)
    command = ["augmented", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "page.html"), "--samples", "1"]
    assert cli.main(command) == 2
    assert "licensed" in capsys.readouterr().err and not (tmp_path / "page.html").exists()
    assert cli.main([*command, "--licensed"]) == 0
    assert (tmp_path / "page.html").exists()


def test_runs_without_anything_to_hear_are_one_sentence(tmp_path, dataset):
    out = tmp_path / "page.html"
    with pytest.raises(UserError, match="not a run directory"):
        write_augmented(tmp_path / "none", out, 3)
    planned_run(tmp_path / "off", dataset, "data.dime_aug.ratio=0")
    with pytest.raises(UserError, match="turned off"):
        write_augmented(tmp_path / "off", out, 3)
    planned_run(tmp_path / "run", dataset)
    with pytest.raises(UserError, match="at least one"):
        write_augmented(tmp_path / "run", out, 0)
    (tmp_path / "run" / "dime_aug.json").unlink()
    with pytest.raises(UserError, match=r"no dime_aug\.json yet"):
        write_augmented(tmp_path / "run", out, 3)
    assert not out.exists()


def test_a_dataset_or_a_plan_that_changed_is_not_shown(tmp_path, dataset):
    run, out = tmp_path / "run", tmp_path / "page.html"
    planned_run(run, dataset)
    plan = (run / "dime_aug.json").read_text()
    (run / "dime_aug.json").write_text(plan.replace('"alpha": 0.', '"alpha": 0.0', 1))
    with pytest.raises(UserError, match="not what was written"):
        write_augmented(run, out, 3)
    (run / "dime_aug.json").write_text(plan)
    (run / "environment.json").write_text(json.dumps({"base": "", "learns_from": {"data.dataset": "another"}}))
    with pytest.raises(UserError, match=r"data\.dataset: .* is not what .* was begun with"):
        write_augmented(run, out, 3)


def test_a_plan_that_adds_nothing_has_a_page_too(tmp_path, dataset):
    plan = planned_run(tmp_path / "run", dataset)
    empty = dime_aug.Plan(0.01, 3, 0, plan.real, plan.real, ())
    (tmp_path / "run" / "dime_aug.json").write_text(dime_aug.to_json(empty))
    write_augmented(tmp_path / "run", tmp_path / "page.html", 3)
    assert "nothing was added" in (tmp_path / "page.html").read_text()


def test_pictures_beside_each_other_share_their_scale():
    quiet_t, loud_t = np.full(1_000, 0.1, np.float32), np.full(2_000, -0.5, np.float32)
    scale = Scale.of(quiet_t, loud_t)
    assert scale == (2_000, 0.5)
    assert Scale.of(np.zeros(5, np.float32)).peak == 1
    path = re.search(r'd="M([^"]+)Z"', picture(quiet_t, scale, "quiet"))[1]
    points = np.array([point.split(",") for point in path.split("L")], float)
    assert points[:, 0].max() == 300 and np.allclose(points[:, 1], 24)  # half the width, a fifth of half the height
    assert "<line" not in picture(quiet_t, scale, "quiet") and 'x1="150.0"' in picture(loud_t, scale, "loud", 500)
