"""The limiter in one process: rates, places in the queue, money put by, and what threads can't break."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from thinkedit.configs.schema import CallLimits, LimitsConfig
from thinkedit.errors import BudgetExceeded, ConfigError, ServiceTimeout
from thinkedit.rewards.limits.ledger import read_ledger
from thinkedit.rewards.limits.limiter import Limiter, is_metered
from thinkedit.rewards.limits.meter import Ask, Permit, Usage
from thinkedit.rewards.limits.window import WINDOW_S

NOTHING = Usage()
EVER = 1e9


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask(guess: Usage = NOTHING, model: str = "m", kind: str = "judge") -> Ask:
    return Ask(kind, model, guess)


def limiter(clock: Clock | None = None, **limits: object) -> Limiter:
    return Limiter(LimitsConfig(**limits), None, clock or Clock())  # type: ignore[arg-type]


def admit(limiter: Limiter, ask: Ask, patience_s: float = EVER) -> Permit:
    return asyncio.run(limiter.reserve(ask, patience_s))


def totals(limiter: Limiter) -> dict[str, object]:
    account = limiter._ledger.account("judge", "m")
    return {"calls": account.calls, "refused": account.refused, "spend": account.spend}


def test_without_limits_nothing_is_metered() -> None:
    assert not is_metered(LimitsConfig())
    assert is_metered(LimitsConfig(editor=CallLimits(requests_per_minute=5)))
    assert is_metered(LimitsConfig(models={"m": CallLimits(per_image=0.1)}))


def test_calls_queue_in_order_and_are_told_when_to_go() -> None:
    clock = Clock()
    one = limiter(clock, judge=CallLimits(requests_per_minute=61))
    assert [round(one.place(ask(), EVER), 9) for _ in range(3)] == [1, 2, 3]
    clock.now += 1.5
    assert one.place(ask(), EVER) == pytest.approx(2.5)
    clock.now += 100  # what was not used is not saved up
    assert [round(one.place(ask(), EVER), 9) for _ in range(2)] == [0, 1]


def test_a_call_too_late_for_its_deadline_is_a_timeout_and_takes_no_place() -> None:
    one = limiter(judge=CallLimits(requests_per_minute=61, per_request=1.0))
    one.place(ask(), EVER)
    for _ in range(3):
        with pytest.raises(ServiceTimeout, match=r"in 2\.0 s, after its deadline in 1\.5 s"):
            one.place(ask(), 1.5)
    assert one.place(ask(), 2.1) == pytest.approx(2)
    assert totals(one) == {"calls": 0, "refused": 3, "spend": 0}


def test_more_tokens_than_guessed_delay_the_next_call_and_fewer_do_not_hasten_it() -> None:
    clock = Clock()
    one = limiter(clock, judge=CallLimits(tokens_per_minute=100 * int(WINDOW_S)))
    clock.now += 60
    guess = ask(Usage(prompt_tokens=200, completion_tokens=100))
    permit = admit(one, guess)
    one.settle(permit, Usage(prompt_tokens=250, completion_tokens=150), failed=False)
    assert one.place(guess, EVER) == pytest.approx(4)
    one.settle(Permit(guess, Decimal(0)), Usage(prompt_tokens=1), failed=False)
    assert one.place(guess, EVER) == pytest.approx(7)


def test_a_call_larger_than_a_minute_is_told_so() -> None:
    one = limiter(judge=CallLimits(tokens_per_minute=1000))
    with pytest.raises(ConfigError, match="tokens_per_minute=1000"):
        admit(one, ask(Usage(completion_tokens=1001)))


def test_a_model_of_its_own_has_its_own_queue_and_the_others_share_one() -> None:
    row = CallLimits(requests_per_minute=61)
    one = limiter(judge=row, models={"own": row})
    assert one.place(ask(model="a"), EVER) == pytest.approx(1)
    assert one.place(ask(model="b"), EVER) == pytest.approx(2)
    assert one.place(ask(model="own"), EVER) == pytest.approx(1)
    assert one.place(ask(kind="editor"), EVER) == 0


def test_the_bill_replaces_what_was_put_by() -> None:
    prices = CallLimits(per_million_input=2.0, per_million_output=8.0, per_image=0.01, per_request=0.1)
    one = limiter(judge=prices)
    permit = admit(one, ask(Usage(prompt_tokens=1000, completion_tokens=1000)))
    assert permit.held == Decimal("0.11")
    assert totals(one)["spend"] == Decimal("0.11")
    one.settle(permit, Usage(prompt_tokens=900, completion_tokens=50, images=1), failed=False)
    assert totals(one)["spend"] == Decimal("0.1122")
    one.settle(admit(one, ask()), None, failed=True)
    assert totals(one)["spend"] == Decimal("0.1122")


def test_a_call_that_was_not_made_costs_nothing() -> None:
    one = limiter(judge=CallLimits(per_request=1.0))
    one.withdraw(admit(one, ask()))
    assert totals(one) == {"calls": 0, "refused": 0, "spend": 0}


def test_a_dearer_call_than_guessed_teaches_how_much_to_put_by() -> None:
    one = limiter(judge=CallLimits(per_million_input=1e6), budget=10.0)
    one.settle(admit(one, ask(Usage(prompt_tokens=1))), Usage(prompt_tokens=4), failed=False)
    admit(one, ask(Usage(prompt_tokens=1)))
    with pytest.raises(BudgetExceeded, match=r"8\.0000 of limits\.budget=10\.0 .* may cost 4\.0000"):
        admit(one, ask(Usage(prompt_tokens=1)))


def test_who_would_find_the_budget_spent_does_not_wait_first() -> None:
    one = limiter(judge=CallLimits(per_request=1.0, requests_per_minute=1), budget=0.5)
    with pytest.raises(BudgetExceeded):
        admit(one, ask())


def test_the_budget_is_looked_at_again_when_the_turn_has_come() -> None:
    one = Limiter(LimitsConfig(judge=CallLimits(per_request=1.0, requests_per_minute=600), budget=1.0), None)

    async def two() -> list[object]:
        return await asyncio.gather(*(one.reserve(ask(), EVER) for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(two())
    assert (type(first), type(second)) == (Permit, BudgetExceeded)
    assert totals(one) == {"calls": 1, "refused": 1, "spend": 1}


def test_threads_together_spend_the_budget_to_the_last_cent_and_no_more() -> None:
    one = limiter(judge=CallLimits(per_request=0.1), budget=5.0)

    def spend(_: int) -> int:
        try:
            one.settle(admit(one, ask()), NOTHING, failed=False)
        except BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(spend, range(400))) == 50
    assert totals(one) == {"calls": 50, "refused": 350, "spend": 5}


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    limits = LimitsConfig(judge=CallLimits(per_request=0.1), budget=0.3)
    for _ in range(3):
        one = Limiter(limits, tmp_path / "ledger.json")
        one.settle(admit(one, ask()), NOTHING, failed=False)
        one.flush()
    resumed = Limiter(limits, tmp_path / "ledger.json")
    with pytest.raises(BudgetExceeded):
        admit(resumed, ask())
    resumed.flush()
    ledger = read_ledger(tmp_path / "ledger.json")
    assert ledger is not None
    assert (ledger["total"]["calls"], ledger["total"]["spend"], ledger["total"]["refused"]) == (3, 0.3, 1)


KILLED = """
import asyncio, sys
from pathlib import Path
from thinkedit.configs.schema import CallLimits, LimitsConfig
from thinkedit.rewards.limits.limiter import Limiter
from thinkedit.rewards.limits.meter import Ask, Usage

