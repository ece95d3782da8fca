"""The checker: many clients that ask each worker, and a verdict on every answer that any of them got.

What is asked is the dispatcher ``where``, which answers the edition of its code, its generation and its process. The
verdict holds three rules over all workers:

* no request is rejected or fails;
* once anybody has an answer of generation N+1, no request that starts afterwards is answered by N;
* one generation is one code: all workers answer a generation with the same edition.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from time import monotonic

from example_app.load import Call, Generations, Load, Sample, WrongAnswerError, old_after_new

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "where"}).encode()


@dataclass(frozen=True)
class Verdict:
    """What became of ``requests`` requests. ``longest_wait`` in seconds; ``processes``: answers by process id."""

    requests: int
    failed: list[str]
    old_after_new: int
    longest_wait: float
    generations: list[int]
    processes: Counter[int]

    def assert_clean(self) -> None:
        assert self.requests, "nothing was asked"
        assert not self.failed, f"{len(self.failed)} of {self.requests} failed: {self.failed[:5]}"
        assert self.old_after_new == 0, f"{self.old_after_new} of {self.requests} were answered by an old generation"


class Checker:
    """A context manager: ``clients`` connections send ``rate`` requests a second in all until it is left.

    ``one_code``: whether the third rule holds; not over a restart, where generations keep their numbers while the
    code is that on disk. ``by``: what the second rule counts, ``"edition"`` where there are no generations.
    ``headers``: what each client sends besides, a cookie say. ``editions``: by generation, of several checkers.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        clients: int = 12,
        rate: float = 150.0,
        timeout: float = 60.0,
        one_code: bool = True,
        by: str = "generation",
        headers: Mapping[str, str] | None = None,
        editions: dict[int, int] | None = None,
    ) -> None:
        self._round = clients / rate  # seconds between two requests of one client
        self._load = Load(address, self._calls, clients=clients, rate=rate, timeout=timeout)
        self._one_code = one_code
        self._by = by
        self._headers = headers or {}
        self._lock = Lock()  # guards all below
        self._editions: dict[int, int] = {} if editions is None else editions
        self._processes: dict[str, list[int]] = {}  # by path, which names the client: who gave each of its answers

    def __enter__(self) -> Checker:
        """Return when each client has an answer, and so a connection to somebody known."""
        self._load.__enter__()
        self.another_round()
        return self

    def __exit__(self, *exception: object) -> None:
        self._load.__exit__(*exception)

    def another_round(self) -> None:
        """Wait until each client has asked, and been answered, once more."""
        assert self._load.settle(monotonic() + self._round, timeout=60.0), "there are requests that nobody answers"

    def processes(self) -> set[int]:
        """Who has answered so far."""
        with self._lock:
            return set(chain.from_iterable(self._processes.values()))

    def connected(self) -> set[int]:
        """Who has given some client its last answer."""
        with self._lock:
            return {processes[-1] for processes in self._processes.values()}

    def samples(self, since: float = 0.0, until: float = float("inf")) -> list[Sample]:
        return self._load.samples(since, until)

    def verdict(self, *, lost_with: int | None = None) -> Verdict:
        """On all so far. ``lost_with``: a process that was killed; what breaks with its connections is no failure."""
        samples = self._load.samples()
        failed = [sample for sample in samples if sample.error is not None]
        if lost_with is not None:
            lost = self._lost_with(lost_with, samples)
            failed = [sample for sample in failed if sample not in lost]
        with self._lock:
            processes = Counter(chain.from_iterable(self._processes.values()))
        return Verdict(
            requests=len(samples),
            failed=[f"{sample.error} after {sample.ended - sample.started:.3f} s" for sample in failed],
            old_after_new=len(old_after_new(samples)),
            longest_wait=max((sample.wait for sample in samples), default=0.0),
            generations=sorted({sample.generations.oldest for sample in samples if sample.generations is not None}),
            processes=processes,
        )

    def _lost_with(self, pid: int, samples: Sequence[Sample]) -> set[Sample]:
        """The requests that broke on a connection on which ``pid`` had answered the one before."""
        with self._lock:
            answered_by = {path: iter(tuple(processes)) for path, processes in self._processes.items()}
        lost = set()
        connected_to: dict[str, int | None] = {}
        for sample in sorted(samples, key=lambda sample: sample.started):
            if sample.generations is not None:
                connected_to[sample.path] = next(answered_by[sample.path])
            elif connected_to.pop(sample.path, None) == pid and "HTTP status" not in (sample.error or ""):
                lost.add(sample)
        return lost

    def _calls(self, client: int) -> Iterator[Call]:
        path = f"/api?client={client}"

        def judge(status: int, body: bytes) -> Generations:
            return self._judge(path, status, body)

        while True:
            yield Call(path, BODY, judge, self._headers)

    def _judge(self, path: str, status: int, body: bytes) -> Generations:
        if status != 200:
            raise WrongAnswerError(f"HTTP status {status}: {body[:200]!r}")
        answer = json.loads(body)
        if "result" not in answer:
            raise WrongAnswerError(f"no result: {body[:200]!r}")
        told = answer["result"]
        generation, edition, pid = told["generation"], told["edition"], told["pid"]
        with self._lock:
            known = self._editions.setdefault(generation, edition)
            if self._one_code and known != edition:
                raise WrongAnswerError(f"generation {generation} is edition {known} and, in process {pid}, {edition}")
            self._processes.setdefault(path, []).append(pid)
        return Generations(told[self._by], told[self._by])
