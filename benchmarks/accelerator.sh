#!/bin/sh
# The rows of benchmarks/speed on an accelerator: one command, under eight minutes, and no network needed.
#
#     sh benchmarks/accelerator.sh DEVICE OUTPUT [WHEELS]
#
# DEVICE is cuda or mps (or cpu, to try the script). OUTPUT is a folder for speed.json (every round, with a description
# of the machine) and speed.txt. WHEELS is a folder of wheels, for a machine that has PyTorch and nothing else; make it
# where there is a network:
#
#     pip download -d WHEELS --no-deps pydantic pydantic-core annotated-types typing-extensions typing-inspection \
#         lazy-loader safetensors numpy packaging pytest pluggy iniconfig pygments pytest-benchmark py-cpuinfo
#
# Rows against LangChain and goodpoints are left out where these are not installed, and say so. A row whose target is
# missed fails; the others run on.
set -eu

device=$1 output=$2 wheels=${3:-}
cd "$(dirname "$0")/.."
mkdir -p "$output"
python=python3
if [ -n "$wheels" ]; then
    python3 -m venv --system-site-packages "$output/venv"
    python=$output/venv/bin/python
    "$python" -m pip install --quiet --no-index --find-links "$wheels" \
        pydantic lazy-loader safetensors numpy packaging pytest pytest-benchmark
fi
# Short rows first, so that a machine whose time ends has answered most of them.
PYTHONPATH=$PWD timeout 470 "$python" -m pytest benchmarks/speed -s -p no:cacheprovider --device "$device" --wall \
    --benchmark-json="$output/speed.json" 2>&1 | tee "$output/speed.txt"
