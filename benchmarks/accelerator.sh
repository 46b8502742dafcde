#!/bin/sh
# The rows of benchmarks/speed on an accelerator: one command, under eight minutes, and no network needed.
#
#     sh benchmarks/accelerator.sh DEVICE OUTPUT [WHEELS]
#
# DEVICE is cuda or mps (or cpu, to try the script). OUTPUT is a folder for speed.json (every round, with a description
# of the machine) and speed.txt. WHEELS is a folder of wheels, for a machine whose Python has PyTorch and nothing else;
# make it where there is a network:
#
#     pip download -d WHEELS --no-deps pydantic pydantic-core annotated-types typing-extensions typing-inspection \
#         lazy-loader safetensors numpy scipy packaging pytest pluggy iniconfig pygments pytest-benchmark py-cpuinfo2
#
# Rows against LangChain and goodpoints are left out where these are not installed, and say so. A row whose target is
# missed fails, the others run on, and the script ends well: the table is what counts.
set -eu

device=$1
mkdir -p "$2"
output=$(cd "$2" && pwd)
packages=
if [ -n "${3:-}" ]; then
    packages=$output/packages:
    python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$output/packages" "$3"/*.whl
fi
cd "$(dirname "$0")/.."
# Without the project's own settings of pytest, which name plugins that are not needed here.
PYTHONPATH=$packages$PWD python3 -m pytest -c /dev/null --rootdir . benchmarks/speed -s -p no:cacheprovider \
    --device "$device" --wall --benchmark-json="$output/speed.json" 2>&1 | tee "$output/speed.txt"
