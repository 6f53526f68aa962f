"""Lets calls through: not faster than the limits, and not beyond the budget."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from thinkedit.configs.schema import CallLimits, LimitsConfig
from thinkedit.errors import BudgetExceeded, ConfigError, ServiceTimeout
from thinkedit.rewards.limits.ledger import Ledger
from thinkedit.rewards.limits.meter import Ask, Permit, Usage
from thinkedit.rewards.limits.window import Window

_MILLION = 1_000_000


class Limiter:
    """Limits and ledger of one process, or, behind a Ray actor, of a cluster. A `Gate`; thread-safe.

    A model's row in `limits.models` counts for it, else the row of its kind, which all models without
    one of their own share.

    Money is put by before a call, as much as it may cost, and corrected when the bill comes. So
    whatever is under way at the same time, spent and put by together never exceed the budget; beyond
    it goes only a call that costs more than was guessed and than any call of its model before. What is
    put by is in the ledger's file before the call is let through: a process that is killed has at most
    counted too much.

    Args:
        ledger: the run's file; None keeps it in memory.
        clock: monotonic, seconds.

    Raises:
        DataError, OSError: the ledger can't be read, or its folder not be written.
    """

    def __init__(
        self, config: LimitsConfig, ledger: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._clock = config, clock
        self._lock = threading.Lock()
        self._ledger = Ledger(ledger, self._lock)
        self._budget = None if config.budget is None else Decimal(str(config.budget))
        rows = {"editor": config.editor, "judge": config.judge}
        rows |= {_named(model): row for model, row in config.models.items()}
        self._windows = {
            name: (self._window(row.requests_per_minute), self._window(row.tokens_per_minute))
            for name, row in rows.items()
        }
        self._dearest: dict[tuple[str, str], Decimal] = {}

    async def reserve(self, ask: Ask, patience_s: float) -> Permit:
        wait_s = self.place(ask, patience_s)
        await asyncio.sleep(wait_s)
        permit = self._put_by(ask, wait_s)
        if permit.held:
            try:
                await asyncio.to_thread(self._ledger.save)
                with self._lock:
                    self._check_budget(ask, Decimal(0))  # what other processes put by is known now
            except BaseException:
                self.withdraw(permit)
                raise
        return permit

    def place(self, ask: Ask, patience_s: float) -> float:
        """A place in the queue, as the seconds until its turn. Raises as `reserve`."""
        name, row = self._row(ask)
        _check_size(ask, row, name)
        with self._lock:
            self._check_budget(ask, self._price(ask))  # or it would wait for nothing
            now, (requests, tokens) = self._clock(), self._windows[name]
            costs = [(requests, 1), (tokens, ask.guess.tokens)]
            at = max([now, *(window.moment(size, now) for window, size in costs if window)])
            if at - now > patience_s:
                self._refused(ask)
                raise ServiceTimeout(
                    f"{ask}: limits.{name} lets it go in {at - now:.1f} s, after its deadline in "
                    f"{patience_s:.1f} s; raise the limit or the deadline, or ask for less at a time"
                )
            for window, size in costs:
                if window:
                    window.take(size, at)
            return at - now

    def settle(self, permit: Permit, usage: Usage | None, *, failed: bool) -> None:
        ask = permit.ask
        name, row = self._row(ask)
        with self._lock:
            account = self._ledger.account(ask.kind, ask.model)
            account.failed += failed
            account.spend -= permit.held
            if usage is not None:
                price = cost(row, usage)
                account.spend += price
                account.prompt_tokens += usage.prompt_tokens
                account.completion_tokens += usage.completion_tokens
                account.images += usage.images
                key = (ask.kind, ask.model)
                self._dearest[key] = max(price, self._dearest.get(key, price))
                _, tokens = self._windows[name]
                if tokens and usage.tokens > ask.guess.tokens:
                    # Less than guessed is not given back: some servers count by what was asked for too.
                    tokens.owe(usage.tokens - ask.guess.tokens, self._clock())
            self._ledger.changed()

    def withdraw(self, permit: Permit) -> None:
        with self._lock:
            account = self._ledger.account(permit.ask.kind, permit.ask.model)
            account.calls -= 1
            account.spend -= permit.held
            self._ledger.changed()

    def flush(self) -> None:
        self._ledger.save()

    def _put_by(self, ask: Ask, waited_s: float) -> Permit:
        with self._lock:
            price = self._price(ask)
            self._check_budget(ask, price)
            account = self._ledger.account(ask.kind, ask.model)
            account.calls += 1
            account.spend += price
            account.waited_s += waited_s
            self._ledger.changed()
            return Permit(ask, price)

    # Called under the lock:

    def _price(self, ask: Ask) -> Decimal:
        """What a call may cost."""
        _, row = self._row(ask)
        return max(cost(row, ask.guess), self._dearest.get((ask.kind, ask.model), Decimal(0)))

    def _check_budget(self, ask: Ask, price: Decimal) -> None:
        spent = self._ledger.spend()
        if self._budget is not None and spent + price > self._budget:
            self._refused(ask)
            raise BudgetExceeded(
                f"{ask}: {spent:.4f} of limits.budget={self._budget:f} is spent or put by for calls under "
                f"way, and this one may cost {self._price(ask):.4f}; raise the budget to go on"
            )

    def _refused(self, ask: Ask) -> None:
        self._ledger.account(ask.kind, ask.model).refused += 1
        self._ledger.changed()

    def _row(self, ask: Ask) -> tuple[str, CallLimits]:
        if ask.model in self._config.models:
            return _named(ask.model), self._config.models[ask.model]
        return ask.kind, self._config.judge if ask.kind == "judge" else self._config.editor

    def _window(self, limit: int | None) -> Window | None:
        return None if limit is None else Window(limit, self._clock())


def is_metered(config: LimitsConfig) -> bool:
    """Whether anything is limited or priced; if not, calls need no limiter at all."""
    return config != LimitsConfig()


def cost(row: CallLimits, usage: Usage) -> Decimal:
    """What a billed call costs, exactly, in the currency of the prices."""
    return (
        _exact(row.per_million_input) * usage.prompt_tokens / _MILLION
        + _exact(row.per_million_output) * usage.completion_tokens / _MILLION
        + _exact(row.per_image) * usage.images
        + _exact(row.per_request)
    )


def _exact(price: float) -> Decimal:
    return Decimal(str(price))


def _named(model: str) -> str:
    return f"models.{model}"


def _check_size(ask: Ask, row: CallLimits, name: str) -> None:
    if row.tokens_per_minute is not None and ask.guess.tokens > row.tokens_per_minute:
        raise ConfigError(
            f"limits.{name}.tokens_per_minute={row.tokens_per_minute}: one call of {ask} is taken for "
            f"{ask.guess.tokens} tokens and could never be made; raise the limit, or lower max_tokens or "
            "max_side of the judge"
        )
