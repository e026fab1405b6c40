#!/bin/sh
# Create a virtual environment with neuralforecast, to measure beside it:
#   sh tests/benchmarks/setup_neuralforecast.sh FOLDER
set -eu
folder=${1:?usage: setup_neuralforecast.sh FOLDER}
python3 -m venv "$folder"
# torch first, without CUDA: the same version on both sides of a comparison.
"$folder/bin/pip" install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu ||
    "$folder/bin/pip" install torch==2.13.0
"$folder/bin/pip" install neuralforecast==3.3.0
"$folder/bin/python" -c "import neuralforecast; print('neuralforecast', neuralforecast.__version__)"
