"""Whatever is asked for and whenever: never faster than the limit, never beyond the budget."""

import asyncio
from decimal import Decimal
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from thinkedit.configs.schema import CallLimits, LimitsConfig
from thinkedit.errors import BudgetExceeded
from thinkedit.rewards.limits.limiter import Limiter, cost
from thinkedit.rewards.limits.meter import Ask, Permit, Usage
from thinkedit.rewards.limits.window import WINDOW_S, Window

MINUTE_S = 60.0

limits = st.integers(1, 10_000)
gaps = st.floats(0, 90) | st.floats(0, 0.5) | st.just(0.0)
shares = st.floats(0, 1)
delays = st.floats(0, WINDOW_S - MINUTE_S, exclude_max=True)


def let_through(window: Window, calls: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Moment and cost of each call, for (seconds since the call before, cost)."""
    asked = accumulate(gap for gap, _ in calls)
    granted = []
    for now, (_, size) in zip(asked, calls, strict=True):
        at = window.moment(size, now)
        window.take(size, at)
        granted.append((at, size))
        assert at >= now
    return granted


def heaviest_minute(calls: list[tuple[float, int]]) -> int:
    return max(sum(size for at, size in calls if start <= at < start + MINUTE_S) for start, _ in calls)


@given(limits, st.lists(st.tuples(gaps, delays), min_size=1, max_size=100))
def test_no_minute_holds_more_requests_than_the_limit_wherever_it_begins(
    limit: int, waits: list[tuple[float, float]]
) -> None:
    """As the server sees them, each up to a second late."""
    granted = let_through(Window(limit, 0.0), [(gap, 1) for gap, _ in waits])
    assert [at for at, _ in granted] == sorted(at for at, _ in granted)
    arrived = [(at + delay, 1) for (at, _), (_, delay) in zip(granted, waits, strict=True)]
    assert heaviest_minute(arrived) <= limit


@given(limits, st.lists(st.tuples(gaps, shares, delays), min_size=1, max_size=100))
def test_nor_more_tokens_whatever_the_size_of_a_call(
    limit: int, calls: list[tuple[float, float, float]]
) -> None:
    granted = let_through(Window(limit, 0.0), [(gap, round(share * limit)) for gap, share, _ in calls])
    arrived = [(at + delay, size) for (at, size), (_, _, delay) in zip(granted, calls, strict=True)]
    assert heaviest_minute(arrived) <= limit


@given(limits, st.lists(st.tuples(gaps, shares), min_size=1, max_size=50), shares)
def test_a_limiter_that_died_and_its_successor_together_keep_the_limit(
    limit: int, calls: list[tuple[float, float]], dies: float
) -> None:
    """Requests only: of tokens a call may lie on either side of the gap."""
    before = let_through(Window(limit, 0.0), [(gap, 1) for gap, _ in calls])
    death = before[-1][0] * dies
    after = let_through(Window(limit, death), [(death, 1), *((0.0, 1) for _ in range(100))])
    assert heaviest_minute([*((at, 1) for at, _ in before if at <= death), *after]) <= limit


@given(limits)
def test_who_always_asks_gets_the_limit_in_61_seconds(limit: int) -> None:
    granted = let_through(Window(limit, 0.0), [(0.0, 1)] * 200)
    pace = (granted[-1][0] - granted[0][0]) / 199
    assert abs(pace - WINDOW_S / limit) < 1e-6


@given(limits, shares)
def test_what_was_used_beyond_the_guess_is_waited_for(limit: int, share: float) -> None:
    window, owed = Window(limit, 0.0), round(share * limit)
    start = window.moment(1, 0.0)
    window.owe(owed, start)
    assert window.moment(1, start) >= start + owed * WINDOW_S / limit - 1e-6


PRICES = CallLimits(per_million_input=0.15, per_million_output=0.6, per_image=0.042, per_request=0.1)
usages = st.builds(
    Usage,
    prompt_tokens=st.integers(0, 10**6),
    completion_tokens=st.integers(0, 10**6),
    images=st.integers(0, 3),
)


@given(
    st.floats(0.01, 20).map(lambda budget: Decimal(f"{budget:.3f}")),
    st.lists(st.tuples(st.booleans(), usages, st.floats(0, 1)), max_size=60),
)
def test_spent_and_put_by_fill_the_budget_and_never_exceed_it(
    budget: Decimal, moves: list[tuple[bool, Usage, float]]
) -> None:
    """Calls start and end in any order, each using at most what was guessed."""
    asyncio.run(fill(budget, moves))


async def fill(budget: Decimal, moves: list[tuple[bool, Usage, float]]) -> None:
    limiter = Limiter(LimitsConfig(budget=float(budget), judge=PRICES), None)
    under_way: list[Permit] = []
    billed = dearest = Decimal(0)
    for starts, guess, share in moves:
        taken = billed + sum(permit.held for permit in under_way)
        assert taken <= budget
        if starts:
            fits = taken + max(cost(PRICES, guess), dearest) <= budget
            try:
                under_way.append(await limiter.reserve(Ask("judge", "m", guess), 0.0))
            except BudgetExceeded:
                assert not fits
            else:
                assert fits
        elif under_way:
            permit = under_way.pop(int(share * (len(under_way) - 1)))
            most = permit.ask.guess
            used = Usage(
                prompt_tokens=int(share * most.prompt_tokens),
                completion_tokens=int(share * most.completion_tokens),
                images=most.images,
            )
            limiter.settle(permit, used, failed=False)
            billed += cost(PRICES, used)
            dearest = max(dearest, cost(PRICES, used))
