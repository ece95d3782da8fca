"""The ledger of a till: an object with a state that must survive a reload.

Each worker process is a till of its own. Its receipts are numbered without a gap and its balances are held
in memory, in one place only, so there is something to lose. Two ways to keep them are shown: the application hands
the books of the process to each new ledger, and ``take_over``, at the end, does so in a reload of the ledger alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any

from flask_hotreload import HotRPC, JSONRPCError


@dataclass(frozen=True)
class Receipt:
    """``number`` counts from 1 in each ``till``, which is named by its process id."""

    till: int
    number: int
    text: str


@dataclass(frozen=True)
class Summary:
    """The state of one till: the receipts given out so far, and the balance of each currency."""

    till: int
    receipts: int
    balances: dict[str, Decimal]


class Ledger:
    """Deposits of one till. Its public methods are the dispatchers at ``/ledger``.

    ``books`` hold all of its state, in plain types, so that ledgers of other generations can go on with them.
    """

    def __init__(self, books: dict[str, Any] | None = None) -> None:
        self.books = {} if books is None else books
        self.books.setdefault("receipts", 0)
        self.balances: dict[str, Decimal] = self.books.setdefault("balances", {})

    def deposit(self, currency: str, amount: Decimal) -> Receipt:
        """Take in money and give out a receipt."""
        if amount <= 0:
            raise JSONRPCError(2, "A deposit is more than nothing")
        self.books["receipts"] += 1
        number: int = self.books["receipts"]
        self.balances[currency] = self.balances.get(currency, Decimal(0)) + amount
        return Receipt(os.getpid(), number, f"Deposit {number}: {amount} {currency}")

    def balance(self, currency: str) -> Decimal:
        """What the till holds of a currency."""
        return self.balances.get(currency, Decimal(0))

    def summary(self) -> Summary:
        """The whole state, to compare with what the clients remember."""
        return Summary(os.getpid(), self.books["receipts"], dict(self.balances))


def take_over(server: HotRPC, module: ModuleType, dispatcher: Ledger) -> None:
    """Hand the running ledger's state to its successor: ``"overload": ["take_over"]`` in the reload document.

    Runs in the new module, once in each worker, while no request is inside: nothing can be booked in between.
    ``server.get`` gives what is being replaced, here a bound method of the old ledger.
    """
    old = server.get("deposit", path="/ledger").__self__
    dispatcher.books, dispatcher.balances = old.books, old.balances
