"""Side by side with PyTorch: all sides compute the same, the figures follow from the times, and a lie is not shown."""

import json

import pytest
import toy_runs
from transformers import Qwen2AudioConfig

from aer_jax import cli
from aer_jax.bench import train as bench
from aer_jax.bench.driver import BenchWorker, Disagreement, check_agreement
from aer_jax.bench.tables import text
from aer_jax.config import load_config
from aer_jax.errors import UserError
from aer_jax.models import random_checkpoint

SETTINGS = ["train.batch=2", "train.microbatch=1", "data.shapes=1", "model.remat=none"]
KEYS = {
    "seconds", "input_seconds", "loss", "loss_error", "utterances_per_second", "tokens_per_second", "padded_frames",
    "padded_positions", "mfu", "peak_bytes",
}  # fmt: skip


def run(capsys, *words) -> dict:
    code = cli.main(
        ["bench", *map(str, words), "--data", str(toy_runs.toy_dataset()), "--json", "--steps", "1", *SETTINGS]
    )
    streams = capsys.readouterr()
    assert code == 0, streams.err
    return json.loads(streams.out)


@pytest.fixture
def small_7b(monkeypatch):
    """The published configuration, but small: what is written where no checkpoint is named."""
    small = json.loads(json.dumps(random_checkpoint.published_config(audio_layers=1, text_layers=2)))
    small["audio_config"] |= {"d_model": 32, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    small["text_config"] |= {
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4,
        "vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    assert Qwen2AudioConfig.from_dict(small).audio_config.num_mel_bins == 128
    monkeypatch.setattr(random_checkpoint, "published_config", lambda *layers: small)


def test_both_pytorch_sides_have_our_losses_and_the_ratios_are_those_of_the_times(capsys, small_7b, monkeypatch):
    """A dry run of what an accelerator is timed with: random weights, no --model."""
    monkeypatch.delitem(bench.PYTORCH, "careful")  # it differs from `cut` in its windows alone
    result = run(capsys, "train")
    sides = result["sides"]
    assert set(sides) == {"ours", *bench.PYTORCH}
    assert set(sides["ours"]) > KEYS and all(set(sides[how]) >= KEYS for how in bench.PYTORCH)
    for how in bench.PYTORCH:
        assert len(sides[how]["loss"]) == 4 and sides[how]["loss"] == pytest.approx(sides["ours"]["loss"], rel=1e-5)
        assert sides[how]["loss_error"] <= result["tolerance"]
        ratio = sum(sides[how]["seconds"]) / sum(sides["ours"]["seconds"])
        assert result[f"ratio_to_{how}_pytorch"] == pytest.approx(ratio)
        assert sides[how]["utterances_per_second"] == pytest.approx(4 / sum(sides[how]["seconds"]))
    assert sides["ours"]["loss"][0] != sides["ours"]["loss"][1]
    assert sides["paper"]["padded_frames"] > 0.9 > sides["cut"]["padded_frames"]
    assert 0 < sides["ours"]["mfu"] < 1 and sum(sides["ours"]["compile_seconds"].values()) > 0
    shown = text(result)
    assert f"{result['ratio_to_paper_pytorch']:.2f}" in shown and "the paper's way" in shown


class FakeWorker:
    """Answers at once, and knows how many of its kind are running."""

    device, running, most = "cpu", 0, 0

    def __init__(self, module, job, environment=None):
        needs = [{"frames": 10, "tokens": 10, "flops": 100}] * job["steps"]
        self.about = {"device": self.device, "matmul_flops": 1e3, "versions": {}, "from_cache": False, "rates": [],
                      "lora": {}, "classes": 4, "compile_seconds": {"ours": {"shape": 1.0}}, "clips": [],
                      "needs": needs}  # fmt: skip
        self.seconds = 1.0 if module == "jax_train" else 4.0
        self.ended = False
        FakeWorker.running += 1
        FakeWorker.most = max(FakeWorker.most, FakeWorker.running)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        FakeWorker.running -= not self.ended
        self.ended = True

    def ask(self, message):
        assert not self.ended
        counts = {name: 10 for name in ("frames", "positions", "padded_frames", "padded_positions")}
        microbatch = 1 if self.seconds == 4.0 else 2
        times = {"seconds": self.seconds, "cpu_seconds": 1.0, "input_seconds": 0.0}
        step = {"loss": 1.0, "microbatch": microbatch} | times | counts
        return {"steps": [step] * len(message["steps"]), "peak_bytes": 1}


@pytest.mark.parametrize(("device", "at_once"), [("cpu", 1 + len(bench.PYTORCH)), ("a GPU", 1)])
def test_sides_share_a_cpu_and_follow_one_another_on_an_accelerator(device, at_once, monkeypatch):
    monkeypatch.setattr(bench, "BenchWorker", FakeWorker)
    for name, value in (("device", device), ("running", 0), ("most", 0)):
        monkeypatch.setattr(FakeWorker, name, value)
    config = load_config(None, [f"model.checkpoint={toy_runs.CHECKPOINT}", f"data.dataset={toy_runs.toy_dataset()}"])
    result = bench.bench_train(config, steps=1)
    assert (FakeWorker.most, FakeWorker.running) == (at_once, 0)
    assert result["device"] == device and result["ratio_to_paper_pytorch"] == 4.0
    assert [side["microbatch"] for side in result["sides"].values()] == [2, 1, 1, 1]
    assert "clips at a time" in text(result)


def test_pytorch_halves_its_microbatch_until_it_fits(monkeypatch):
    torch = pytest.importorskip("torch")
    from aer_jax.bench.workers.pytorch_train import PytorchSteps

    training = object.__new__(PytorchSteps)
    training.rows = 32

    def step(number):
        if training.rows > 8:
            raise torch.OutOfMemoryError
        return {"step": number, "rows": training.rows}

    monkeypatch.setattr(training, "_step", step, raising=False)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    assert [training.step(number) for number in (0, 1)] == [{"step": 0, "rows": 8}, {"step": 1, "rows": 8}]
    monkeypatch.setattr(training, "_step", lambda number: (_ for _ in ()).throw(torch.OutOfMemoryError), raising=False)
    with pytest.raises(torch.OutOfMemoryError):
        training.step(2)


@pytest.mark.slow
def test_in_bfloat16_too(capsys, small_7b):
    result = run(capsys, "train", "model.dtype=bfloat16")
    assert result["dtype"] == "bfloat16" and result["tolerance"] == bench.TOLERANCE["bfloat16"]


@pytest.mark.slow
def test_every_ablation_computes_the_same(capsys):
    result = run(capsys, "ablations", "--model", toy_runs.CHECKPOINT)
    errors = {name: side["loss_error"] for name, side in result["sides"].items()}
    assert errors.pop("with dropout") is None
    assert len(errors) == 5 and max(errors.values()) <= 1e-5 and "attention by XLA" not in errors
    assert "audio windows of 30 s" in text(result)


@pytest.mark.slow
def test_in_bfloat16_attention_by_xla_is_one_of_them(capsys):
    """On this CPU it is the same program; where a kernel serves, test_attention says how it is left out."""
    result = run(capsys, "ablations", "--model", toy_runs.CHECKPOINT, "model.dtype=bfloat16")
    assert result["sides"]["attention by XLA"]["loss_error"] == 0.0


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_ways_that_differ_end_the_command_without_times(error):
    sides = {"ours": {"error": 0.0}, "careful": {"error": error}, "sampled": {"error": None}}
    if error == 2e-4:
        check_agreement("the losses", sides, "error", 1e-3, bench.NAMES)
    with pytest.raises(Disagreement, match=r"the losses of PyTorch, careful differ from aer_jax's by .*no time is rep"):
        check_agreement("the losses", sides, "error", 1e-4, bench.NAMES)
    assert Disagreement.exit_code == 1


def test_bad_input_is_one_sentence(capsys):
    assert cli.main(["bench", "train", "--model", str(toy_runs.CHECKPOINT)]) == 2
    assert "bench train needs --data (or --root)" in capsys.readouterr().err
    assert cli.main(["bench", "predict", "--data", str(toy_runs.toy_dataset())]) == 2
    assert "needs --model" in capsys.readouterr().err


def test_a_worker_that_dies_says_so():
    with pytest.raises(UserError, match=r"bench's worker no_such is gone: .*exit code 1"), BenchWorker("no_such", {}):
        pass
