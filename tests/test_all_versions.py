"""``make test-all``: which interpreters are found, what is installed, and what the table tells."""

from __future__ import annotations

import sys

import all_versions
import pytest

THIS = "{}.{}".format(*sys.version_info[:2])
OTHER = next(version for version in all_versions.VERSIONS if version != THIS)


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    """No other Python can be found but those that a test puts into this folder, which is on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(file, answer):
    """A command that prints ``answer``, whatever it is asked."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho {answer}\n")
    file.chmod(0o755)
    return str(file)


def test_this_python_is_found_for_its_own_version():
    assert all_versions.interpreter(THIS) == sys.executable


def test_a_python_is_found_on_the_path_and_else_where_pyenv_keeps_it(tmp_path):
    assert all_versions.interpreter(OTHER) is None
    kept = put(tmp_path / "pyenv" / "versions" / f"{OTHER}.7" / "bin" / "python", OTHER)
    assert all_versions.interpreter(OTHER) == kept
    found = put(tmp_path / f"python{OTHER}", OTHER)
    assert all_versions.interpreter(OTHER) == found


def test_a_command_that_is_another_version_or_does_not_start_is_not_taken(tmp_path):
    put(tmp_path / f"python{OTHER}", "no such version is installed")
    (tmp_path / "pyenv" / "versions" / f"{OTHER}.7" / "bin").mkdir(parents=True)
    (tmp_path / "pyenv" / "versions" / f"{OTHER}.7" / "bin" / "python").touch(0o755)
    assert all_versions.interpreter(OTHER) is None


def test_the_lowest_dependencies_are_those_with_which_setup_cfg_begins():
    lowest, newest = (all_versions.requirements(way) for way in all_versions.DEPENDENCIES)
    assert "Flask==3.0" in lowest
    assert "Flask>=3.0" in newest
    assert {each for each in lowest if "==" not in each} < set(newest)


def test_a_python_that_is_not_found_is_told_and_that_none_is_found_is_a_failure(capsys):
    assert all_versions.main(["--python", OTHER]) == 1
    told = capsys.readouterr().out
    assert [line.split() for line in told.splitlines() if line.startswith(OTHER)] == [
        [OTHER, "lowest", "not", "found"],
        [OTHER, "newest", "not", "found"],
    ]
    assert "no Python was found" in told


def test_what_cannot_be_installed_is_a_failure_and_told(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(all_versions, "FOLDER", tmp_path / "environments")
    broken = tmp_path / f"python{OTHER}"
    broken.write_text(f'#!/bin/sh\n[ "$1" = -m ] && exit 1\necho {OTHER}\n')
    broken.chmod(0o755)
    assert all_versions.main(["--python", OTHER, "--with", "lowest"]) == 1
    assert f"{OTHER}    lowest   FAILED: the dependencies cannot be installed" in capfd.readouterr().out
