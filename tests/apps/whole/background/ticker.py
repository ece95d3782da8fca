from __future__ import annotations

from queue import Queue
from threading import Thread

EDITION = 0


class Ticker(Thread):
    """Answers the edition of its code to whoever asks, until it is stopped."""

    edition = EDITION

    def __init__(self, ticks: dict[int, int]) -> None:
        super().__init__(name=f"whole-ticker-{EDITION}", daemon=True)
        self._ticks = ticks
        self._questions: Queue[Queue[int] | None] = Queue()

    def run(self) -> None:
        while (question := self._questions.get()) is not None:
            self._ticks[EDITION] = self._ticks.get(EDITION, 0) + 1
            question.put(EDITION)

    def ask(self) -> int:
        answer: Queue[int] = Queue()
        self._questions.put(answer)
        return answer.get(timeout=10)

    def stop(self) -> None:
        self._questions.put(None)
