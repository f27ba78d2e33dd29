#!/usr/bin/env bash
# What can only be known where there is a GPU: exactness, speed and training there, in under 8 minutes, as one JSON.
#
#   tools/on_gpu.sh OUT.json            on a machine with an NVIDIA GPU
#   tools/on_gpu.sh --dry OUT.json      the same steps, tiny and on the CPU, to see that the script itself runs
#
# PYTHON names the interpreter (default: .venv/bin/python). Needs the oracle in tests/oracle; nothing else is read.
set -euo pipefail
cd "$(dirname "$0")/.."
dry=""
if [[ "${1:-}" == "--dry" ]]; then dry="--dry"; shift; fi
out="${1:?usage: tools/on_gpu.sh [--dry] OUT.json}"
python="${PYTHON:-.venv/bin/python}"
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec timeout 480 "$python" -m tools.on_gpu $dry "$out"
