"""Checks the proofs in this folder with Gappa. Ends with 77 where there is no gappa.

Each file must be proved, and its constants must stand in function_loops.inc as they stand in the proof. With --weaken
each must also fail once a bound of its goal is 2^-70: a proof that cannot fail proves nothing.
"""
import pathlib
import re
import shutil
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
LOOPS = FOLDER.parent / "function_loops.inc"
NUMBER = re.compile(r"-?0x1\.?[0-9a-f]*p[+-]\d+")


def proves(text):
    run = subprocess.run(["gappa", "-Bnull"], input=text, text=True, capture_output=True, timeout=300)
    return run.returncode == 0, run.stderr


def main():
    if shutil.which("gappa") is None:
        print("There is no gappa, so the proofs were not checked; apt-get install gappa brings it.")
        return 77
    loops = LOOPS.read_text()
    failures = 0
    for path in sorted(FOLDER.glob("*.gappa")):
        text = path.read_text()
        proved, message = proves(text)
        goal = re.search(r"->[^<]*<= (0x[0-9a-fp.+-]+|\d+b-\d+)", text)
        weakened = text[: goal.start(1)] + "1b-70" + text[goal.end(1) :]
        vacuous = "--weaken" in sys.argv and proves(weakened)[0]
        code = re.sub(r"#.*", "", text).split("{")[0]
        strange = [n for n in NUMBER.findall(code) if n.lstrip("-") not in loops]
        verdict = "proved"
        if strange:
            verdict = "not about the code, which has no " + ", ".join(strange)
        if vacuous:
            verdict = "proves nothing: it holds with the bound 2^-70 too"
        if not proved:
            verdict = "not proved"
        print(f"{path.name}: {verdict}")
        if verdict != "proved":
            print(message)
            failures += 1
    return 1 if failures else 0


sys.exit(main())
