#!/usr/bin/env python3
"""Shows how the texts that golden tests received differ from the approved ones; with --write, accepts them.

  ./run test && tests/approve.py            the differences
  tests/approve.py --write reports          accept those whose name contains "reports"
"""
import argparse
import difflib
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", default="", help="only files with this in their name")
    parser.add_argument("--build", default="build", help="build folder (default: build)")
    parser.add_argument("--write", action="store_true", help="make the received texts the approved ones")
    arguments = parser.parse_args()

    folder = ROOT / arguments.build / "tests" / "received"
    received = sorted(file for file in folder.rglob("*") if file.is_file() and arguments.name in str(file.relative_to(folder)))
    for file in received:
        name = file.relative_to(folder)
        approved = GOLDEN / name
        before = approved.read_text() if approved.exists() else ""
        sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), file.read_text().splitlines(True),
                                                   f"approved/{name}", f"received/{name}"))
        if arguments.write:
            approved.parent.mkdir(parents=True, exist_ok=True)
            file.replace(approved)
            print(f"accepted {name}")
    if not received:
        print(f"nothing to approve in {folder}")
    return 1 if received and not arguments.write else 0


if __name__ == "__main__":
    sys.exit(main())
