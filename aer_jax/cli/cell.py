"""A run of an experiment, trained and evaluated by a process of its own: `python -m aer_jax.cli.cell CONFIG RUN`."""

import sys

from aer_jax.cli import main

if __name__ == "__main__":
    config, run = sys.argv[1:]
    sys.exit(main(["train", "--config", config, "--resume"]) or main(["evaluate", "--run", run]))
