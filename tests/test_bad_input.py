"""Bad input through the commands: exit 2 and one sentence that says what, where and how to mend it."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import toy_runs

from aer_jax import cli
from aer_jax.data.dataset import open_dataset


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused; the sentence it says, without its program name."""

    def run(*args):
        assert cli.main(list(map(str, args))) == 2
        said = capsys.readouterr()
        assert said.out == ""
        *before, last = [line for line in said.err.splitlines() if line]
        assert not [line for line in before if line.startswith(("aer-jax:", "Traceback"))]
        assert last.startswith("aer-jax: ") and last.endswith((".", "?"))
        return last.removeprefix("aer-jax: ")

    return run


@pytest.fixture
def base(tmp_path):
    """A copy of the toy checkpoint, to be harmed."""
    return shutil.copytree(toy_runs.CHECKPOINT, tmp_path / "base")


def test_config_file_that_is_missing(refused, tmp_path):
    assert f"{tmp_path}/no.yaml" in refused("train", "--config", tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {ephocs: 3}", ['"train.ephocs"', 'Did you mean "epochs"?']),
        ("lables: {source: human}", ['"lables"', 'Did you mean "labels"?']),
        ("train: {epochs: many}", ["train.epochs must be int, not 'many'"]),
        ("labels: {source: robots}", ['labels.source is "robots"', "human, synthetic, combined"]),
        ("train: 3", ["train is a section"]),
        ("- train", ["must hold `key: value` lines"]),
        ("train: {epochs: [}", ["not valid YAML"]),
        ("\x00", ["not valid YAML"]),
    ],
)
def test_config_file_that_is_wrong(refused, tmp_path, text, words):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    sentence = refused("train", "--config", file)
    assert all(word in sentence for word in [str(file), *words]), sentence


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.ephocs=3", ['"train.ephocs"', 'Did you mean "epochs"?']),
        ("train.epochs=1.5", ["train.epochs must be int, not 1.5"]),
        ("epochs", ["is not an override", "section.key=value"]),
        ("data.dataset=", ["data.dataset"]),
        ("train.epochs=-1", ["train.epochs is -1"]),
        ("train.patience=0", ["train.patience is 0"]),
        ("train.warmup=1.5", ["train.warmup is 1.5", "between 0 and 1"]),
        ("train.lr=-1", ["train.lr is -1"]),
        ("train.lr=.nan", ["train.lr is nan"]),
        ("train.clip_norm=0", ["train.clip_norm is 0"]),
        ("model.lora.rank=0", ["model.lora.rank is 0"]),
        ("model.lora.dropout=1", ["model.lora.dropout is 1"]),
        ("model.lora.targets=[no_such_layer]", ["no_such_layer", "matches no linear layer"]),
        ("seed=-1", ["seed is -1"]),
        ("data.shapes=-1", ["shapes is -1"]),
        ("data.augment=2", ["data.augment is 2"]),
        ("data.max_seconds=31", ["data.max_seconds is 31", "30 s"]),
        ("data.dime_aug.ratio=3", ["data.dime_aug.ratio is 3"]),
        ("train.microbatch=3", ["train.batch 8", "train.microbatch 3"]),
        ("train.microbatch=0", ["train.microbatch is 0", "between 1 and"]),
        ("mesh.data=3", ["data 3", "does not make 1 devices"]),
        ("labels.source=synthetic", ["labels.journal", "aer-jax annotate"]),
    ],
)
def test_settings_that_cannot_work(refused, tmp_path, override, words):
    sentence = refused("train", *toy_runs.settings(tmp_path / "run", override))
    assert all(word in sentence for word in words), sentence
    refused_run_leaves_room(tmp_path / "run")


