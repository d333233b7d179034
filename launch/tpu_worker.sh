#!/usr/bin/env bash
# Runs on every worker of a TPU slice, sent there by tpu_pod.sh: mount the share, install, start training as a unit of
# systemd, which outlives the connection and gets SIGTERM when the machine is taken away.
#   bash launch/tpu_worker.sh SHARE TRAIN_ARGUMENT...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
share=$1
shift
if [[ $(systemctl show aer_jax --property=SubState --value) == running ]]; then
    exit 0
fi
if ! mountpoint -q /mnt/aer_jax; then
    command -v mount.nfs >/dev/null || { sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common; }
    sudo mkdir -p /mnt/aer_jax
    sudo mount -t nfs "$share" /mnt/aer_jax
fi
# The images of Cloud TPUs bring Python 3.10; uv brings a newer one.
uv=$HOME/.local/bin/uv
[[ -x $uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh
[[ -x .venv/bin/python ]] || "$uv" venv --quiet --python 3.12 .venv
"$uv" pip install --quiet --python .venv/bin/python '.[tpu]'
sudo systemctl stop aer_jax 2>/dev/null || true
sudo systemctl reset-failed aer_jax 2>/dev/null || true
sudo systemd-run --unit=aer_jax --uid="$(id -u)" --remain-after-exit --working-directory="$PWD" \
    --property=TimeoutStopSec=600 --setenv=HOME="$HOME" --setenv=AER_JAX_DISTRIBUTED=1 \
    "$PWD/.venv/bin/aer-jax" train --resume "$@"
