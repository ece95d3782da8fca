"""Change the code of a running Flask service: no rejected request, no lost state, never broken code."""

from flask_hotreload.errors import (
    ApplyError,
    CheckFailed,
    DrainTimeout,
    HotReloadError,
    JSONRPCError,
    LoadError,
    ReloadBusy,
    ReloadError,
    ReloadInvalid,
    StoreUnavailable,
    WorkerFailed,
)
from flask_hotreload.extension import HotRPC
from flask_hotreload.record_filter import GenerationFilter
from flask_hotreload.report import ReloadReport

__all__ = [
    "ApplyError",
    "CheckFailed",
    "DrainTimeout",
    "GenerationFilter",
    "HotRPC",
    "HotReloadError",
    "JSONRPCError",
    "LoadError",
    "ReloadBusy",
    "ReloadError",
    "ReloadInvalid",
    "ReloadReport",
    "StoreUnavailable",
    "WorkerFailed",
]
