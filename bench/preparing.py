"""What clients notice while much new code is being prepared: dry runs, so that nothing but preparing is measured."""

from __future__ import annotations

from time import monotonic, sleep

from bench.client import Sample
from bench.effort import amount
from bench.figure import Figure
from bench.open_loop import load, throughput
from bench.service import Service, running
from bench.spread import milliseconds, percentile

MODULES = 200

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

DOCUMENT = {"data": [{"dispatcher": "all_of_it", "scriptPath": "all_of_it.py", "path": "/api"}], "dryRun": True}


def measure() -> list[Figure]:
    calm: list[float] = []
    preparing: list[float] = []
    took: list[float] = []
    failed = 0
    with running(files=_files()) as service:
        rate = throughput(service) / 2
        for _ in range(amount(9, quick_run=1)):
            calm.append(_rare(load(service, rate, lambda: sleep(2.0))))
            samples = _while_preparing(service, rate, took)
            preparing.append(_rare(samples))
            failed += sum(sample.failed for sample in samples)
    usual, then = percentile(calm, 0.5), percentile(preparing, 0.5)
    return [
        Figure(
            f"p99 of requests at {rate:,.0f}/s while {MODULES} modules are prepared",
            f"{milliseconds(then)}, {then / usual:.1f} × calm ({milliseconds(usual)}), {failed} failed "
            f"(the median of {len(took)} times, {percentile(took, 0.5):,.0f} ms each)",
            "≤ 3 × calm",
            then <= 3 * usual and not failed,
        )
    ]


def _while_preparing(service: Service, rate: float, took: list[float]) -> list[Sample]:
    """The requests that were due while one dry run was under way. ``took`` gets its milliseconds."""
    moments: list[float] = []

    def meanwhile() -> None:
        sleep(0.3)
        moments.append(monotonic())
        report = service.reload(DOCUMENT)
        moments.append(monotonic())
        if len(report["modules"]) <= MODULES:
            raise RuntimeError(f"only {len(report['modules'])} modules were prepared")
        took.append(report["timings"]["prepare_ms"])
        sleep(0.3)

    samples = load(service, rate, meanwhile)
    begun, done = moments
    return [sample for sample in samples if begun <= sample.due <= done]


def _files() -> dict[str, str]:
    files = {
        f"whole/part_{number}.py": MODULE.format(number=number)
        + "".join(FUNCTION.format(number=number, index=index) for index in range(8))
        for number in range(MODULES - 1)
    }
    files["whole/__init__.py"] = ""
    imports = "".join(f"import whole.part_{number}\n" for number in range(MODULES - 1))
    files["all_of_it.py"] = f"{imports}\n\ndef all_of_it() -> int:\n    return {MODULES}\n"
    return files


def _rare(samples: list[Sample]) -> float:
    return percentile([sample.wait for sample in samples], 0.99)
