#!/bin/sh
# Makes every recording in tests/golden/captures anew, in an environment of its own:
#
#     python/capture/capture_all.sh [FOLDER [VENV]]
#
# FOLDER defaults to tests/golden/captures, VENV to build/capture-venv; a VENV that exists is used as it is. Python 3.11,
# packages as pinned in requirements.txt. docs/captures.md says what is recorded. $PYTHON names the interpreter.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$root/tests/golden/captures}
venv=${2:-$root/build/capture-venv}
if [ ! -x "$venv/bin/python" ]; then
  "${PYTHON:-python3.11}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check --requirement "$here/requirements.txt"
fi
mkdir -p "$folder"
for script in rmsnorm torch_ops torch_norms torch_backward torch_gradients model_norms ada_groupnorm grn activations rope onnxruntime flax blocks blocks_flux blocks_fp8 blocks_images embedders; do
  echo "capture_$script.py" >&2
  OMP_NUM_THREADS=1 "$venv/bin/python" "$here/capture_$script.py" "$folder"
done
