"""The commands as a user meets them: help, exit codes, JSON."""

import functools
import json
import re
import resource
import shlex
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import toy_runs

import aer_jax
from aer_jax import cli
from aer_jax.config import Config
from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.read import to_16k
from aer_jax.data.dataset import open_dataset
from aer_jax.training import trainer as loop
from aer_jax.training.run import flat

COMMANDS = re.findall(r"^    (\w+)", cli.parser().format_help(), re.MULTILINE)


def command(capsys, *args):
    """Exit code and standard output of a command in this process."""
    code = cli.main(list(map(str, args)))
    return code, capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(capsys, name):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    example = shlex.split(text.split("example: aer-jax ")[1])
    assert example[0] == name
    assert cli.parser().parse_args(example).run_command.__name__ == name


def test_commands_stand_in_the_order_of_the_work():
    assert tuple(COMMANDS) == cli.ORDER
    order = ("demo", "prepare", "annotate", "proxies", "train", "evaluate", "report", "predict", "experiment", "export")
    assert [name for name in COMMANDS if name in order] == list(order)


def test_all_commands_are_there():
    assert {"demo", "prepare", "annotate", "proxies", "train", "evaluate", "predict", "report"} <= set(COMMANDS)


def test_help_is_quick():
    """No heavy package is imported, and the processor is hardly used."""
    script = (
        "import sys, runpy\nsys.argv = ['aer-jax', '--help']\n"
        "try:\n    runpy.run_module('aer_jax', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'jax', 'torch', 'numpy', 'transformers', 'flax', 'grain', 'librosa'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "listeners' votes" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_missing_extra_is_named():
    script = "import sys; sys.modules['matplotlib'] = None; from aer_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    for words, sentence in (
        (["report", "--run", "r", "--out", "page.html"], "report needs matplotlib: `pip install 'aer-jax[report]'`."),
        (["predict", "--run", "r", __file__], "r is not a run directory"),  # draws nothing without --figure
    ):
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith(f"aer-jax: {sentence}"), done.stderr


@pytest.mark.parametrize("args", [[], ["sing"], ["train", "--epochs", "3"], ["evaluate"], ["predict", "--run", "r"]])
def test_wrong_use_is_exit_2(capsys, args):
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    assert end.value.code == 2
    assert "usage: aer-jax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trian"], 'there is no command "trian". Did you mean "train"?'),
        (["zzz"], 'there is no command "zzz". `aer-jax --help` lists them.'),
        (["evaluate", "--run", "r", "data.dataset=x"], "write the new place into r/config.yaml"),
        (["train", "--resme"], 'unrecognized arguments: --resme. Did you mean "--resume"?'),
        ([], "run every step on the embedded toy corpus"),
    ],
)
def test_wrong_use_says_what_is_right(capsys, args, said):
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    assert end.value.code == 2 and said in capsys.readouterr().err


ANNOTATE = ["annotate", "--data", "d", "--model", "m", "--out", "j"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([*ANNOTATE, "--batch", "0"], "argument --batch: 0 is out of range; it must lie between 1 and 1000000"),
        ([*ANNOTATE, "--listeners", "1e3"], '--listeners: "1e3" is no whole number; it must lie between 1 and 10000'),
        ([*ANNOTATE, "--temperatures", "0.5,nan"], "nan is out of range; it must lie between 0 and 2"),
        ([*ANNOTATE, "--temperatures", "0.5,,1"], '"" is no number; it must lie between 0 and 2'),
        ([*ANNOTATE, "--timeout", "inf"], "inf is out of range; it must lie above 0 and at most 1e+06"),
        (["prepare", "--corpus", "toy", "--out", "d", "--seed", "-1"], "it must lie between 0 and 2147483647"),
        (["report", "--run", "r", "--out", "o", "--audio", "nan"], "nan is out of range"),
        (["bench", "train", "--steps", "0"], "0 is out of range; it must lie between 1 and 10000"),
        (
            ["plan", "--topology", "v5e:4x4", "--prompt", "9" * 5000],
            "is no whole number; it must lie between 0 and 100000",
        ),
    ],
)
def test_numbers_of_flags_have_ranges(capsys, args, said):
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"aer-jax {aer_jax.__version__}\n"


def test_config_shows_every_setting(capsys, tmp_path):
    """A line each, none without words; the values of a file where one is given."""
    code, out = command(capsys, "config")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and lines.keys() == {key for key, _ in flat(Config())}
    assert all(re.search(r"[a-z]{2,} [a-z\d]", line.removeprefix(key)) for key, line in lines.items()), lines
    assert re.match(r"train.lr +0.0001 +peak learning rate of the adapters \(between 0 and 100\)$", lines["train.lr"])
    (tmp_path / "c.yaml").write_text("train: {epochs: 7}")
    code, out = command(capsys, "config", "--config", tmp_path / "c.yaml", "seed=3", "--json")
    values = json.loads(out)
    assert (values["train.epochs"], values["seed"], values["train.batch"]) == (7, 3, 32)


