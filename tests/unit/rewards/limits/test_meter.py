"""What a plug-in sees: it waits for its turn, and whatever becomes of the call is accounted for."""

import asyncio
import time
from decimal import Decimal

import pytest

from thinkedit.configs.schema import CallLimits, LimitsConfig
from thinkedit.errors import BudgetExceeded, ServiceTimeout
from thinkedit.rewards.limits.ledger import Account
from thinkedit.rewards.limits.limiter import Limiter
from thinkedit.rewards.limits.meter import UNMETERED, Bill, Meter, Usage, picture_tokens, text_tokens

GUESS = Usage(prompt_tokens=100, completion_tokens=50, images=1)


def metered(patience_s: float = 5.0, **limits: object) -> tuple[Meter, Account]:
    limiter = Limiter(LimitsConfig(**limits), None)  # type: ignore[arg-type]
    return Meter(limiter, "judge", patience_s), limiter._ledger.account("judge", "m")


PRICED = {"judge": CallLimits(per_request=1.0, per_million_output=1e6)}


async def answered(bill: Bill) -> None:
    bill.answered(Usage(prompt_tokens=90, completion_tokens=2))


async def answered_without_usage(bill: Bill) -> None:
    bill.answered()


async def refused(bill: Bill) -> None:
    bill.unbilled()


async def silent(bill: Bill) -> None:
    raise TimeoutError


async def cancelled(bill: Bill) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (answered, Account(calls=1, prompt_tokens=90, completion_tokens=2, spend=Decimal(3))),
        (
            answered_without_usage,
            Account(calls=1, prompt_tokens=100, completion_tokens=50, images=1, spend=Decimal(51)),
        ),
        (refused, Account(calls=1, failed=1)),
        (
            silent,
            Account(calls=1, failed=1, prompt_tokens=100, completion_tokens=50, images=1, spend=Decimal(51)),
        ),
        (
            cancelled,
            Account(calls=1, failed=1, prompt_tokens=100, completion_tokens=50, images=1, spend=Decimal(51)),
        ),
    ],
)
async def test_every_end_of_a_call_is_billed_once(call: object, expected: Account) -> None:
    meter, account = metered(**PRICED)
    try:
        async with meter.call("m", GUESS) as bill:
            await call(bill)  # type: ignore[operator]
    except (TimeoutError, asyncio.CancelledError):
        pass
    assert account == expected


async def test_it_waits_for_its_turn() -> None:
    began = time.monotonic()
    meter, account = metered(judge=CallLimits(requests_per_minute=1200))
    for _ in range(4):
        async with meter.call("m", GUESS):
            pass
    assert time.monotonic() - began >= 4 * 0.05
    assert 0 < account.waited_s <= time.monotonic() - began


async def test_a_caller_who_gives_up_waiting_has_made_no_call() -> None:
    meter, account = metered(judge=CallLimits(requests_per_minute=12, per_request=1.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), meter.call("m", GUESS, patience_s=60):
            pytest.fail("it was let through")
    assert (account.calls, account.failed, account.spend) == (0, 0, 0)


async def test_the_plug_ins_deadline_holds_unless_the_caller_knows_better() -> None:
    meter, _ = metered(patience_s=1.0, judge=CallLimits(requests_per_minute=12))
    with pytest.raises(ServiceTimeout, match=r"after its deadline in 1\.0 s"):
        async with meter.call("m", GUESS):
            pass
    with pytest.raises(ServiceTimeout, match=r"after its deadline in 2\.0 s"):
        async with meter.call("m", GUESS, patience_s=2.0):
            pass


async def test_beyond_the_budget_nothing_is_called() -> None:
    meter, account = metered(budget=50.0, **PRICED)
    with pytest.raises(BudgetExceeded):
        async with meter.call("m", GUESS):
            pytest.fail("it was let through")
    assert (account.calls, account.refused) == (0, 1)


async def test_without_a_gate_nothing_happens() -> None:
    async with UNMETERED.call("m", GUESS) as bill:
        bill.answered(Usage(prompt_tokens=1))


def test_guesses_are_from_above() -> None:
    assert text_tokens("make the mug red and leave the rest alone") >= 10
    assert text_tokens("把红色的星星涂成蓝色") >= 10
    assert text_tokens("a lone surrogate \ud800") > 0
    assert picture_tokens(1024, 1024) >= 1369  # Qwen2.5-VL; GPT-4.1 takes 765, Qwen3-VL 1024
    assert picture_tokens(96, 96) >= 255  # GPT-4.1
