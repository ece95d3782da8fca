"""A built wheel in an empty environment: it holds what it should, and needs only what it says."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from wheels import build_wheel

ROOT = Path(__file__).parent.parent
TOML_TABLE = re.compile(r"^\[(?P<name>[^\]]+)\]$", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def run(*command: str, cwd: Path | None = None) -> str:
    """What the command prints. It sees neither this environment's packages nor the repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def required(metadata: Message) -> set[str]:
    """The names of what is installed with it, without extras."""
    requirements = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower() for requirement in requirements}


def test_the_wheel_holds_every_module_and_script_and_the_mark_of_typed_packages(wheel: Path) -> None:
    folder = ROOT / "flask_hotreload"
    here = {file.relative_to(ROOT).as_posix() for kind in ("*.py", "*.lua") for file in folder.rglob(kind)}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == here | {"flask_hotreload/py.typed"}


def test_it_runs_on_every_python_and_brings_nothing_but_flask_and_msgspec(wheel: Path, metadata: Message) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert required(metadata) <= {"flask", "werkzeug", "msgspec", "itsdangerous", "blinker"}
    assert {"flask", "msgspec"} <= required(metadata)
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] or metadata["License"]


def test_it_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    python = str(tmp_path / "empty" / "bin" / "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", str(wheel))
    (tmp_path / "service.py").write_text(
        "from flask import Flask\n"
        "from flask_hotreload import HotRPC\n"
        "app = Flask(__name__)\n"
        "rpc = HotRPC(app)\n"
        "@rpc.dispatcher('/api')\n"
        "def edition() -> int:\n"
        "    return 1\n"
    )
    (tmp_path / "try_it.py").write_text(
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "import flask_hotreload, service\n"
        "assert 'site-packages' in flask_hotreload.__file__, flask_hotreload.__file__\n"
        "open('later.py', 'w').write('def edition() -> int: return 2')\n"
        "service.rpc.reload([{'dispatcher': 'edition', 'scriptPath': 'later.py', 'path': '/api'}])\n"
        "print(service.app.test_client().post('/api/edition').json)\n"
    )
    assert run(python, "try_it.py", cwd=tmp_path) == "2\n"
    flask = run(python, "-m", "flask", "--help", cwd=tmp_path)
    assert "hotreload  Reload the code of a running service" in flask
    script = tmp_path / "empty" / "bin" / "flask-hotreload"
    done = subprocess.run([script, "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "install it with pip install 'flask-hotreload[cli]'" in done.stderr


def test_what_describes_the_package_stands_in_setup_cfg_alone() -> None:
    assert (ROOT / "setup.py").read_text().split() == ["from", "setuptools", "import", "setup", "setup()"]
    tables = TOML_TABLE.findall((ROOT / "pyproject.toml").read_text())
    assert not [name for name in tables if name == "project" or name.startswith("project.")]
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert config["metadata"]["name"] == "flask-hotreload"
