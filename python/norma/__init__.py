"""How exact is this normalization? The Python client of the norma program.

    import norma

    norma.assert_norm("rmsnorm", x=x, weight=w, eps=1e-6, y=y, limit="max_ulp<=1.5")
    result = norma.check("rmsnorm", x=x, weight=w, eps=1e-6, y=y, path="bfl.flux.rmsnorm")
    print(result.verdict, result.measures["max_ulp"])
    lo, hi = (norma.truth("rmsnorm", x=x, weight=w, eps=1e-6)[name] for name in ("lo", "hi"))

Arrays are numpy's (bfloat16 and fp8 by ml_dtypes) or torch's; every other keyword is an attribute of the norm.
The program is looked for in $NORMA, then on PATH, then in the checkout that this file stands in.
"""

import json
import math
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile

from . import _safetensors, _tensors

__version__ = "0.1.0"
__all__ = ["NormaError", "Result", "assert_norm", "check", "find_program", "truth"]


class NormaError(RuntimeError):
    """The program is missing, or could not do what it was asked; the message is its own sentence."""


class Result:
    """What `check` found. True if it passed.

    verdict   pass, fail, skip or vacuous
    reason    why it is not a pass
    measures  every figure by its name in a limit: max_ulp, differing, ...; of outputs other than y with the
              output's name before it: scale.max_ulp. NaN where there is none.
    text      for people: got, want, exact, error, bound, and the command that repeats the check
    exit      the program's exit code
    record    the whole record, as run.jsonl holds it
    """

    def __init__(self, record, exit_code, command):
        self.record = record
        self.exit = exit_code
        self.verdict = record["verdict"]
        self.reason = record.get("reason", "")
        self.measures = _measures(record.get("outputs", {}))
        self.text = _text(record, self.verdict, command)

    def __bool__(self):
        return self.verdict == "pass"

    def __repr__(self):
        return self.text


def find_program():
    """The path of the norma program; NormaError if there is none."""
    named = os.environ.get("NORMA")
    if named:
        found = shutil.which(named)
        if found is None:
            raise NormaError("$NORMA is '%s', which is no program" % named)
        return found
    found = shutil.which("norma")
    if found is not None:
        return found
    built = pathlib.Path(__file__).resolve().parents[2] / "build" / "bin" / "norma"
    if os.access(built, os.X_OK):
        return str(built)
    raise NormaError(
        "there is no norma program: not in $NORMA, not on PATH, not at %s ('./run build' makes it)" % built
    )


def check(norm, *, y=None, outputs=None, path=None, profile=None, limit=(), keep=None, timeout=None, **named):
    """Judges y, and further outputs by name, that a kernel made from the tensors and attributes in `named`.

    limit    'max_ulp<=1.5', or several. All must hold.
    path     a cast path, by name or as FILE.path. Without a limit the output must have its bits
             ('differing<=0').
    keep     a folder that keeps the tensors of a check that did not pass, for the command in `text`; by default
             $NORMA_KEEP, if it is set.

    With neither limit nor path the measures are taken and the verdict is skip. NormaError for a call that
    norma refuses.
    """
    tensors, attributes = _split(named)
    results = dict(outputs or {})
    if y is not None:
        results["y"] = y
    if "y" not in results and "dx" not in results:
        raise ValueError("check needs the output to judge: y=..., or outputs={'dx': ...} of a gradient")
    limits = [limit] if isinstance(limit, str) else list(limit)
    if path is not None and path != "auto" and not limits:
        limits = ["differing<=0"]
    arguments = _attribute_arguments(attributes)
    if path is not None:
        arguments += ["--path", str(path)]
    if profile is not None:
        arguments += ["--set", "profile=%s" % profile]
    for one in limits:
        arguments += ["--limit", one]
    packed_inputs = {name: _tensors.pack(name, value) for name, value in tensors.items()}
    packed_outputs = {name: _tensors.pack(name, value) for name, value in results.items()}
    with tempfile.TemporaryDirectory(prefix="norma-") as folder:
        where = pathlib.Path(folder)
        files = _write(where, packed_inputs, packed_outputs)
        done = _run(["check", norm] + files + arguments + ["--json"], timeout)
        if done.returncode not in (0, 1):
            raise NormaError(_last_words(done))
        record = _record(done)
    keep = keep or os.environ.get("NORMA_KEEP")
    if keep and record["verdict"] != "pass":
        where = pathlib.Path(tempfile.mkdtemp(prefix="%s-" % norm, dir=_folder(keep)))
        files = _write(where, packed_inputs, packed_outputs)
    else:
        files = ["--in", "FILE"]
    return Result(record, done.returncode, ["norma", "check", norm] + files + arguments)


