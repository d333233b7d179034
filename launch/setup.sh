# shellcheck shell=bash
# Sourced by demo.sh, test.sh and gpu.sh: an environment with the package and the named extras, made once.
#   source launch/setup.sh EXTRA[,EXTRA]
# An active virtual environment is used as it is; otherwise .venv is made. Where there is no NVIDIA GPU, PyTorch comes
# without CUDA.

extras=$1
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "aer_jax needs Python 3.11 or newer; name one with PYTHON=/path/to/python bash $0" >&2
    exit 2
fi
if [[ -z ${VIRTUAL_ENV:-} ]]; then
    [[ -x .venv/bin/python ]] || "$python" -m venv .venv
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
if [[ $extras != *cuda* ]] && command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    extras=$extras,cuda
fi

# What was installed last time: nothing to do while neither the extras nor the requirements change.
stamp=$VIRTUAL_ENV/aer_jax-$(printf '%s' "$extras" | tr ',' '-').stamp
if ! cmp -s pyproject.toml "$stamp"; then
    echo "installing aer_jax[$extras] into $VIRTUAL_ENV"
    if [[ $extras != *cuda* && $(uname) == Linux ]] && ! python -c 'import torch' 2>/dev/null; then
        python -m pip install -q --retries 1 --timeout 30 --index-url https://download.pytorch.org/whl/cpu 'torch>=2.6,<3' ||
            echo "PyTorch's CPU packages cannot be reached; taking the default build" >&2
    fi
    python -m pip install -q -e ".[$extras]"
    cp pyproject.toml "$stamp"
fi
