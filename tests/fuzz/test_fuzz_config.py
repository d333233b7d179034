"""Settings by chance: each is read or refused in one sentence; never a traceback."""

import random

import pytest

from aer_jax.cli.settings import described
from aer_jax.config import Config, load_config
from aer_jax.errors import UserError
from aer_jax.training.check import check

KEYS = [key for key, _, _ in described(Config())]
FILE = (
    "out: r\nrecipe: paper\ndata: {dataset: d}\nmodel:\n  checkpoint: c\n  lora: {rank: 4}\n"
    "train:\n  lr: 1e-4\n  epochs: 3\nlabels: {source: human}\n"
)
WORDS = (
    "1 0 -1 nan .nan inf -.inf 1e400 1e-400 true no null ~ [] {} [1] {a:1} 2024-01-01 2024-13-45 010 0o10 0x10 1:30 "
    "1_000 *a ' \" 'a | > - ? % @ ` = ! !! << --- ... # human paper readout learned 1. +1 -0 Infinity \u0661 \xe9"
)
ODD = [
    *WORDS.split(),
    *("", "&a [*a]", "{<<: {a: 1}}", "a: b: c", "> a", "\t1", "a\tb", "\u2028", "\x85", "\0", "\ud800"),
    *(f"!!{tag} x" for tag in ("binary", "int", "float", "bool", "timestamp", "set", "omap", "python/name:os.system")),
    *("9" * 5000, "[" * 2000, "{a: " * 500, "{" * 2000),
]


def override(rng):
    key = rng.choice(KEYS)
    if rng.random() < 0.2:
        key = key.replace(".", rng.choice(["..", ". ", ""])) + rng.choice(["", ".x", "."])
    return f"{key}={rng.choice(ODD)}"


def damaged(rng):
    content = bytearray(FILE.encode())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(content))
        if rng.random() < 0.4:
            content[at] = rng.randrange(256)
        elif rng.random() < 0.4:
            del content[at : at + rng.randint(1, 8)]
        else:
            content[at:at] = rng.choice(ODD).encode("utf-8", "surrogatepass")
    return content


@pytest.mark.parametrize("seed", range(4))
def test_settings_are_read_or_refused_in_a_sentence(tmp_path, seed):
    rng, file, refused = random.Random(seed), tmp_path / "c.yaml", 0
    for _ in range(100):
        file.write_bytes(damaged(rng) if rng.random() < 0.5 else FILE.encode())
        try:
            check(load_config(file, [override(rng) for _ in range(rng.randint(0, 2))]))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 900 and str(error).endswith((".", "?")), str(error)
    assert 50 < refused < 100, "some are right"
