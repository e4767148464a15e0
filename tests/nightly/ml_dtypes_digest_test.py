"""Recomputes the recorded digests of ml_dtypes' conversions; exits 77 where ml_dtypes is not installed."""

import json
import pathlib
import runpy
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

try:
    import ml_dtypes  # noqa: F401
except ImportError:
    print("skipped: this Python has no ml_dtypes; pip install -r python/capture/requirements.txt in a venv")
    sys.exit(77)

recorded = json.loads((ROOT / "tests/golden/ml_dtypes_digests.json").read_text())
with tempfile.TemporaryDirectory() as folder:
    made = pathlib.Path(folder) / "digests.json"
    sys.argv = ["ml_dtypes_digest.py", str(made)]
    runpy.run_path(str(ROOT / "python/capture/ml_dtypes_digest.py"), run_name="__main__")
    again = json.loads(made.read_text())
differing = [name for name in recorded["formats"] if recorded["formats"][name] != again["formats"].get(name)]
print("recorded by %s, recomputed by %s: %s" % (recorded["version"], again["version"], differing or "all equal"))
sys.exit(1 if differing else 0)
