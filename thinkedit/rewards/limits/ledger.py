"""What calls cost, by kind and model: added up over all processes and starts of a run, in one file."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from thinkedit.errors import DataError

LEDGER = "ledger.json"  # in a run folder
SCHEMA = 1
_SAVE_AFTER_S = 1.0


@dataclass(slots=True)
class Account:
    """Sums over calls of one model.

    calls: made, tries included. failed: of them, without an answer. refused: not made, for lack of
    budget or of time. images: shown to a judge, or made by an editor. spend: in the currency of the
    prices. waited_s: for their turn.
    """

    calls: int = 0
    failed: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    spend: Decimal = Decimal(0)
    waited_s: float = 0.0

    def add(self, other: Account, sign: int = 1) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + sign * getattr(other, field.name))


Accounts = dict[tuple[str, str], Account]
"""By kind and model."""


class Ledger:
    """Accounts of this process, added to those of all others in the file.

    Any number of processes may share a file: each adds what is new of its own, under a lock of the
    kernel's, and learns what the others spent. The caller guards `account` and `spend` by one lock and
    calls `changed` under it; a second later all is in the file, which appears whole or not at all.
    `save` does it at once.

    Args:
        path: None keeps it in memory.
        lock: what guards the accounts.

    Raises:
        DataError: the file is there and no ledger.
        OSError: its folder can't be written.
    """

    def __init__(self, path: Path | None, lock: threading.Lock) -> None:
        self._path, self._lock = path, lock
        self._mine: Accounts = {}
        self._written: Accounts = {}  # what the file has of ours
        self._others: Accounts = {}
        self._saving = threading.Lock()
        self._timer: threading.Timer | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                self._others = _read(path)

    def account(self, kind: str, model: str) -> Account:
        """This process's account, to be changed in place."""
        return self._mine.setdefault((kind, model), Account())

    def spend(self) -> Decimal:
        """Of all."""
        accounts = [*self._mine.values(), *self._others.values()]
        return sum((account.spend for account in accounts), Decimal(0))

    def changed(self) -> None:
        """Have it saved soon."""
        # Its thread is no daemon, so that a process that ends waits for it. A fork leaves it behind dead.
        if self._path is not None and not (self._timer and self._timer.is_alive()):
            self._timer = threading.Timer(_SAVE_AFTER_S, self.save)
            self._timer.start()

    def save(self) -> None:
        """Add what is new to the file."""
        if self._path is None:
            return
        with self._saving:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                mine = {key: replace(account) for key, account in self._mine.items()}
            if mine == self._written:
                return
            with _locked(self._path):
                others = _sum(_read(self._path), self._written, sign=-1)
                _write(self._path, _sum(others, mine))
            with self._lock:
                self._others, self._written = others, mine


def read_ledger(path: Path) -> dict[str, Any] | None:
    """A ledger as plain data, None where no call was metered.

    Returns:
        {"total": {…}, "by_model": [{"kind", "model", …}, …]}, each with the fields of `Account`.

    Raises:
        DataError: the file is no ledger.
    """
    return _as_dict(_read(path)) if path.exists() else None


def headline(spending: Mapping[str, Any]) -> str:
    """The total in one line, for a report. spending: a ledger as `read_ledger` gives it, and "budget"."""
    total, budget = spending["total"], spending["budget"]
    of = "" if budget is None else f" of {budget:,.2f}"
    tokens = total["prompt_tokens"] + total["completion_tokens"]
    parts = [f"{total['calls']:,} metered calls ({total['failed']:,} failed, {total['refused']:,} refused)"]
    parts += [f"{tokens:,} tokens"] if tokens else []
    return ", ".join([*parts, f"{total['images']:,} images", f"{total['spend']:,.2f}{of} spent"])


def _sum(one: Accounts, other: Accounts, sign: int = 1) -> Accounts:
    total = {key: replace(account) for key, account in one.items()}
    for key, account in other.items():
        total.setdefault(key, Account()).add(account, sign)
    return total


def _as_dict(accounts: Accounts) -> dict[str, Any]:
    total = Account()
    for account in accounts.values():
        total.add(account)
    rows = [{"kind": kind, "model": model, **_plain(a)} for (kind, model), a in sorted(accounts.items())]
    return {"total": _plain(total), "by_model": rows}


def _plain(account: Account) -> dict[str, Any]:
    return asdict(account) | {"spend": float(account.spend), "waited_s": round(account.waited_s, 3)}


def _read(path: Path) -> Accounts:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is no ledger ({error}); move it away to begin a new one") from error
    try:
        if record["schema"] != SCHEMA:
            raise DataError(f"{path} is a ledger of schema {record['schema']}, this version reads {SCHEMA}")
        return {(row["kind"], row["model"]): _account(row) for row in record["by_model"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is no ledger ({error!r}); move it away to begin a new one") from error


def _account(row: Mapping[str, Any]) -> Account:
    values = {field.name: row[field.name] for field in fields(Account)}
    return Account(**values | {"spend": Decimal(str(values["spend"]))})


def _write(path: Path, accounts: Accounts) -> None:
    part = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    record = {"schema": SCHEMA, **_as_dict(accounts)}
    part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file, among all processes. The lock is a file of its own: the ledger's is replaced."""
    with open(path.with_name(f".{path.name}.lock"), "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
