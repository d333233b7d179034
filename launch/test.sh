#!/usr/bin/env bash
# Set everything up and pass the tests; arguments go to pytest.
#   bash launch/test.sh [PYTEST_ARGUMENT...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh test
ruff check .
ruff format --check .
mypy
lint-imports
# By file, because fixtures of a file are dear; a process takes up to 5 GB.
pytest -m "not slow and not fuzz" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
