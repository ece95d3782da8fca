"""A point in monotonic time by which something must have happened."""

from __future__ import annotations

from time import monotonic


class Deadline:
    """A moment ``seconds`` from now on the monotonic clock; ``None`` is a moment that never comes.

    Several waits that share one budget share one ``Deadline``::

        deadline = Deadline(5.0)
        first.wait(deadline.remaining())
        second.wait(deadline.remaining())
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        """Raise ``ValueError`` for a negative number or a NaN."""
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"a deadline lies {seconds!r} seconds ahead; give a number ≥ 0, or None for no bound")
        self._at = None if seconds is None else monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left, never below 0.0; ``None`` when there is no bound."""
        return None if self._at is None else max(0.0, self._at - monotonic())

    @property
    def expired(self) -> bool:
        return self._at is not None and monotonic() >= self._at

    def __repr__(self) -> str:
        left = self.remaining()
        return "<Deadline never>" if left is None else f"<Deadline in {left:.3f} s>"