@pytest.mark.parametrize("args", [["config"], ["train", "train.lr=nan"], ["train", "out=a"]])
def test_settings_are_judged_before_jax_is_imported(args):
    script = f"import sys\nfrom aer_jax import cli\ncli.main({args})\nassert not {{'jax', 'numpy'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_resume_takes_the_settings_of_the_run(capsys, tmp_path, monkeypatch):
    """The flag's value is a run; what looks like a setting is one, as in `--resume "$@"` of the launch scripts."""
    seen = []
    monkeypatch.setattr(loop, "train", lambda config, resume, profile: seen.append((config, resume)) or Run())
    Run = functools.partial(types.SimpleNamespace, path=tmp_path)
    run = tmp_path / "a=b"
    run.mkdir()
    (run / "config.yaml").write_text(
        f"out: elsewhere\ndata: {{dataset: d}}\nmodel: {{checkpoint: {toy_runs.CHECKPOINT}}}"
    )
    for words in (["--resume", run], ["--resume", run, "seed=3"], ["seed=3", "--resume", run]):
        assert command(capsys, "train", *words)[0] == 0
        config, resume = seen.pop()
        assert (config.out, config.data.dataset, config.seed, resume) == (
            str(run),
            "d",
            3 if "seed=3" in words else 0,
            True,
        )
    settings = ["out=x", "data.dataset=d", "model.checkpoint=c"]
    for words in (["--resume", *settings], [*settings, "--resume"], ["--resume", *settings, "--profile", "1:2"]):
        assert command(capsys, "train", *words)[0] == 0
        config, resume = seen.pop()
        assert (config.out, resume) == ("x", True)
    assert command(capsys, "train", *settings)[0] == 0 and seen.pop()[1] is False