@pytest.mark.parametrize(
    "command",
    [
        ("train", "out=gs://bucket/run"),
        ("train", "labels.journal=s3://bucket/votes.jsonl"),
        ("evaluate", "--run", "gs://bucket/run"),
        ("predict", "--run", "run", "gs://bucket/a.wav"),
        ("prepare", "--corpus", "toy", "--out", "gs://bucket/data"),
    ],
)
def test_buckets_are_no_folders(refused, monkeypatch, tmp_path, command):
    """Else they would be made below the working directory, and lost with the machine."""
    monkeypatch.chdir(tmp_path)
    sentence = refused(*command)
    assert "bucket" in sentence and "mount it" in sentence and list(tmp_path.iterdir()) == []


def refused_run_leaves_room(run):
    """The same `out` can be used once the mistake is mended."""
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["out", "data.dataset", "model.checkpoint"])
def test_settings_that_are_missing(refused, tmp_path, name):
    given = [pair for pair in toy_runs.settings(tmp_path / "run") if not pair.startswith(f"{name}=")]
    assert refused("train", *given).startswith(f"{name} is not set")


def test_dataset_that_is_none(refused, tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        sentence = refused("train", *toy_runs.settings(tmp_path / "run", f"data.dataset={path}"))
        assert sentence.startswith(f"{path} is not a dataset") and "aer-jax prepare" in sentence
        assert str(path) in refused("annotate", "--data", path, "--model", "x", "--out", tmp_path / "j.jsonl")
        assert str(path) in refused("proxies", "--data", path, "--journal", tmp_path / "j.jsonl")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_checkpoint_that_lacks_a_file(refused, tmp_path, base, file):
    (base / file).unlink()
    assert str(base) in refused("train", *toy_runs.settings(tmp_path / "run", f"model.checkpoint={base}"))
    shutil.copy(toy_runs.CHECKPOINT / file, base)
    refused_run_leaves_room(tmp_path / "run")


def test_checkpoint_that_is_none(refused, tmp_path):
    assert "nowhere" in refused("train", *toy_runs.settings(tmp_path / "run", "model.checkpoint=nowhere"))


@pytest.mark.parametrize("size", [0, 4, 1000, 100_000])
def test_weights_that_are_cut_short(refused, tmp_path, base, size):
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    sentence = refused("train", *toy_runs.settings(tmp_path / "run", f"model.checkpoint={base}"))
    assert "model.safetensors is not a whole safetensors file" in sentence


def test_config_of_another_model(refused, tmp_path, base):
    settings = toy_runs.settings(tmp_path / "run", f"model.checkpoint={base}")
    about = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(about | {"model_type": "whisper"}))
    assert '"whisper"' in refused("train", *settings)
    (base / "config.json").write_text("{")
    assert "is not valid JSON" in refused("train", *settings)
    for name, value, words in (
        ("intermediate_size", 96, "do not fit its config.json"),
        ("num_hidden_layers", 4, "does not describe a Qwen2-Audio model"),
    ):
        text = about["text_config"] | {name: value}
        (base / "config.json").write_text(json.dumps(about | {"text_config": text}))
        assert words in refused("train", *settings)


def journal_line(utterance, label):
    return json.dumps(
        {
            "utterance": utterance, "listener": 0, "persona": "p", "temperature": 1.0, "seed": 0, "prompt": "x",
            "model": "m", "response": label, "label": label,
        }
    )  # fmt: skip


def test_journals(refused, tmp_path):
    journal = tmp_path / "journal.jsonl"
    settings = toy_runs.settings(tmp_path / "run", "labels.source=synthetic", f"labels.journal={journal}")
    assert f"there is no journal {journal}" in refused("train", *settings)
    journal.write_text("nothing of the kind\n")
    assert str(journal) in refused("train", *settings)
    assert str(journal) in refused("proxies", "--data", toy_runs.toy_dataset(), "--journal", journal)
    some = open_dataset(toy_runs.toy_dataset()).splits["train"][:5]
    journal.write_text("".join(journal_line(id, "happy") + "\n" for id in some))
    assert "27 of 32 utterances have no synthetic vote" in refused("train", *settings)


