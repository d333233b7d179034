#!/usr/bin/env bash
#SBATCH --job-name=aer_jax
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=aer_jax-%j.log
# Train under Slurm, one process a GPU; preempted or out of time, the job saves, queues itself again and goes on.
#
#   bash launch/setup.sh cuda     # once, where there is internet; `source` it to stay in the environment
#   sbatch --nodes=2 launch/slurm.sh --config configs/combined.yaml data.dataset=DATASET labels.journal=JOURNAL.jsonl \
#       model.checkpoint=CHECKPOINT out=runs/one mesh.data=1 mesh.fsdp=-1
#
# Submit from the checkout. The arguments are those of `aer-jax train`; out= must lie on a file system that all nodes
# share. Options of sbatch given on the command line win over those above; --ntasks-per-node must equal
# --gpus-per-node. Variables:
#   VENV      the environment with aer-jax (.venv in the checkout)
#   RESTARTS  how often the job may queue itself again (100)
# Submitted again after a run ended, it goes on with that run or finds it finished.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
venv=${VENV:-.venv}
if [[ ! -x $venv/bin/aer-jax ]]; then
    echo "slurm.sh: no aer-jax in $venv/bin; make the environment with launch/setup.sh or name it with VENV" >&2
    exit 2
fi

status=0
# TERM, 300 s before the time is over, goes to the tasks; all of them save together, so none is ended for another's end.
srun --kill-on-bad-exit=0 --wait=300 "$venv/bin/aer-jax" train --resume "$@" || status=$?
# 75: stopped as asked or lost another process. Above 128: a signal, of a node that failed for instance.
if [[ $status == 75 || $status -gt 128 ]] && ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-100})); then
    echo "slurm.sh: status $status; the job queues again" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