def test_a_journal_that_is_not_read_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda *_, **__: types.SimpleNamespace(path=tmp_path))
    settings = ["out=x", "data.dataset=d", "model.checkpoint=c", "labels.journal=j.jsonl"]
    for source, said in (("human", True), ("combined", False)):
        assert cli.main(["train", *settings, f"labels.source={source}"]) == 0
        assert ("j.jsonl (labels.journal) is not read" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume", "nowhere"], "nowhere is not a run directory (it has no config.yaml)"),
        (["--resume", "nowhere", "out=x"], "leave --config and out= out"),
        (["--resume", "gs://bucket/run"], "only mounted folders"),
    ],
)
def test_resume_of_what_is_no_run(capsys, words, said):
    assert cli.main(["train", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gpuu", "cuda"])
def test_a_backend_that_is_none(tmp_path, name):
    done = toy_runs.start("train", *toy_runs.settings(tmp_path / "run"), env={"JAX_PLATFORMS": name})
    last = done.communicate()[1].strip().splitlines()[-1]
    assert done.returncode == 2 and f'JAX cannot start with JAX_PLATFORMS="{name}": ' in last, last


@pytest.mark.parametrize(
    "args", [["annotate", "--data", "d", "--model", "m", "--out", "j"], ["report", "--run", "r", "--out", "o"]]
)
def test_ctrl_c_says_whether_the_same_command_goes_on(capsys, monkeypatch, args):
    def interrupted(*_):
        raise KeyboardInterrupt

    # In this order: the second is imported here, and would keep the first one's stand-in.
    monkeypatch.setattr("aer_jax.reports.pages.report.write_report", interrupted)
    monkeypatch.setattr("aer_jax.data.dataset.open_dataset", interrupted)
    assert cli.main(args) == 130
    error = capsys.readouterr().err
    assert error.startswith("aer-jax: interrupted") and ("the same command goes on" in error) == (args[0] == "annotate")


def test_exit_code_of_the_process(tmp_path):
    done = toy_runs.aer_jax("report", "--run", tmp_path, "--out", tmp_path / "page.html")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("aer-jax: ") and len(done.stderr.splitlines()) == 1


def test_prepare(capsys, tmp_path):
    code, out = command(capsys, "prepare", "--corpus", "toy", "--out", tmp_path / "toy", "--json")
    assert code == 0
    assert json.loads(out) == {
        "dataset": str(tmp_path / "toy"),
        "classes": ["angry", "happy", "neutral", "sad"],
        **{part: len(ids) for part, ids in open_dataset(tmp_path / "toy").splits.items()},
    }


def test_evaluate_and_report(capsys, tmp_path):
    run = toy_runs.trained_run()
    code, out = command(capsys, "evaluate", "--run", run, "--split", "validation", "--json")
    metrics = json.loads(out)
    assert code == 0 and metrics["split"] == "validation" and 0 < metrics["js"] < 1
    code, out = command(capsys, "evaluate", "--run", run, "--split", "validation")
    assert code == 0 and "Training mean" in out and run.name in out

    page = tmp_path / "page.html"
    code, out = command(capsys, "report", "--run", run, "--split", "validation", "--out", page, "--json")
    assert (code, json.loads(out)) == (0, {"report": str(page)}) and page.stat().st_size > 10_000


def test_train(capsys, tmp_path):
    """Standard output is the answer alone; what happens meanwhile is on standard error."""
    run = tmp_path / "run"
    code, out = command(capsys, "train", *toy_runs.settings(run), "--json")
    assert (code, json.loads(out)) == (0, {"run": str(run)})


@pytest.fixture
def clips(tmp_path):
    """Three test clips: (file, transcript, the evaluation's prediction)."""
    run, dataset = toy_runs.trained_run(), open_dataset(toy_runs.toy_dataset())
    lines = (run / "evaluation" / "test" / "predictions.jsonl").read_text().splitlines()
    found = []
    for line in map(json.loads, lines[:3]):
        file = tmp_path / f"{line['id']}.wav"
        soundfile.write(file, dataset.audio(line["id"]), 16_000, subtype="FLOAT")
        found.append((file, dataset.utterances[line["id"]].transcript, np.array(list(line["probs"].values()))))
    return found


def predict(capsys, *args):
    """File -> distribution, as `predict --json` says."""
    code, out = command(capsys, "predict", "--run", toy_runs.trained_run(), *args, "--json")
    assert code == 0
    found = {}
    for line in map(json.loads, out.splitlines()):
        assert list(line["probs"]) == ["angry", "happy", "neutral", "sad"]
        assert sum(line["probs"].values()) == pytest.approx(1, abs=1e-5)
        found[line["file"]] = np.array(list(line["probs"].values()))
    return found


def test_predictions_are_those_of_the_evaluation(capsys, clips):
    for file, transcript, probs in clips:
        alone = predict(capsys, file, "--transcript", transcript)
        assert list(alone) == [str(file)]
        np.testing.assert_allclose(alone[str(file)], probs, atol=1e-4)


def test_predictions_do_not_depend_on_the_company(capsys, clips, tmp_path):
    """A clip of 12 s in the same call makes the window longer; order and repetition are free."""
    (first, transcript, probs), (second, *_), _ = clips
    long = tmp_path / "long.flac"
    soundfile.write(long, np.tile(soundfile.read(first)[0], 12)[: 12 * 16_000], 16_000)
    together = predict(capsys, second, long, first, "--transcript", transcript)
    assert list(together) == [str(second), str(long), str(first)]
    np.testing.assert_allclose(together[str(first)], probs, atol=1e-4)
    assert np.abs(together[str(second)] - probs).max() > 1e-3


def test_predictions_of_other_formats(capsys, clips, tmp_path):
    """Stereo at another rate is the same speech."""
    file, transcript, probs = clips[0]
    samples, rate = soundfile.read(file, dtype="float32")
    doubled = to_16k(Waveform(samples, rate // 2))  # twice as many samples of the same sound at 32 kHz
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([doubled, doubled], axis=1), 32_000)
    np.testing.assert_allclose(predict(capsys, stereo, "--transcript", transcript)[str(stereo)], probs, atol=0.03)


def test_predictions_for_people(capsys, clips):
    code, out = command(capsys, "predict", "--run", toy_runs.trained_run(), clips[0][0])
    assert code == 0 and clips[0][0].name in out and "angry 0." in out and "ambiguity 0." in out


def test_settings_may_stand_before_and_after_flags(capsys):
    flags, before, after = ["--model", toy_runs.CHECKPOINT, "--json"], "model.dtype=bfloat16", "mesh.data=1"
    sizes = []
    for words in (
        ["load", *flags],
        ["load", before, *flags],
        ["load", *flags, before],
        ["load", before, *flags, after],
    ):
        assert cli.main(["bench", *map(str, words)]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["array_bytes"])
    assert sizes[0] == 2 * sizes[1] and sizes[1] == sizes[2] == sizes[3]


@pytest.mark.parametrize("word", ["--modle", "model.dtype", "-x=3"])
def test_words_that_no_command_knows(word, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "load", "--model", str(toy_runs.CHECKPOINT), word])
    assert stop.value.code == 2 and f"unrecognized arguments: {word}" in capsys.readouterr().err