@pytest.mark.parametrize(
    "content",
    [
        b"[1, 2]\n", b'"text"\n', b"7\n", b"null\n", b"[" * 10_000 + b"]" * 10_000 + b"\n", b"\xff\xfe\x00\n", b"\n",
        b"RIFF\x00\x00WAVE", b"file,label\na.wav,happy\n",
        {"label": ["happy"]}, {"label": 5}, {"label": None}, {"listener": "0"}, {"listener": True}, {"seed": {}},
        {"temperature": float("nan")}, {"temperature": 10**400}, {"utterance": None}, {"model": []},
        {"answers": "loud"}, {"outcome": "lost"}, {"surprise": 1}, {"label": None, "probs": [1]},
        {"label": None, "probs": {"happy": float("nan")}},
    ],
    ids=repr,
)  # fmt: skip
def test_lines_that_are_no_line_of_a_journal(refused, tmp_path, content):
    """One sentence that names the line, from every command that reads a journal, and the file stays as it is."""
    journal, data = tmp_path / "journal.jsonl", toy_runs.toy_dataset()
    if isinstance(content, dict):
        good = json.loads(journal_line(next(iter(open_dataset(data).utterances)), "happy"))
        content = json.dumps(good | content).encode() + b"\n"
    journal.write_bytes(content)
    settings = toy_runs.settings(tmp_path / "run", "labels.source=combined", f"labels.journal={journal}")
    annotate = ["annotate", "--data", data, "--model", toy_runs.CHECKPOINT, "--out", journal]
    for words in (["train", *settings], ["proxies", "--data", data, "--journal", journal], annotate):
        said = refused(*words)
        if content.endswith(b"\n") or words == annotate:  # what lacks its newline is a line that is being written
            assert f"{journal}, line 1" in said and len(said) < 400
    assert journal.read_bytes() == content


def test_journals_of_other_labels_clips_and_models(refused, tmp_path):
    journal, data = tmp_path / "journal.jsonl", toy_runs.toy_dataset()
    settings = toy_runs.settings(tmp_path / "run", "labels.source=combined", f"labels.journal={journal}")
    ids = list(open_dataset(data).utterances)
    annotate = ["annotate", "--data", data, "--model", toy_runs.CHECKPOINT, "--out", journal]
    proxies = ["proxies", "--data", data, "--journal", journal]
    journal.write_text(journal_line(ids[0], "bliss") + "\n")
    for words in (["train", *settings], proxies):
        assert "line 1: the label 'bliss' is none of angry, happy, neutral, sad." in refused(*words)
    journal.write_text("".join(journal_line(f"other{n}", "happy") + "\n" for n in range(3)))
    assert "it is about other clips, the first is other0" in refused("train", *settings)
    assert "is about 3 utterances that" in refused(*proxies)
    assert "was begun with model m, this run has" in refused(*annotate)
    journal.write_text("".join(journal_line(ids[0], label) + "\n" for label in ("happy", "sad")))
    for words in (["train", *settings], proxies):
        assert f"line 2: a second answer of listener 0 about {ids[0]}; delete one." in refused(*words)
    for content in ("", '{"utterance": "'):
        journal.write_text(content)
        assert "has a synthetic vote" in refused("train", *settings)
        assert "is empty" in refused(*proxies)
    assert "cannot be read" in refused("proxies", "--data", data, "--journal", tmp_path)


def test_runs_that_are_in_the_way(refused):
    run = toy_runs.trained_run()
    before = toy_runs.log_lines(run)
    assert "already holds a run" in refused("train", *toy_runs.settings(run))
    sentence = refused("train", *toy_runs.settings(run, "seed=3", "train.lr=1"), "--resume")
    assert "seed: 0 -> 3; train.lr: 0.003 -> 1.0" in sentence
    assert toy_runs.log_lines(run) == before


def test_out_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"cannot make the run directory {out}" in refused("train", *toy_runs.settings(out))


def copy_of_run(tmp_path, *without):
    run = tmp_path / "run"
    shutil.copytree(toy_runs.trained_run(), run)
    for name in without:
        shutil.rmtree(run / name)
    return run


def test_run_without_a_best_model(refused, tmp_path):
    run = copy_of_run(tmp_path, "best")
    for command in (["evaluate"], ["predict", _speech(tmp_path)]):
        assert "has no best checkpoint yet" in refused(command[0], "--run", run, *command[1:])
    assert not (run / "best").exists(), "reading makes nothing"


