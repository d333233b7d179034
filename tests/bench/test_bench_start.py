"""Cold start: every part of it is accounted for, and nothing imports what it need not."""

import subprocess
import sys

import pytest
import toy_runs

from aer_jax.bench import start as bench
from aer_jax.bench.tables import text
from aer_jax.errors import UserError


@pytest.mark.slow
def test_both_starts_are_split_and_sum_up():
    data = f"data.dataset={toy_runs.toy_dataset()}"
    settings = [data, f"model.checkpoint={toy_runs.CHECKPOINT}", "data.dime_aug.ratio=0", "data.shapes=1"]
    result = bench.bench_start([*settings, "train.batch=4", "train.microbatch=4"])
    for start in (result["first"], result["second"]):
        assert sum(start[part] for part in start if part != "all") == pytest.approx(start["all"])
        assert min(start[part] for part in ("import", "setup", "compile", "step")) > 0
    assert result["second"]["compile"] < result["first"]["compile"]
    assert "compile" in text(result)
    with pytest.raises(UserError, match=r"train\.bach"):
        bench.bench_start([*settings, "train.bach=3"])


def test_a_training_process_imports_neither_pytorch_nor_scikit_learn():
    program = (
        "import sys; from aer_jax.jax_setup import start_jax; start_jax(); import aer_jax.training.trainer;"
        f"from aer_jax.data.prompt import PromptEncoder; PromptEncoder({str(toy_runs.CHECKPOINT)!r}, ['a', 'b']);"
        "print(*(name for name in ('torch', 'sklearn', 'pandas', 'matplotlib') if name in sys.modules));"
        "import torch"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "" and "PyTorch was not found" not in done.stderr
