"""torch or ONNX Runtime as an implementation under audit, for norma's cmd:.

    norma run 'layernorm bf16 4x768' --impl cmd:"python3 -m norma.serve torch"
    norma eval cmd:"python3 -m norma.serve onnxruntime --dtype fp16" layernorm --in in.safetensors --out out.safetensors

Serves layernorm, rmsnorm, groupnorm, instancenorm, batchnorm, modulate, gated_residual and l2norm by the library's own CPU
operators, on one thread. --dtype converts every tensor first; without it each keeps its own. For each line of JSON on
standard input the answer is one line: ok, 'error unsupported TEXT' for what the library does not do, or 'error TEXT'.
"""

import argparse
import importlib
import json
import struct
import sys

from . import _safetensors

LIBRARIES = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx", "numpy")}
DTYPES = ("fp64", "fp32", "bf16", "fp16")
# norma's own defaults; a call carries only what a case gives.
EPS = {"layernorm": 1e-5, "rmsnorm": 1e-6, "groupnorm": 1e-5, "instancenorm": 1e-5, "batchnorm": 1e-5, "l2norm": 1e-12}
# What the libraries' operators can do of each attribute.
ONLY = {
    "eps_place": {"layernorm": "inside", "rmsnorm": "inside", "l2norm": "max"},
    "weight_offset": 0,
    "quant": "none",
    "correction": 0,
}
NOT_ATTRIBUTES = ("norm", "in", "out", "path", "profile")


class Unsupported(Exception):
    """The library does not do such a call; the message says what."""


def library(name):
    """The module that runs norms by this library, or the sentence why there is none."""
    for package in LIBRARIES[name]:
        try:
            importlib.import_module(package)
        except ImportError:
            hint = " (Debian: python3-%s)" % package if package in ("torch", "numpy") else ""
            return None, "%s has no package %s: pip install %s%s" % (sys.executable, package, package, hint)
    return importlib.import_module("._" + name, __package__), None


def check_attributes(norm, attributes):
    if norm not in EPS and norm not in ("modulate", "gated_residual"):
        raise Unsupported("norm '%s': served are %s" % (norm, " ".join(sorted([*EPS, "modulate", "gated_residual"]))))
    for name, only in ONLY.items():
        only = only.get(norm) if isinstance(only, dict) else only
        if name in attributes and attributes[name] != only:
            raise Unsupported("%s=%s: the operator of this library has %s" % (name, attributes[name], only))


def answer(line, run, dtype):
    try:
        call = json.loads(line)
        norm = call["norm"]
        attributes = {k: v for k, v in call.items() if k not in NOT_ATTRIBUTES}
        check_attributes(norm, attributes)
        attributes.setdefault("eps", EPS.get(norm))
        tensors = _safetensors.read(call["in"])
        _safetensors.write(call["out"], run(norm, tensors, attributes, dtype))
        return "ok"
    except Unsupported as refused:
        return "error unsupported " + one_line(refused)
    except (KeyError, ValueError, RuntimeError, OSError, TypeError, NotImplementedError, struct.error) as error:
        return "error %s: %s" % (type(error).__name__, one_line(error))


def one_line(error):
    return " ".join(str(error).split())


def main():
    parser = argparse.ArgumentParser(prog="python3 -m norma.serve", description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=sorted(LIBRARIES))
    parser.add_argument("--dtype", choices=DTYPES, help="convert every tensor to this first")
    options = parser.parse_args()
    module, missing = library(options.library)
    for line in sys.stdin:
        text = "error " + missing if missing else answer(line, module.norm, options.dtype)
        print(text, flush=True)


if __name__ == "__main__":
    # Under the name by which the libraries' modules import it, so that Unsupported is one class.
    importlib.import_module("norma.serve").main()