def test_run_whose_best_model_is_damaged(refused, tmp_path):
    run = copy_of_run(tmp_path)
    for file in (run / "best").rglob("*"):
        if file.is_file() and "d" in file.parts[-2:]:
            file.write_bytes(file.read_bytes()[:100])
    assert f"{run}/best" in refused("evaluate", "--run", run)


def test_run_that_is_none(refused, tmp_path):
    for command in (["evaluate"], ["predict", _speech(tmp_path)]):
        sentence = refused(command[0], "--run", tmp_path / "nowhere", *command[1:])
        assert "nowhere is not a run directory" in sentence


def test_report_without_an_evaluation(refused, tmp_path):
    run = copy_of_run(tmp_path, "evaluation")
    sentence = refused("report", "--run", run, "--out", tmp_path / "page.html")
    assert "has no evaluation of the test split" in sentence and f"aer-jax evaluate --run {run}" in sentence
    assert not (tmp_path / "page.html").exists()


def _speech(folder, name="speech.wav", seconds=1.0):
    """Something that sounds."""
    file = folder / name
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, round(16_000 * seconds)), 16_000)
    return file


def _folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--window", "31"], "the window is 31 s"),
        (["--hop", "0"], "the hop is 0 s"),
        (["--figure", "line.pdf"], "line.pdf"),
        (["--figure", "nowhere/line.png"], "there is no folder"),
        (["--out", "nowhere/shares.csv"], "nowhere/shares.csv"),
        (["--transcripts", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_predictions_asked_for_wrongly(refused, tmp_path, words, sentence):
    assert sentence in refused("predict", "--run", toy_runs.trained_run(), _speech(tmp_path), *words)


def test_a_folder_without_audio(refused, tmp_path):
    assert "holds no audio file" in refused("predict", "--run", toy_runs.trained_run(), _folder(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "file,note\na.wav,Hello", 'there is no column "transcript"; the columns: file, note'),
        ("t.csv", "transcript\nHello", 'there is no column "file"'),
        ("t.csv", "file,path,text\na.wav,b.wav,Hello", "several columns could be the file"),
        ("t.csv", "file,transcript\n,Hello", "line 2, names no file"),
        ("t.jsonl", '{"file": "a.wav", "transcript": "Hello"}\n[1]', "line 2"),
        ("t.jsonl", '{"file": "a.wav", "transcript": ["Hello"]}', '"transcript" must be text'),
        ("t.csv", "file,transcript\na.wav,Hello\na.wav,Bye", "line 3, names a.wav again"),
    ],
)
def test_a_table_of_transcripts_that_is_wrong(refused, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    table = tmp_path / name
    assert words in refused("predict", "--run", tmp_path / "run", _speech(tmp_path), "--transcripts", table)


def test_a_worker_that_dies(refused, tmp_path, base):
    """Its weights are cut short, which only the worker finds out."""
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    journal = tmp_path / "journal.jsonl"
    sentence = refused("annotate", "--data", toy_runs.toy_dataset(), "--model", base, "--out", journal, "--limit", 1)
    assert "worker" in sentence
    assert not journal.exists() or journal.read_text() == ""


def test_corpora(refused, tmp_path):
    assert "nocorpus" in refused("prepare", "--corpus", "nocorpus", "--out", tmp_path / "d")
    assert "crema-d" in refused("prepare", "--corpus", "crema-d", "--out", tmp_path / "d")
    assert str(tmp_path) in refused("prepare", "--corpus", "crema-d", "--root", tmp_path, "--out", tmp_path / "d")
    classes = refused("prepare", "--corpus", "toy", "--classes", "angry,hapy", "--out", tmp_path / "d")
    assert "hapy" in classes
    assert not (tmp_path / "d").exists()
    there = refused("prepare", "--corpus", "toy", "--out", toy_runs.toy_dataset())
    assert str(toy_runs.toy_dataset()) in there
