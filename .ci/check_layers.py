#!/usr/bin/env python3
"""Checks that a folder includes only what stands before it (design.md, section 3).

Reads what the compiler itself recorded: ninja's dependency log, or *.d files. Each object is checked against every
project file that its compilation opened, and each of these files against the includes written in it, so that a
header's fault is named where it stands.

  check_layers.py [BUILD_FOLDER]    0: in order; 1: one line a violation; 2: nothing to check
  check_layers.py --self-test       the check must find planted violations
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

# Each folder includes itself and what stands above it. A file belongs to the longest folder that holds it.
LAYERS = [
    "reference/formats",
    "reference/program",
    "reference/exact",
    "reference/certified",
    "reference/norms",
    "reference/blocks",
    "impls",
    "impls/cast_paths",
    "impls/emulate",
    "impls/cpu",
    "impls/cuda",
    "impls/library",
    "impls/plugin",
    "impls/recorded",
    "harness/cases",
    "harness/inputs",
    "harness/metrics",
    "harness/judge",
    "harness/trace",
    "harness/run",
    "harness/audit",
    "harness",
    "reports",
    "cli",
    "bench",
    "python",
    "tests",
]

# On top of the order: (who, may not include whom, why).
FORBIDDEN = [
    (
        "impls",
        ["reference/exact", "reference/certified", "reference/norms", "reference/blocks"],
        "the oracle shares nothing with what it judges",
    ),
    ("reports", ["impls"], "a view tells what a run recorded and computes nothing"),
]

SOURCE = re.compile(r"\.(c|cc|cpp|cxx|cu|h|hpp|cuh|inc|def)$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)


def within(folder, other):
    return folder == other or folder.startswith(other + "/")


def layer_of(file):
    """The layer that a file, relative to the root, belongs to; None if the table has none."""
    holding = [layer for layer in LAYERS if within(file, layer) and file != layer]
    return max(holding, key=len) if holding else None


def objection(file, included):
    """Why `file` may not include `included`; None if it may."""
    user, used = layer_of(file), layer_of(included)
    for who, whom, why in FORBIDDEN:
        if within(user, who) and any(within(used, folder) for folder in whom):
            return f"{who}/ may not include {used}/: {why}"
    if LAYERS.index(used) > LAYERS.index(user):
        return f"{used}/ stands after {user}/"
    return None


class Tree:
    def __init__(self, root, build):
        self.root, self.build = root.resolve(), build.resolve()

    def name(self, path):
        """`path`, as the compiler wrote it, relative to the root; None if it is no file of the project.

        A generated header in the build folder counts as one beside its template.
        """
        path = pathlib.Path(path)
        path = (path if path.is_absolute() else self.build / path).resolve()
        if not SOURCE.search(path.name):
            return None
        if path.is_relative_to(self.build):
            file = path.relative_to(self.build).as_posix()
            return file if layer_of(file) else None
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None

    def written_includes(self, file):
        """(line, included file) for each include of a project file that is written in `file`."""
        path = self.root / file
        if not path.is_file():
            return
        text = path.read_text(errors="replace")
        for match in INCLUDE.finditer(text):
            for base in (path.parent, self.root):
                included = self.name(base / match[1])
                if included and (self.root / included).is_file():
                    yield text.count("\n", 0, match.start()) + 1, included
                    break


def parse_ninja(text):
    """Yields the list of files behind each object of `ninja -t deps`."""
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and "#deps" in lines[0] and "(VALID)" in lines[0]:
            yield [line.strip() for line in lines[1:]]


def parse_depfile(text):
    """Yields the list of files behind the object of a *.d file."""
    _, _, files = text.replace("\\\n", " ").partition(": ")
    yield [word.replace("\\ ", " ") for word in re.split(r"(?<!\\)\s+", files.strip()) if word]


def compilations(build):
    if (build / "build.ninja").is_file():
        command = ["ninja", "-C", str(build), "-t", "deps"]
        yield from parse_ninja(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for depfile in build.rglob("*.d"):
        if "CMakeFiles" in depfile.parts and (depfile.with_suffix("").is_file() or depfile.with_suffix(".o").is_file()):
            yield from parse_depfile(depfile.read_text(errors="replace"))


def check(tree, file_lists):
    """Returns (violations, project files seen, objects seen)."""
    violations, seen, objects = set(), set(), 0
    opened_by = []
    for files in file_lists:
        names = [name for name in map(tree.name, files) if name]
        # The first file is the one that was compiled; an object made from no file of ours is not ours.
        if not names or not files or tree.name(files[0]) != names[0]:
            continue
        objects += 1
        seen.update(names)
        opened_by.append((names[0], names[1:]))

    lost = {file for file in seen if not layer_of(file)}
    violations.update(f"{file}: its folder has no place in LAYERS (.ci/check_layers.py)" for file in lost)

    accused = set()
    for file in sorted(seen - lost):
        for line, included in tree.written_includes(file):
            if layer_of(included) and (reason := objection(file, included)):
                violations.add(f"{file}:{line}: includes {included}: {reason}")
                accused.add(included)
    # What a compilation opened by way of others; where the include that led there is at fault itself, it was named.
    for source, files in opened_by:
        for included in files:
            if source in lost or included in lost or included in accused:
                continue
            if reason := objection(source, included):
                violations.add(f"{source}: reaches {included} through another header: {reason}")
    return sorted(violations), len(seen), objects


def self_test():
    files = {
        "reference/formats/format.hpp": "",
        "reference/exact/real.hpp": '#include "reference/formats/format.hpp"\n',
        "harness/run/record.hpp": '#include "reference/exact/real.hpp"\n',
        "impls/cpu/good.cpp": '#include "reference/formats/format.hpp"\n',
        "impls/cpu/peeks.cpp": '// line one\n#include "reference/exact/real.hpp"\n',
        "impls/cpu/detour.hpp": '#include "impls/plugin/door.hpp"\n',
        "impls/plugin/door.hpp": "",
        "reference/exact/upward.cpp": '#include "harness/run/record.hpp"\n',
        "harness/judge/bridge.hpp": '#include "impls/cpu/good.hpp"\n',
        "impls/cpu/good.hpp": "",
        "reports/through.cpp": '#include "harness/judge/bridge.hpp"\n',
        "nowhere/lost.cpp": "",
        "cli/all.cpp": '#include "impls/cpu/detour.hpp"\n',
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        tree = Tree(root, root / "build")

        def found(*compiled):
            text = "".join(
                f"{i}.o: #deps {len(c)}, deps mtime 1 (VALID)\n" + "".join(f"    ../{f}\n" for f in c) + "\n"
                for i, c in enumerate(compiled)
            )
            return check(tree, parse_ninja(text))

        formats, real, record = "reference/formats/format.hpp", "reference/exact/real.hpp", "harness/run/record.hpp"
        bridge, detour, door = "harness/judge/bridge.hpp", "impls/cpu/detour.hpp", "impls/plugin/door.hpp"
        assert found(["impls/cpu/good.cpp", formats]) == ([], 2, 1)
        assert found() == ([], 0, 0)
        # The compiler's own file lists hold the system's headers too; these do not count.
        assert check(tree, [["/usr/include/stdio.h"]]) == ([], 0, 0)
        expected = {
            "impls/cpu/peeks.cpp:2: includes reference/exact/real.hpp: impls/ may not": [
                "impls/cpu/peeks.cpp", real, formats],
            "reference/exact/upward.cpp:1: includes harness/run/record.hpp: harness/run/ stands after": [
                "reference/exact/upward.cpp", record, real, formats],
            "impls/cpu/detour.hpp:1: includes impls/plugin/door.hpp: impls/plugin/ stands after": [
                "cli/all.cpp", detour, door],
            "reports/through.cpp: reaches impls/cpu/good.hpp through another header: reports/ may not": [
                "reports/through.cpp", bridge, "impls/cpu/good.hpp"],
            "nowhere/lost.cpp: its folder has no place": ["nowhere/lost.cpp"],
        }
        for start, compiled in expected.items():
            violations, _, _ = found(compiled)
            assert len(violations) == 1 and violations[0].startswith(start), (start, violations)
        depfile = "x.o: \\\n ../impls/cpu/peeks.cpp \\\n ../reference/exact/real.hpp\n"
        assert len(check(tree, parse_depfile(depfile))[0]) == 1
    print(f"check_layers: the self-test found all {len(expected)} planted violations")
    return 0


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?", type=pathlib.Path, default=root / "build", help="default: build")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        return self_test()

    violations, files, objects = check(Tree(root, options.build), compilations(options.build))
    if objects == 0:
        print(f"check_layers: {options.build} has no record of a compiled project file; build first", file=sys.stderr)
        return 2
    for violation in violations:
        print(violation, file=sys.stderr)
    print(f"check_layers: {files} files in {objects} compilations, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
