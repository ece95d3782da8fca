"""The tests on every Python that is found, with the lowest and the newest dependencies: ``make test-all``.

    python tests/all_versions.py                          # each Python, each with the lowest and the newest
    python tests/all_versions.py --python 3.12 --with lowest
    python tests/all_versions.py --everything             # the heavy files, too
    python tests/all_versions.py -- tests/test_rwlock.py  # what follows is pytest's

Each pair has a virtual environment of its own under ``.venv-all/``, made anew when the requirements have changed. A
Python that is not found is told in the table and is no failure; that none is found is one.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-all"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
DEPENDENCIES = ("lowest", "newest")
#: Many real processes for a long time, and nothing that another Python or Flask would change: the processes of
#: ``test_servers.py`` and of ``test_cluster.py`` show whether it works there.
HEAVY = (
    "cluster_*",
    "fault_matrix",
    "load",
    "demo",
    "package",
    "*_cluster",
    "protocol_simulation",
    "watch",
    "bench_*",
    "tutorial",
)


class Row(NamedTuple):
    """What came of one pair. ``failed``: whether that is a fault."""

    python: str
    dependencies: str
    told: str
    failed: bool = False


def interpreter(version: str) -> str | None:
    """A Python of that version from the PATH, or else from pyenv; one that does not start is none."""
    return next((each for each in _candidates(version) if _version_of(each) == version), None)


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True))


def _version_of(python: str) -> str | None:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def requirements(dependencies: str) -> list[str]:
    """Of the tests; and for ``lowest``, of the package itself, each at the version with which it begins."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    own = config["options"]["install_requires"].split()
    if dependencies == "lowest":
        own = [each.replace(">=", "==") for each in own]
    return [*own, *config["options.extras_require"]["test"].split()]


def environment(python: str, version: str, dependencies: str) -> Path:
    """The Python of a virtual environment that holds the package and what its tests need."""
    folder = FOLDER / f"{version}-{dependencies}"
    inside, ready = folder / "bin" / "python", folder / "ready"
    required = requirements(dependencies)
    if ready.exists() and ready.read_text("utf-8").split("\n") == required:
        return inside
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-e", str(ROOT), *required], check=True)
    ready.write_text("\n".join(required), "utf-8")
    return inside


def run(version: str, dependencies: str, options: argparse.Namespace) -> Row:
    """Make the environment, run the tests in it, and tell what came of it."""
    python = interpreter(version)
    if python is None:
        return Row(version, dependencies, "not found")
    print(f"\n=== Python {version} ({python}), {dependencies} dependencies", flush=True)
    began = monotonic()
    try:
        inside = environment(python, version, dependencies)
    except subprocess.CalledProcessError:
        return Row(version, dependencies, "FAILED: the dependencies cannot be installed", failed=True)
    ignored = [] if options.everything else [f"--ignore-glob=tests/test_{name}.py" for name in HEAVY]
    marks = ["-n", "2", "--dist", "loadfile", "-m", "not long and not alone", "-p", "no:cacheprovider"]
    status, summary = _shown([str(inside), "-m", "pytest", "-q", *marks, *ignored, *options.pytest])
    told = f"{_versions_in(inside)}: {summary}, {monotonic() - began:.0f} s"
    return Row(version, dependencies, told if status == 0 else f"FAILED: {told}", failed=status != 0)


def _shown(command: list[str]) -> tuple[int, str]:
    """Run it, show what it prints while it runs; its exit status, and its last line without ornament."""
    last = "no output"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, re.sub(r"^=+ | =+$| in [\d.]+s.*", "", last)


def _versions_in(python: Path) -> str:
    code = "from importlib.metadata import version as v; print('Flask', v('flask') + ', Werkzeug', v('werkzeug'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str]) -> int:
    """The exit status: 0 if all that ran has passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", choices=VERSIONS, action="append", help="only this one; may be repeated")
    parser.add_argument("--with", choices=DEPENDENCIES, action="append", dest="dependencies", help="only these")
    parser.add_argument("--everything", action="store_true", help="the heavy files, too")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    pairs = [(each, way) for each in options.python or VERSIONS for way in options.dependencies or DEPENDENCIES]
    rows = [run(version, dependencies, options) for version, dependencies in pairs]
    print(f"\n{'Python':8}{'with':9}outcome\n{'-' * 78}")
    for row in rows:
        print(f"{row.python:8}{row.dependencies:9}{row.told}")
    if all(row.told == "not found" for row in rows):
        print("no Python was found: nothing was tested")
        return 1
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
