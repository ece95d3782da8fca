"""What Prometheus scrapes at ``GET /_reload/metrics``. Needs prometheus-client, the extra ``metrics``.

Counters and histograms are counted as things happen, by the worker in which they happen; a reload is counted once, by
the worker that was asked for it. They are those of the answering worker, or of all workers of this host where
``PROMETHEUS_MULTIPROC_DIR`` names a folder for prometheus-client. Gauges are read when they are asked for, from the
lock and from what the workers of this host tell each other.

Counters and histograms are made once per process, in a registry of their own. They belong to no generation: no reload
makes them again, and none sets them back. Applications in one process are told apart by the label ``app``; each tells
its own.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from flask_hotreload.report import Status, Trigger
from flask_hotreload.status import workers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import prometheus_client
    from prometheus_client.core import Metric, Sample

    from flask_hotreload.report import ReloadReport
    from flask_hotreload.service import Service

_log = logging.getLogger("flask_hotreload")

PREFIX = "flask_hotreload_"
PHASES = ("prepare", "check", "drain", "apply")
#: Those that a worker can be in, see the status.
STATES = ("serving", "behind", "tainted")

_PHASE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20)
_PAUSE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class MetricsUnavailable(Exception):
    """Why there are none, and what to do about it."""


class _Counted(NamedTuple):
    """What is counted as it happens."""

    registry: prometheus_client.CollectorRegistry
    reloads: prometheus_client.Counter
    phases: prometheus_client.Histogram
    pause: prometheus_client.Histogram
    held: prometheus_client.Histogram


class Metrics:
    """Those of one ``service``. Without prometheus-client nothing is counted, and nothing is in the way."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._counted: _Counted | None = None
        self._app = service.app.import_name
        self._missing = "nothing is counted yet"
        self._failed = False

    def begin(self) -> None:
        """Count from now on, if that is possible. Cannot fail."""
        try:
            self._counted = counted = _counted()
            for trigger in get_args(Trigger):
                for outcome in get_args(Status):
                    counted.reloads.labels(self._app, outcome, trigger)  # so that the first one is an increase
            for phase in PHASES:
                counted.phases.labels(self._app, phase)
            counted.pause.labels(self._app)
            held = counted.held.labels(self._app)
        except ImportError:
            self._missing = "prometheus-client is not installed: pip install 'flask-hotreload[metrics]'"
            return
        except Exception as error:  # noqa: BLE001  # no metrics are no reason not to serve
            self._counted = None
            self._missing = f"prometheus-client cannot count: {error}; see that PROMETHEUS_MULTIPROC_DIR is a folder"
            _log.warning("there are no metrics: %s", self._missing)
            return
        self._service.reloader.lock.on_held = functools.partial(self._safely, held.observe)

    def observe(self, report: ReloadReport) -> None:
        """Count an attempt that this worker was asked for. Cannot fail."""
        if self._counted is not None:
            self._safely(self._count, self._counted, report)

    def _count(self, counted: _Counted, report: ReloadReport) -> None:
        counted.reloads.labels(self._app, report.status, report.trigger).inc()
        timings = report.timings
        for phase in PHASES:
            milliseconds = getattr(timings, f"{phase}_ms")
            if milliseconds:
                counted.phases.labels(self._app, phase).observe(milliseconds / 1000)
        if timings.pause_ms:
            counted.pause.labels(self._app).observe(timings.pause_ms / 1000)

    def _safely(self, count: Any, *values: object) -> None:
        """A full disk, say, fails no request and no reload; the first time it is said."""
        try:
            count(*values)
        except Exception:  # noqa: BLE001  # see above
            if not self._failed:
                self._failed = True
                _log.exception("metrics cannot be counted; this is said once")

    # Scraping --------------------------------------------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text that is scraped and its content type, as the header ``Accept`` asks for it.

        Raise :class:`MetricsUnavailable`.
        """
        if self._counted is None:
            raise MetricsUnavailable(self._missing)
        from prometheus_client import CollectorRegistry  # noqa: PLC0415  # optional
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            return encode(registry), content_type
        except (OSError, ValueError) as error:
            raise MetricsUnavailable(f"the workers' metrics cannot be read: {error}") from None

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks a collector for."""
        assert self._counted is not None
        for metric in _counted_by(self._counted.registry):
            if metric.name.startswith(PREFIX):  # the application's own are its own business
                metric.samples = [sample for sample in metric.samples if self._tells(sample)]
                yield metric
        yield from self._gauges()

    def _tells(self, sample: Sample) -> bool:
        """Whether it is this application's; when each was first counted is nobody's question."""
        return sample.labels.get("app") == self._app and not sample.name.endswith("_created")

    def _gauges(self) -> Iterator[Metric]:
        current, here = self._service.reloader.current, socket.gethostname()
        workers = [worker for worker in workers_of(self._service) if worker["host"] == here]
        states = Counter(dict.fromkeys(STATES, 0))
        states.update(str(worker["state"]) for worker in workers)
        yield self._gauge("generation", "Number of the generation that the answering worker serves.", current.number)
        yield self._gauge(
            "generation_info",
            "Label of the generation that the answering worker serves.",
            1,
            label=current.label or "",
        )
        yield self._gauge(
            "requests_in_flight",
            "Requests inside, on the workers of this host.",
            sum(worker["in_flight"] for worker in workers),
        )
        yield self._gauge(
            "requests_held",
            "Requests that wait for a reload to end, on the workers of this host.",
            sum(worker["held"] for worker in workers),
        )
        yield self._gauge(
            "pending_files",
            "Files on disk that differ from what runs: a restart would load them.",
            len(self._service.pending()),
        )
        by_state = self._gauge("workers", "Workers of this host by state.", None, state="")
        for state, number in states.items():
            by_state.add_metric([self._app, state], number)
        yield by_state

    def _gauge(self, name: str, text: str, value: float | None, **labels: str) -> Any:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415  # optional

        family = GaugeMetricFamily(PREFIX + name, text, labels=["app", *labels])
        if value is not None:
            family.add_metric([self._app, *labels.values()], value)
        return family


@functools.cache
def _counted() -> _Counted:
    """Those of this process. Raise ``ImportError`` without prometheus-client."""
    from prometheus_client import CollectorRegistry, Histogram  # noqa: PLC0415  # optional
    from prometheus_client import Counter as CounterMetric  # noqa: PLC0415

    registry = CollectorRegistry()
    return _Counted(
        registry,
        CounterMetric(
            PREFIX + "reloads",
            "Attempts to reload, by outcome and by what asked for them; counted by the worker that was asked.",
            ["app", "outcome", "trigger"],
            registry=registry,
        ),
        Histogram(
            PREFIX + "phase_seconds",
            "Duration of each phase of a reload, that of the slowest worker.",
            ["app", "phase"],
            buckets=_PHASE_BUCKETS,
            registry=registry,
        ),
        Histogram(
            PREFIX + "pause_seconds",
            "How long a reload kept the lock closed, on the worker that kept it closed longest.",
            ["app"],
            buckets=_PAUSE_BUCKETS,
            registry=registry,
        ),
        Histogram(
            PREFIX + "held_seconds",
            "How long each request that was held by a reload waited.",
            ["app"],
            buckets=_PAUSE_BUCKETS,
            registry=registry,
        ),
    )


def _counted_by(registry: prometheus_client.CollectorRegistry) -> Iterator[Metric]:
    """What this process has counted, or every one that shares ``PROMETHEUS_MULTIPROC_DIR`` with it."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return iter(registry.collect())
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415  # optional

    return iter(MultiProcessCollector(None).collect())  # type: ignore[no-untyped-call]  # it has no types
