#!/usr/bin/env bash
# Train on a slice of Cloud TPUs: ask for it, install, start on every worker, follow; after a preemption do it again.
#
#   ZONE=us-west4-a TPU=aer SHARE=10.0.0.2:/aer bash launch/tpu_pod.sh --config configs/combined.yaml \
#       data.dataset=/mnt/aer_jax/iemocap labels.journal=/mnt/aer_jax/iemocap.jsonl \
#       model.checkpoint=/mnt/aer_jax/Qwen2-Audio-7B-Instruct out=/mnt/aer_jax/runs/one mesh.data=1 mesh.fsdp=-1
#
# The arguments are those of `aer-jax train`. Variables:
#   ZONE     of the slice; required
#   TPU      name of slice and request; required
#   SHARE    an NFS export in the network of the slice (Filestore, for instance), mounted as /mnt/aer_jax on each worker;
#            required. Dataset, checkpoint and out= must lie there: a preempted slice leaves nothing else behind.
#   PROJECT  gcloud's default without it
#   TYPE     v5litepod-16
#   RUNTIME  v2-alpha-tpuv5-lite; v6e takes v2-alpha-tpuv6e, v5p v2-alpha-tpuv5
#   SPOT     1: cheap, may be taken away at any moment; 0: on demand
#   KEEP     1 keeps the slice, and its price, once the run is over
#   POLL     seconds between two looks (60)
#
# Call it again whenever it ended: what is there is used, a run that is going is followed, one that stopped goes on. The
# run does not depend on this terminal; Ctrl-C ends the looking alone. It needs gcloud, logged in, and git.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${ZONE:?set ZONE, for instance us-west4-a}" "${TPU:?set TPU, a name for the slice}"
: "${SHARE:?set SHARE, an NFS export, for instance 10.0.0.2:/aer}"
type=${TYPE:-v5litepod-16} runtime=${RUNTIME:-v2-alpha-tpuv5-lite} poll=${POLL:-60}
where=("--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"} --quiet)
[[ " $* " == *" out=/mnt/aer_jax/"* ]] || {
    echo "tpu_pod.sh: give out=/mnt/aer_jax/..., the share; a run on a worker's own disk is lost with the slice" >&2
    exit 2
}

say() { echo "tpu_pod.sh: $*" >&2; }

# State of the request, empty where there is none.
state() { gcloud compute tpus queued-resources list "${where[@]}" --filter="name~/$TPU\$" --format='value(state.state)'; }

request() {
    local spot=()
    [[ ${SPOT:-1} == 0 ]] || spot=(--spot)
    say "asking for $type in $ZONE"
    gcloud compute tpus queued-resources create "$TPU" --node-id="$TPU" --accelerator-type="$type" \
        --runtime-version="$runtime" "${where[@]}" "${spot[@]}"
}

remove() { gcloud compute tpus queued-resources delete "$TPU" --force "${where[@]}"; }

on() { gcloud compute tpus tpu-vm ssh "$TPU" --worker="$1" --command="$2" "${where[@]}"; }

# Copy the sources, install, start; where the run is going already, nothing happens.
start() {
    local archive arguments
    archive=$(mktemp -d)/aer_jax.tar.gz
    git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -czf "$archive"
    printf -v arguments ' %q' "$SHARE" "$@"
    say "installing and starting on all workers"
    gcloud compute tpus tpu-vm scp "$archive" "$TPU:aer_jax.tar.gz" --worker=all "${where[@]}" &&
        on all "mkdir -p aer_jax && tar -xzf aer_jax.tar.gz -C aer_jax && bash aer_jax/launch/tpu_worker.sh$arguments"
}

# How the first worker's unit is and what it said last, into `unit` (running, exited, failed, ...), `code` (1: it ended by
# itself), `status` and `last`.
look() {
    local found line
    code=0 status=0 last=
    found=$(on 0 'systemctl show aer_jax --property=SubState,ExecMainCode,ExecMainStatus &&
        sudo journalctl --unit=aer_jax --lines=1 --output=cat | tr "\r" "\n" | tail -n 1') || return
    while IFS= read -r line; do
        case $line in
        SubState=*) unit=${line#*=} ;;
        ExecMainCode=*) code=${line#*=} ;;
        ExecMainStatus=*) status=${line#*=} ;;
        *) last=$line ;;
        esac
    done <<<"$found"
    say "$unit; $last"
}

# Follow the run until it ends; fails where the workers can no longer be reached.
follow() {
    unit=running
    while look && [[ $unit == running ]]; do sleep "$poll"; done
    [[ $unit != running ]]
}

state >/dev/null # gcloud is there and logged in, or says what is wrong
while true; do
    now=$(state) || now=UNKNOWN
    case $now in
    "")
        request
        sleep "$poll"
        ;;
    ACTIVE)
        if start "$@" && follow; then
            if [[ $code == 1 && $status == 0 ]]; then
                say "the run is over"
                [[ ${KEEP:-0} == 1 ]] || remove
                exit 0
            elif [[ $code == 1 && $status != 75 ]]; then
                say "the run ended with status $status; mend what it says above and call this again. The slice is kept."
                exit "$status"
            fi
            # Stopped, or killed; the other workers may not have noticed yet.
            on all 'sudo systemctl stop aer_jax' || true
        fi
        say "looking again in $poll s"
        sleep "$poll"
        ;;
    SUSPENDED | FAILED)
        say "the slice was taken away; asking again"
        remove
        ;;
    *) sleep "$poll" ;; # waiting, being made, being removed
    esac
done
