"""What the clients of the bureau de change ask, and what a right answer is.

The right answers are computed here, from the data file and not from the service's code. An :class:`Edition`
is what one generation of the code answers; an answer is right if it is that of an announced edition, to the
cent.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

from example_app.load import Call, Generations, WrongAnswerError

CENT = Decimal("0.01")
BATCH = 3


@dataclass(frozen=True)
class Edition:
    """What the code of one generation answers: the factor on each amount, the first word on each receipt."""

    generation: int
    factor: Decimal
    receipt: str


@dataclass
class Till:
    """What the clients remember of one till: the receipts they hold by number, and the money they brought."""

    receipts: dict[int, Generations] = field(default_factory=dict)
    balances: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))


class Workload:
    """The mix of calls, the editions that may answer them, and the receipts that the clients hold."""

    def __init__(self, rates: Path, first: Edition) -> None:
        with rates.open(newline="", encoding="utf-8") as file:
            self._per_euro = {row["currency"]: Decimal(row["per_euro"]) for row in csv.DictReader(file)}
        self.editions = [first]
        self.tills: dict[int, Till] = {}
        self._tills_lock = Lock()  # guards the tills: all clients hand their receipts in here

    def announce(self, edition: Edition) -> None:
        """From now on an answer of this edition is right as well. To be called before the reload."""
        self.editions.append(edition)

    def calls(self, client: int) -> Iterator[Call]:
        """The endless row of one client: conversions, every fourth call a deposit, every eighth a batch."""
        random = Random(client)
        turn = client
        while True:
            turn += 1
            if turn % 8 == 0:
                yield self._batch([self._question(random) for _ in range(BATCH)])
            elif turn % 4 == 0:
                yield self.deposit(turn, random.choice(sorted(self._per_euro)), _amount(random))
            else:
                yield self._conversion(turn, *self._question(random))

    def conversion(self, method: str, amount: Decimal, base: str, target: str, **more: float) -> Call:
        """One direct call (``POST /api/<method>``) of a function that answers as ``convert`` does.

        ``more``: what else that function takes.
        """
        body = json.dumps({**_exchange(amount, base, target), **more}).encode()

        def judge(status: int, answer: bytes) -> Generations:
            return self._judge_amount(_parsed(status, answer), amount, base, target)

        return Call(f"/api/{method}", body, judge)

    def deposit(self, number: int, currency: str, amount: Decimal) -> Call:
        """A call that is answered by a receipt of one till."""
        body = json.dumps(_request(number, "deposit", {"currency": currency, "amount": str(amount)})).encode()
        return Call("/ledger", body, partial(self._judge_receipt, number, currency, amount))

    def check_receipts(self, summary: dict[str, Any]) -> list[str]:
        """What is wrong with a till, given its own summary after the last deposit; nothing: no cent is lost."""
        till = self.tills.get(summary["till"], Till())
        wrong = []
        if sorted(till.receipts) != list(range(1, summary["receipts"] + 1)):
            wrong.append(f"the till gave out {summary['receipts']} receipts, the clients hold {len(till.receipts)}")
        if {currency: Decimal(balance) for currency, balance in summary["balances"].items()} != till.balances:
            wrong.append("the balances of the till are not what the clients brought")
        return wrong

    def _question(self, random: Random) -> tuple[Decimal, str, str]:
        # From the dearer to the cheaper currency: a quarter of a per cent is then a matter of cents.
        base, target = sorted(random.sample(sorted(self._per_euro), 2), key=self._per_euro.__getitem__)
        return _amount(random), base, target

    def _conversion(self, number: int, amount: Decimal, base: str, target: str) -> Call:
        def judge(status: int, answer: bytes) -> Generations:
            return self._judge_amount(_result(_parsed(status, answer), number), amount, base, target)

        return Call("/api", json.dumps(_request(number, "convert", _exchange(amount, base, target))).encode(), judge)

    def _batch(self, questions: list[tuple[Decimal, str, str]]) -> Call:
        """Several calls in one request, which sees one generation from its start to its end."""

        def judge(status: int, answer: bytes) -> Generations:
            answers = _parsed(status, answer)
            if not isinstance(answers, list) or len(answers) != len(questions):
                raise WrongAnswerError(f"a batch of {len(questions)} was answered {answer[:200]!r}")
            judged = [
                self._judge_amount(_result(item, number), *question)
                for number, (item, question) in enumerate(zip(answers, questions, strict=True))
            ]
            both = Generations(max(each.oldest for each in judged), min(each.newest for each in judged))
            if both.oldest > both.newest:
                raise WrongAnswerError(f"two generations in one batch: {answer[:200]!r}")
            return both

        calls = [_request(number, "convert", _exchange(*question)) for number, question in enumerate(questions)]
        return Call("/api", json.dumps(calls).encode(), judge)

    def _judge_amount(self, result: object, amount: Decimal, base: str, target: str) -> Generations:
        exact = amount * (self._per_euro[target] / self._per_euro[base])
        right = {edition.generation: str((exact * edition.factor).quantize(CENT)) for edition in self.editions}
        return _span([generation for generation, expected in right.items() if result == expected], result)

    def _judge_receipt(self, number: int, currency: str, amount: Decimal, status: int, answer: bytes) -> Generations:
        receipt = _result(_parsed(status, answer), number)
        if not isinstance(receipt, dict) or receipt.keys() != {"till", "number", "text"}:
            raise WrongAnswerError(f"not a receipt: {receipt!r}")
        right = {
            edition.generation: f"{edition.receipt} {receipt['number']}: {amount} {currency}"
            for edition in self.editions
        }
        span = _span([generation for generation, text in right.items() if receipt["text"] == text], receipt)
        with self._tills_lock:
            till = self.tills.setdefault(receipt["till"], Till())
            if receipt["number"] in till.receipts:
                raise WrongAnswerError(f"receipt {receipt['number']} of till {receipt['till']} was given out twice")
            till.receipts[receipt["number"]] = span
            till.balances[currency] += amount
        return span


def _amount(random: Random) -> Decimal:
    return Decimal(random.randrange(100_00, 10_000_00)).scaleb(-2)


def _exchange(amount: Decimal, base: str, target: str) -> dict[str, str]:
    return {"amount": str(amount), "base": base, "target": target}


def _request(number: int, method: str, params: dict[str, str]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _parsed(status: int, answer: bytes) -> Any:
    if status != 200:
        raise WrongAnswerError(f"HTTP status {status}: {answer[:200]!r}")
    try:
        return json.loads(answer)
    except ValueError:
        raise WrongAnswerError(f"not JSON: {answer[:200]!r}") from None


def _result(answer: Any, number: int) -> Any:
    if not isinstance(answer, dict) or answer.get("id") != number or "result" not in answer:
        raise WrongAnswerError(f"call {number} was answered {answer!r}")
    return answer["result"]


def _span(generations: list[int], answer: object) -> Generations:
    if not generations:
        raise WrongAnswerError(f"no generation answers {answer!r}")
    return Generations(min(generations), max(generations))
