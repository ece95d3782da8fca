"""A project of many modules, to be imported at once."""

from __future__ import annotations

#: One of the modules: about 150 lines of what modules are made of.
MODULE = '''"""Module {number}."""

from __future__ import annotations

import dataclasses
import enum
import re

PATTERN = re.compile(r"(?P<key>[a-z_{number}]+)=(?P<value>[^;]*)")
LIMITS = {{name: len(name) * {number} for name in ("alpha", "beta", "gamma", "delta", "epsilon")}}


class Kind{number}(enum.Enum):
    ONE = "one"
    TWO = "two"
    THREE = "three"


@dataclasses.dataclass(frozen=True)
class Record{number}:
    key: str
    value: str = ""
    kind: Kind{number} = Kind{number}.ONE
    weight: float = 1.0

    def scaled(self, factor: float) -> Record{number}:
        return dataclasses.replace(self, weight=self.weight * factor)

'''

FUNCTION = '''
def step_{index}(records: list[Record{number}], limit: int = {index}) -> dict[str, float]:
    """Sum the weights of the records by key, up to a limit."""
    totals: dict[str, float] = {{}}
    for position, record in enumerate(records):
        if position > limit and record.kind is not Kind{number}.THREE:
            continue
        found = PATTERN.match(record.value)
        key = found["key"] if found is not None else record.key
        try:
            totals[key] = totals.get(key, 0.0) + record.weight * LIMITS.get(key, {index})
        except (TypeError, ValueError) as error:
            raise RuntimeError(f"{{record!r}} at {{position}}") from error
    return {{key: round(value, {index}) for key, value in sorted(totals.items())}}

'''


def package(name: str, modules: int) -> dict[str, str]:
    """The files of a package of that many modules, itself among them, which imports all of them."""
    files = {
        f"{name}/part_{number}.py": MODULE.format(number=number)
        + "".join(FUNCTION.format(number=number, index=index) for index in range(8))
        for number in range(modules - 1)
    }
    imports = "".join(f"import {name}.part_{number}\n" for number in range(modules - 1))
    return {**files, f"{name}/__init__.py": imports}
