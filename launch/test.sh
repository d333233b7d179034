#!/usr/bin/env bash
# Set everything up and pass the tests; arguments go to pytest.
#   bash launch/test.sh [PYTEST_ARGUMENT...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh test
ruff check .
ruff format --check .
mypy
pytest -m "not slow" "$@"
