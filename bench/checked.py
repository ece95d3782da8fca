"""The checker of the tests in a process of its own, so that it measures the server and not whoever drives it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from example_app.load import Sample
from tests.checker import Checker, Verdict


@dataclass(frozen=True)
class Checked:
    """What the clients met, from their side."""

    verdict: Verdict
    samples: list[Sample]

    @property
    def waits(self) -> list[float]:
        """Seconds, counted from when each request was due."""
        return [sample.wait for sample in self.samples]


class CheckedLoad:
    """A context manager: ``rate`` requests a second, on ``clients`` connections, until :meth:`stop`.

    ``one_code`` and ``by``: see the checker.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        clients: int,
        rate: float,
        one_code: bool = True,
        by: str = "generation",
    ) -> None:
        self._address = address
        self._order = json.dumps({"clients": clients, "rate": rate, "one_code": one_code, "by": by})

    def __enter__(self) -> CheckedLoad:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.checked", self._address[0], str(self._address[1]), self._order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"started\n":
            self._process.kill()
            raise RuntimeError("the clients did not start")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def stop(self) -> Checked:
        """What they have met. To be called once."""
        output, _ = self._process.communicate(timeout=60)
        if self._process.returncode:
            raise RuntimeError(f"the clients ended with status {self._process.returncode}")
        verdict, samples = pickle.loads(output)  # from the process that was started here
        return Checked(verdict, samples)


def main() -> None:
    host, port, order = sys.argv[1:]
    with Checker((host, int(port)), timeout=30.0, **json.loads(order)) as checker:
        sys.stdout.buffer.write(b"started\n")
        sys.stdout.buffer.flush()
        sys.stdin.buffer.read()
    samples = [sample for sample in checker.samples() if sample.error is None]
    sys.stdout.buffer.write(pickle.dumps((checker.verdict(), samples)))


if __name__ == "__main__":
    main()
