"""Blinker signals of a service. The sender is the Flask application.

``reload_started``
    A transaction begins; keywords ``report`` (what is known so far).
``reload_committed``
    Requests are served by the new generation; keywords ``report``, ``generation`` (its number).
``reload_aborted``
    Nothing has changed; keyword ``report``.
``generation_retired``
    The last request of a generation that is no longer current has left; keyword ``generation`` (its number).

A receiver that raises is logged and does not disturb the reload.
"""

from __future__ import annotations

from blinker import Namespace

_namespace = Namespace()

reload_started = _namespace.signal("reload-started")
reload_committed = _namespace.signal("reload-committed")
reload_aborted = _namespace.signal("reload-aborted")
generation_retired = _namespace.signal("generation-retired")
