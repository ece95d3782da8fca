"""The layers of the package: imports point downwards only, and each part knows no more than it says it does."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import flask_hotreload

ROOT = "flask_hotreload"
FOLDER = Path(flask_hotreload.__file__).parent

# From below. A module imports from its own layer and those below; within a layer there is no circle either.
# ``TYPE_CHECKING`` imports may point upwards. A name with a dot at its end is a package with all that is in it.
LAYERS = [
    "errors deadline mutex",
    "signals barrier rwlock dispatch report finite problem registrations progress open_files probation verdicts "
    "python_files",
    "sources project recipe binding jsonrpc generation document origin config namespaces bounded side_effects blame",
    "audit routes serial effects host caches draft07 docstring hint_schemas openrpc bearer circles",
    "pace propagate modules_view interpreter inventory overlay worlds finder failure loader late_imports drift "
    "portable",
    "boot gunicorn imported base_finder disk_changes stamp dead_worker stream error_count probation_watch",
    "staging checks collecting keeping retirement attempts",
    "preparation",
    "transaction",
    "parking reporting",
    "reloader",
    "coordination.",
    "boot_sources membership middleware control views mount remaking status watcher "
    "metrics record_filter discovery on_probation preview remote_control",
    "service",
    "extension",
    "cli.",
    "__init__",
]
EXTRA_CLI = {"rich", "urllib3"}  # in the command line's own modules, which its first one imports when they are used
THIRD_PARTY = {"flask", "werkzeug", "blinker", "itsdangerous", "click", "msgspec"}  # Flask, msgspec, what they bring
INPUT_AND_OUTPUT = {"os", "io", "socket", "select", "sqlite3", "threading", "time", "subprocess", "logging", "random"}


class Imports(NamedTuple):
    """Full names of what a module imports when it runs: anywhere in it, and at its top level."""

    anywhere: set[str]
    at_top: set[str]


def modules() -> dict[str, Path]:
    """Name below the package → file."""
    found = {}
    for file in FOLDER.rglob("*.py"):
        parts = file.relative_to(FOLDER).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = file
    return found


MODULES = modules()


def imported(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        assert statement.level == 0, "imports are absolute"
        for alias in statement.names:
            full = f"{statement.module}.{alias.name}"
            yield full if full.removeprefix(f"{ROOT}.") in MODULES else str(statement.module)


def statements(body: list[ast.stmt], *, nested: bool) -> Iterator[ast.stmt]:
    """Those that run: without the blocks of ``if TYPE_CHECKING``; ``nested``: with those in functions and classes."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from statements(statement.orelse, nested=nested)
        elif nested or not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(statement, field, []), nested=nested)
            for handler in getattr(statement, "handlers", []):
                yield from statements(handler.body, nested=nested)


def read(file: Path) -> Imports:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    kinds = [statements(body, nested=nested) for nested in (True, False)]
    return Imports(*({name for each in kind for name in imported(each)} for kind in kinds))


IMPORTS = {name: read(file) for name, file in MODULES.items()}


def own(name: str) -> set[str]:
    """The modules of this package that one imports."""
    return {each.removeprefix(f"{ROOT}.") for each in IMPORTS[name].anywhere if each.startswith(f"{ROOT}.")}


def below(name: str) -> set[str]:
    """A module and all of this package that it imports, directly or not."""
    found, ahead = set(), [name]
    while ahead:
        each = ahead.pop()
        if each not in found:
            found.add(each)
            ahead += own(each)
    return found


def foreign(names: set[str]) -> set[str]:
    """The packages outside of this one that they import."""
    return {each.partition(".")[0] for name in names for each in IMPORTS[name].anywhere} - {ROOT}


def layer_of(name: str) -> int:
    for number, layer in enumerate(LAYERS):
        for member in layer.split():
            if name == member or (member.endswith(".") and (name + ".").startswith(member)):
                return number
    raise AssertionError(f"{name} is in no layer: say where it belongs")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards_only(name):
    upwards = {each for each in own(name) if layer_of(each) > layer_of(name)}
    assert not upwards, f"{name} imports {upwards} from above"


def test_every_layer_names_modules_that_are_there():
    named = {member for layer in LAYERS for member in layer.split()}
    assert {member for member in named if not member.endswith(".")} <= MODULES.keys()


def test_there_is_no_circle():
    for name in MODULES:
        through = {each for imported in own(name) for each in below(imported)}
        assert name not in through, f"{name} imports itself, by {own(name)}"


def test_nobody_inside_imports_the_packages_root():
    assert [name for name in MODULES if ROOT in IMPORTS[name].anywhere] == []


def test_the_package_needs_no_more_than_flask_and_msgspec_and_what_they_bring():
    needed = {
        package
        for name in MODULES
        for each in IMPORTS[name].at_top
        if (package := each.partition(".")[0]) not in EXTRA_CLI or not name.startswith("cli.")
    }
    assert needed - sys.stdlib_module_names - {ROOT} <= THIRD_PARTY


def test_loading_and_staging_know_no_lock():
    assert below("loader").isdisjoint({"rwlock", "barrier", "transaction", "reloader"})
    assert below("staging").isdisjoint({"rwlock", "barrier", "transaction", "reloader"})


@pytest.mark.parametrize("name", ["loader", "staging", "transaction", "reloader", "coordination.worker"])
def test_reloading_knows_no_flask(name):
    assert foreign(below(name)).isdisjoint({"flask", "werkzeug", "blinker"})


def test_json_rpc_is_bytes_to_bytes():
    assert below("jsonrpc") == {"jsonrpc", "binding", "finite", "errors"}
    assert foreign(below("jsonrpc")) - sys.stdlib_module_names == {"msgspec"}


def test_the_middleware_knows_the_lock_and_nothing_else():
    assert own("middleware") == {"rwlock"}
    assert "flask" not in foreign(below("middleware"))


def test_the_lock_knows_no_more_than_time():
    assert below("rwlock") == {"rwlock", "barrier", "deadline"}
    assert foreign(below("rwlock")) <= sys.stdlib_module_names


def test_the_protocol_of_the_workers_does_no_input_or_output():
    for name in ("coordination.protocol", "coordination.records", "coordination.store"):
        assert foreign(below(name)).isdisjoint(INPUT_AND_OUTPUT), name


def test_every_module_says_what_it_is():
    for name, file in MODULES.items():
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{name} has no docstring"
