"""Watches one generation on probation, in each worker, on a thread that sleeps until something was counted here, and
looks now and then at what was counted elsewhere.

Each worker writes what it has counted beside what the others have, and then reads the sum. So of several that write
at the same time the last one sees all, and whoever sees a sum over the limit asks for the rollback: for one that
``expect``\\ s this generation and has the same id in every worker, hence one takes place, whoever asks first and
whoever dies. A sum of errors can only be too small, so it is right at once. A ratio also needs the requests of the
others: errors seen at one moment are compared with requests seen ``siblings.lag`` seconds later.

If the others cannot be asked, nothing is decided before they can. If the rollback fails for a reason that passes, it
is tried again until the end of the probation, for another reason it is not; then the generation goes on serving.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Literal, Protocol

from flask_hotreload.errors import DrainTimeout, ReloadBusy, ReloadError, StoreUnavailable, WorkerFailed
from flask_hotreload.probation import Probation, Tally, reason_of, together

if TYPE_CHECKING:
    from flask_hotreload.error_count import ErrorCount

State = Literal["running", "passed", "rolled-back", "failed", "replaced"]

_log = logging.getLogger("flask_hotreload")

#: Seconds between two looks: many errors are told together.
SPACING = 0.02
#: Seconds between two looks when nothing is counted here: what a worker has told is heard before it ends, and tried
#: again is what has failed.
TICK = 0.2
#: Seconds, at least, for which a rollback is tried.
PATIENCE = 10.0
#: Seconds before a rollback is tried again, at first and at most.
AGAIN = (0.5, 5.0)

_PASSING = (ReloadBusy, WorkerFailed, DrainTimeout, StoreUnavailable)


class Siblings(Protocol):
    """The other workers. All but :meth:`now` may raise :class:`StoreUnavailable`."""

    @property
    def lag(self) -> float:
        """Seconds after which every other worker has told what it has counted so far."""

    def now(self) -> float:
        """Seconds on a clock that all workers share."""

    def publish(self) -> None:
        """Tell the others what this worker has counted."""

    def tallies(self) -> Mapping[str, Tally]:
        """What the others have told last, by worker, those that have died among them."""

    def is_first(self) -> bool:
        """Whether this worker is the one that tells what all have to tell once."""


class Alone:
    """A process of its own."""

    lag = 0.0
    now = staticmethod(monotonic)

    def publish(self) -> None:
        """There is nobody."""

    def tallies(self) -> Mapping[str, Tally]:
        return {}

    def is_first(self) -> bool:
        return True


class Watch:
    """``counted``: this worker's errors. ``until``: on the siblings' clock.

    ``roll_back(reason, attempt)`` raises :class:`ReloadError`. ``joined_late``: others have begun before.
    """

    def __init__(
        self,
        probation: Probation,
        generation: int,
        *,
        until: float,
        siblings: Siblings,
        roll_back: Callable[[tuple[str, ...], int], object],
        joined_late: bool = False,
    ) -> None:
        self.probation = probation
        self.generation = generation
        self.state: State = "running"
        #: Why it could not be rolled back.
        self.error: str | None = None
        self.counted: ErrorCount | None = None
        self._until = until
        self._siblings = siblings
        self._roll_back = roll_back
        self._joined_late = joined_late
        self._others: dict[str, Tally] = {}  # the last word of each, of the dead, too
        self._told = Tally(generation, until)
        self._suspected: Tally | None = None
        self._suspected_at = 0.0
        self._away = False
        self._woken = threading.Event()  # something was counted, or it is over
        self._over = threading.Event()
        self._last: Tally | None = None  # the sums when it was over

    # Any thread ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Raise nothing: a process that can start no thread counts, and leaves the watching to the others."""
        try:
            threading.Thread(target=self._run, name="hotreload-probation", daemon=True).start()
        except RuntimeError:
            _log.exception("the probation of generation %d cannot be watched here", self.generation)

    def wake(self) -> None:
        self._woken.set()

    def end(self, state: State) -> None:
        """It is over, for a reason that others know. Never waits for the thread, which may be who calls this."""
        if state == "rolled-back" or self.state == "running":
            self._last = self._last or self.total()
            self.state = state
        self._over.set()
        self._woken.set()
        if self.counted is not None:
            self.counted.end()

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def left(self) -> float:
        """Seconds to the end."""
        return max(0.0, self._until - self._siblings.now()) if self.running else 0.0

    def own(self) -> Tally:
        """What this worker has counted."""
        if self.counted is None:
            return Tally(self.generation, self._until)
        return self.counted.tally(self._until)

    def total(self) -> Tally:
        """What all have, as far as is known here. It does not change once it is over."""
        return self._last or together(self.own(), list(self._others.values()))

    def look_around(self) -> None:
        """Read what the others have told. Raise :class:`StoreUnavailable`."""
        for worker, tally in self._siblings.tallies().items():
            if tally.generation == self.generation:
                self._others[worker] = tally

    # The thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                if self._look():
                    return
                if not self._over.wait(SPACING):
                    self._woken.wait(self._pause())
                    self._woken.clear()
        except Exception as error:  # noqa: BLE001  # whoever asks shall hear of it
            _log.exception("the probation of generation %d is not watched here any more", self.generation)
            self.error = str(error)
            self.end("failed")

    def _pause(self) -> float:
        now = self._siblings.now()
        # At the end everybody tells its last word, and reads those of the others when all must have told it.
        end = self._until if now < self._until else self._until + self._siblings.lag
        return min(max(0.0, end - now), TICK)

    def _look(self) -> bool:
        """Return whether it is over."""
        try:
            self._exchange()
        except StoreUnavailable as error:
            return self._without_others(error)
        if self._away:
            _log.warning("generation %d: the other workers can be asked again", self.generation)
            self._away = False
        now, total = self._siblings.now(), self.total()
        self._until = total.until
        ended = now >= self._until + self._siblings.lag
        if self._joined_late and ended:  # the others have told about it
            if self._exceeds(total, total):
                self.error = "it was over its limit, and was not rolled back"
            self.end("failed" if self.error else "passed")
            return True
        self._joined_late = False
        if self._is_over_limit(total, now):
            self._give_back()
            return True
        if ended and self._suspected is None:
            self._pass()
        return not self.running

    def _exchange(self) -> None:
        own = self.own()
        by_ratio = self.probation.error_ratio is not None or self._siblings.now() >= self._until
        if own.errors != self._told.errors or (by_ratio and own.requests != self._told.requests):
            self._siblings.publish()
            self._told = own
        self.look_around()

    def _without_others(self, error: StoreUnavailable) -> bool:
        if not self._away:
            self._away = True
            _log.warning(
                "generation %d is on probation, and cannot be rolled back as long as what other workers have counted "
                "cannot be told: %s",
                self.generation,
                error,
            )
        if self._siblings.now() < self._until + max(self._siblings.lag, PATIENCE):
            return False
        self._fail(f"what the other workers have counted could not be told until its end: {error}")
        return True

    def _exceeds(self, errors: Tally, requests: Tally) -> bool:
        return self.probation.has_too_many(errors.errors) or self.probation.has_too_large_a_share(
            errors.errors, requests.requests
        )

    def _is_over_limit(self, total: Tally, now: float) -> bool:
        if self.probation.has_too_many(total.errors):
            return True
        if self._suspected is not None:
            if now < self._suspected_at + self._siblings.lag:
                return False
            if self._exceeds(self._suspected, total):
                return True
            self._suspected = None
        if not self._exceeds(total, total):
            return False
        self._suspected, self._suspected_at = total, now
        return not self._siblings.lag

    def _pass(self) -> None:
        last = self.total()
        self.end("passed")
        try:
            tells = self._siblings.is_first()
        except StoreUnavailable:
            tells = True
        if tells:
            _log.info(
                "generation %d has passed its probation (%d requests, %d errors)",
                self.generation,
                last.requests,
                last.errors,
            )

    # The rollback ----------------------------------------------------------------------------------------------

    def _give_back(self) -> None:
        attempt, pause = 1, AGAIN[0]
        give_up = max(self._until, self._siblings.now() + PATIENCE)
        while not self._over.is_set():
            reason = reason_of(self.probation, self.total())
            try:
                self._roll_back(reason, attempt)
            except _PASSING as error:
                began = error.report is not None and bool(error.report.workers)
                attempt += began  # an id is that of one transaction
                if self._siblings.now() >= give_up:
                    return self._fail(f"it could not be rolled back: {error}")
                self._over.wait(pause)
                pause = min(2 * pause, AGAIN[1])
            except ReloadError as error:
                return self._fail(f"it could not be rolled back: {error}")
            else:
                # Whoever asked, it was committed; this worker may learn of it after its answer.
                _log.warning("%s; it was rolled back", "; ".join(reason))
                return self.end("rolled-back")
        return None

    def _fail(self, why: str) -> None:
        if self._over.is_set():
            return
        self.error = why
        self.end("failed")
        total = self.total()
        _log.warning(
            "generation %d goes on serving after its probation (%d requests, %d errors): %s. Reload mended code, or "
            'roll back by hand: POST /_reload/rollback, {"to": N} for a certain generation',
            self.generation,
            total.requests,
            total.errors,
            why,
        )