def assert_norm(norm, *, path=None, limit=(), **named):
    """As `check`; AssertionError with its text unless the verdict is pass. A criterion is required."""
    if not path and not limit:
        raise ValueError("assert_norm needs a criterion: limit='max_ulp<=1', or path=... for its bits")
    if path == "auto" and not limit:
        raise ValueError("path='auto' lists paths and holds nothing; give limit=... or the path's name")
    result = check(norm, path=path, limit=limit, **named)
    if not result:
        raise AssertionError(result.text)


def truth(norm, *, round_to=None, timeout=None, **named):
    """Certified bounds lo <= y <= hi of the real result, in binary64, and with round_to='bf16' y rounded once,
    as {'lo', 'hi', 'rounded'}; other outputs as 'NAME.lo', .... Arrays of x's library."""
    tensors, attributes = _split(named)
    arguments = _attribute_arguments(attributes)
    if round_to is not None:
        arguments += ["--round-to", round_to]
    with tempfile.TemporaryDirectory(prefix="norma-") as folder:
        source, target = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
        _safetensors.write(source, {name: _tensors.pack(name, value) for name, value in tensors.items()})
        done = _run(["eval", "truth", norm, "--in", source, "--out", target] + arguments, timeout)
        if done.returncode != 0:
            raise NormaError(_last_words(done))
        found = _safetensors.read(target)
    like = tensors.get("x")
    return {name: _tensors.unpack(tensor, like) for name, tensor in found.items()}


def _split(named):
    tensors = {name: value for name, value in named.items() if value is not None and _tensors.is_tensor(value)}
    attributes = {name: value for name, value in named.items() if value is not None and name not in tensors}
    if "x" not in tensors:
        raise ValueError("there is no array x")
    return tensors, attributes


def _attribute_arguments(attributes):
    arguments = []
    for name, value in attributes.items():
        if hasattr(value, "item"):  # numpy's scalars
            value = value.item()
        # repr of a float is the shortest text that reads back as the same binary64.
        text = value if isinstance(value, str) else repr(float(value))
        arguments += ["--set", "%s=%s" % (name, text)]
    return arguments


def _folder(path):
    os.makedirs(path, exist_ok=True)
    return path


def _write(folder, inputs, outputs):
    _safetensors.write(folder / "in.safetensors", inputs)
    _safetensors.write(folder / "got.safetensors", outputs)
    return ["--in", str(folder / "in.safetensors"), "--got", str(folder / "got.safetensors")]


def _run(arguments, timeout):
    try:
        return subprocess.run(
            [find_program()] + arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise NormaError("norma gave no answer within %g s" % timeout) from None


def _last_words(done):
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1] if said else "norma ended with exit code %d and said nothing" % done.returncode


def _record(done):
    """--json prints one record, or one among other lines."""
    try:
        return json.loads(done.stdout)
    except ValueError:
        pass
    for line in done.stdout.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("kind") == "record":
            return value
    raise NormaError("norma check printed no record: " + _last_words(done))


def _number(value):
    return math.nan if value is None else float(value)


def _measures(outputs):
    measures = {}
    for name, m in outputs.items():
        prefix = "" if name in ("y", "dx") else name + "."
        for key, value in _measures_of(m).items():
            measures[prefix + key] = value
    return measures


