#!/usr/bin/env bash
# Train on the GPUs of this machine: set everything up, then run or go on.
#
#   bash launch/gpu.sh --config configs/combined.yaml data.dataset=DATASET labels.journal=JOURNAL.jsonl \
#       model.checkpoint=CHECKPOINT out=runs/one mesh.data=1 mesh.fsdp=-1
#
# The arguments are those of `aer-jax train`. Call it again whenever it ended: a run that stopped goes on. Variables:
#   CUDA_VISIBLE_DEVICES           which GPUs; all without it
#   XLA_PYTHON_CLIENT_MEM_FRACTION share of their memory that JAX takes (0.92)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "gpu.sh: nvidia-smi finds no GPU; install NVIDIA's driver (580 or newer, for CUDA 13), or use launch/demo.sh" >&2
    exit 2
fi
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
source launch/setup.sh cuda
exec aer-jax train --resume "$@"
