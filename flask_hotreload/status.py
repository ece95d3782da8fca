"""What ``GET /_reload`` answers: this worker in full, and every worker of the deployment in a line."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.reporting import worker_id

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import Member
    from flask_hotreload.dispatch import Dispatcher
    from flask_hotreload.service import Service


def status_of(service: Service) -> dict[str, Any]:
    """Plain JSON values; the keys are part of the contract with operators' scripts."""
    reloader = service.reloader
    current, lock, last = reloader.current, reloader.lock, next(iter(reloader.history), None)
    return {
        "generation": current.number,
        "previous": current.number - 1 if current.number else None,
        "label": current.label,
        "release": _release_of(service),
        "dispatchers": [_dispatcher(dispatcher) for dispatcher in current.table],
        "in_flight": lock.in_flight,
        "held": lock.held,
        "readers": [
            {"method": reader.method, "path": reader.path, "age_ms": round(reader.age_ms, 3)}
            for reader in lock.readers()
        ],
        "workers": workers_of(service),
        "pending": service.pending(),
        "drift": service.drift(),
        "tainted": reloader.tainted,
        "probation": service.probation.status(),
        "staged": reloader.parking.told(),
        "last": last.to_dict() if last is not None else None,
    }


def workers_of(service: Service) -> list[dict[str, Any]]:
    """This worker as it is now, the others as they last told the store; this one alone if the store is away."""
    me = _myself(service, _release_of(service))
    try:
        members = service.membership.members()
        now = service.membership.now()
    except StoreUnavailable:
        return [me]
    others = [_member(member, now) for member in members if member.id != me["id"]]
    return sorted([me, *others], key=lambda worker: str(worker["id"]))


def _release_of(service: Service) -> str:
    return service.membership.release or service.release


def _myself(service: Service, release: str) -> dict[str, Any]:
    reloader = service.reloader
    return {
        "id": worker_id(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "generation": reloader.current.number,
        "release": release,
        "in_flight": reloader.lock.in_flight,
        "held": reloader.lock.held,
        "seen_ms": 0,
        "state": "tainted" if reloader.tainted else service.membership.state,
    }


def _member(member: Member, now: float) -> dict[str, Any]:
    return {
        "id": member.id,
        "host": member.host,
        "pid": member.pid,
        "generation": member.generation,
        "release": member.release,
        "in_flight": member.in_flight,
        "held": member.held,
        "seen_ms": round(max(0.0, now - member.seen) * 1000),
        "state": member.state,
    }


def _dispatcher(dispatcher: Dispatcher) -> dict[str, Any]:
    settings = dispatcher.settings
    authorize = settings.authorize
    return {
        "path": dispatcher.path,
        "name": dispatcher.name,
        "aliases": list(dispatcher.aliases),
        "module": getattr(dispatcher.function, "__module__", None),
        "settings": {
            "validate": settings.validate,
            "lock": settings.lock,
            "authorize": None if authorize is None else getattr(authorize, "__qualname__", repr(authorize)),
        },
    }