def _measures_of(m):
    ulp, counts = m["ulp"], m["counts"]
    compared = counts["compared"]
    share = lambda part, of: part / of if of else math.nan
    measures = {
        "max_ulp": _number(ulp["max"]),
        "mean_ulp": _number(ulp["mean_abs"]),
        "rms_ulp": _number(ulp["rms"]),
        "bias_ulp": abs(_number(ulp["bias"])),
        "max_condition_ulp": _number(m["condition_ulp"]["max"]),
        "mean_condition_ulp": _number(m["condition_ulp"]["mean_abs"]),
        "incorrect": compared - m["rounding"]["correct"],
        "unfaithful": compared - m["rounding"]["faithful"],
        "incorrect_share": share(compared - m["rounding"]["correct"], compared),
        "unfaithful_share": share(compared - m["rounding"]["faithful"], compared),
        "relative_l2": _number(m["relative_l2"]),
        "angle": _number(m["angle"]),
    }
    for quantile, value in ulp["quantiles"].items():
        measures["p%s_ulp" % quantile[2:].ljust(2, "0")] = _number(value)
    for name in ("nan_unexpected", "nan_missing", "inf_unexpected", "inf_missing", "underflow", "subnormal",
                 "overflow", "undecided", "beyond_scale"):
        measures[name] = counts[name]
    conformance = m.get("conformance")
    differing = conformance["of"] - conformance["equal"] if conformance else math.nan
    measures["differing"] = differing
    measures["differing_share"] = share(differing, m["elements"])
    for part in ("definition", "path", "implementation"):
        figures = m["split"].get(part)
        for figure in ("bias", "max", "rms"):
            value = _number(figures[figure]) if figures else math.nan
            measures["%s_%s" % (part, figure)] = abs(value) if figure == "bias" else value
    return measures


def _text(record, verdict, command):
    """Got, want, exact, error, bound, repro: one fact a line."""
    lines = ["norma: %s  %s" % (verdict, record.get("case", ""))]
    if record.get("reason"):
        lines.append("  why     " + record["reason"])
    for name, m in record.get("outputs", {}).items():
        if verdict == "pass":
            lines.append("  error   %s: %.3g ulp at most, %.3g on average, over %d elements"
                         % (name, _number(m["ulp"]["max"]), _number(m["ulp"]["mean_abs"]), m["counts"]["compared"]))
            continue
        for worst in m.get("worst", [])[:1]:
            lines.append("  at      %s[%s]" % (name, ", ".join(str(i) for i in worst["at"] or [])))
            lines.append("  got     %s  %s" % (worst["got"], worst["got_value"]))
            if worst.get("ideal"):
                lines.append("  want    %s  (the path's ideal)" % worst["ideal"])
            lines.append("  exact   %s" % worst["truth"])
            parts = [(part, worst.get(part)) for part in ("definition", "path", "implementation")]
            split = ", ".join("%s %.3g" % (part, _number(value)) for part, value in parts if value is not None)
            lines.append("  error   %.3g ulp of %s%s" % (_number(worst["ulp"]), m["format"], split and ": " + split))
        compared = m["counts"]["compared"]
        count = "%d of %d elements are not correctly rounded" % (compared - m["rounding"]["correct"], compared)
        conformance = m.get("conformance")
        if conformance:
            count += ", %d of %d differ from the ideal" % (conformance["of"] - conformance["equal"], conformance["of"])
        lines.append("  count   " + count)
    for criterion in record.get("criteria", []):
        lines.append("  bound   %s  %s (%s)" % (criterion["text"], "holds" if criterion["held"] else "does not hold",
                                               criterion["measured"]))
    if verdict != "pass":
        if "FILE" in command:
            lines.append("          (with NORMA_KEEP=FOLDER in the environment the tensors are kept there)")
        lines.append("  repro   " + " ".join(shlex.quote(word) for word in command))
    return "\n".join(lines)
