#!/usr/bin/env bash
# Set everything up and run the main job on the embedded toy corpus; a second call goes on where the first one stopped.
#   bash launch/demo.sh [OUT_DIR]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh annotate,report
aer-jax demo --out "${1:-runs/demo}"