async def main():
    limiter = Limiter(LimitsConfig(judge=CallLimits(per_request=0.2), budget=0.3), Path(sys.argv[1]))
    await limiter.reserve(Ask("judge", "m", Usage()), 1.0)
    print("let through", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@pytest.mark.chaos
def test_a_call_is_in_the_file_before_it_is_let_through(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "let through\n"
        process.kill()
    resumed = Limiter(LimitsConfig(judge=CallLimits(per_request=0.2), budget=0.3), path)
    with pytest.raises(BudgetExceeded, match=r"0\.2000 of limits\.budget=0\.3"):
        admit(resumed, ask())


def test_two_processes_share_one_budget(tmp_path: Path) -> None:
    limits = LimitsConfig(judge=CallLimits(per_request=0.1), budget=0.5)
    one, two = (Limiter(limits, tmp_path / "ledger.json") for _ in range(2))
    made = 0
    for turn in [one, two] * 5:
        try:
            turn.settle(admit(turn, ask()), NOTHING, failed=False)
        except BudgetExceeded:
            continue
        made += 1
    assert made == 5
    one.flush()
    two.flush()
    ledger = read_ledger(tmp_path / "ledger.json")
    assert ledger is not None
    assert (ledger["total"]["calls"], ledger["total"]["spend"]) == (5, 0.5)


def test_a_ledger_that_cannot_be_written_lets_nothing_through(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ledger.json"
    one = Limiter(LimitsConfig(judge=CallLimits(per_request=0.1)), path)
    path.mkdir()  # as good as a full disk
    with pytest.raises(OSError, match="directory"):
        admit(one, ask())
    assert totals(one)["calls"] == 0
    path.rmdir()
    one.flush()
