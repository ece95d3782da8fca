"""What prometheus-client has to be told when a process of several has ended."""

from __future__ import annotations

import logging

_log = logging.getLogger("flask_hotreload")


def forget_metrics(pid: int) -> None:
    """Have the gauges of the living told without those of ``pid``. Cannot fail: gunicorn's master calls it."""
    try:
        from prometheus_client import multiprocess  # noqa: PLC0415  # optional

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types
    except ImportError:
        pass  # then nobody tells any
    except Exception:  # noqa: BLE001  # the master must go on
        _log.exception("the gauges of the ended process %d are still told", pid)
