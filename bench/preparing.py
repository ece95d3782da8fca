"""What clients notice while much new code is being prepared: dry runs, so that nothing but preparing is measured."""

from __future__ import annotations

from time import monotonic, sleep

from bench.big_project import package
from bench.client import Sample
from bench.effort import amount
from bench.figure import Figure
from bench.open_loop import load, throughput
from bench.service import Service, running
from bench.spread import milliseconds, percentile

MODULES = 200

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
    script = f"import whole\n\n\ndef all_of_it() -> int:\n    return {MODULES}\n"
    return {**package("whole", MODULES), "all_of_it.py": script}


def _rare(samples: list[Sample]) -> float:
    return percentile([sample.wait for sample in samples], 0.99)
