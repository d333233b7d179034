# shellcheck shell=bash
# Sourced by demo.sh, test.sh and gpu.sh: a virtual environment with the package and the named extras.
#   source launch/setup.sh EXTRA[,EXTRA]
# An active virtual environment is used as it is; otherwise .venv is made, or completed where an earlier try failed.
# Where there is no NVIDIA GPU, PyTorch is installed without CUDA. What fails ends the caller with a sentence.

setup_venv() {
    local python=${PYTHON:-python3} clear=
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "aer_jax needs Python 3.11 or newer; name one with PYTHON=/path/to/python bash $0" >&2
        return 2
    fi
    if [[ -n ${VIRTUAL_ENV:-} ]]; then
        [[ -x $VIRTUAL_ENV/bin/python ]] && return 0
        echo "the active virtual environment $VIRTUAL_ENV is gone; deactivate it" >&2
        return 2
    fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        # An interrupted `venv` leaves an interpreter without pip; a removed Python leaves a link to nothing.
        if [[ -L .venv/bin/python ]] && ! .venv/bin/python -c '' 2>/dev/null; then
            clear=--clear
        fi
        "$python" -m venv ${clear:+"$clear"} .venv || return 1
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
}

setup_packages() {
    local extras=$1 stamp
    if [[ $extras != *cuda* ]] && command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
        extras=$extras,cuda
    fi
    # A copy of the requirements, made after they were installed.
    stamp=$VIRTUAL_ENV/aer_jax-$(printf '%s' "$extras" | tr ',' '-').stamp
    if cmp -s pyproject.toml "$stamp"; then
        return 0
    fi
    echo "installing aer_jax[$extras] into $VIRTUAL_ENV"
    if [[ $extras != *cuda* && $(uname) == Linux ]] && ! python -c 'import torch' 2>/dev/null; then
        python -m pip install -q --retries 1 --timeout 30 --index-url https://download.pytorch.org/whl/cpu 'torch>=2.6,<3' ||
            echo "PyTorch's CPU packages cannot be reached; taking the default build" >&2
    fi
    python -m pip install -q -e ".[$extras]" || return 1
    cp pyproject.toml "$stamp.partial" || return 1
    mv "$stamp.partial" "$stamp"
}

# A function whose status is tested runs without `set -e`, so each step above that can fail says so itself.
if setup_venv && setup_packages "$1"; then
    :
else
    setup_status=$?
    echo "the environment is not complete; the same command goes on from here" >&2
    case $- in
    *i*) return "$setup_status" ;; # sourced by a person's shell, which stays
    *) exit "$setup_status" ;;
    esac
fi
