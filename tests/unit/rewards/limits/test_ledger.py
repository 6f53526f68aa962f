"""The ledger's file: whole, added up over all who write it, and refused when it is something else."""

import json
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from thinkedit.errors import DataError
from thinkedit.rewards.limits.ledger import Ledger, headline, read_ledger

WRITE = """
import sys, threading
from decimal import Decimal
from pathlib import Path
from thinkedit.rewards.limits.ledger import Ledger

lock = threading.Lock()
ledger = Ledger(Path(sys.argv[1]), lock)
print("ready", flush=True)
for k in range(int(sys.argv[2])):
    with lock:
        account = ledger.account("judge", f"m{k % 2}")
        account.calls += 1
        account.spend += Decimal("0.1")
    ledger.save()
"""


def writer(path: Path, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, str(path), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def add(ledger: Ledger, **sums: int) -> None:
    account = ledger.account("editor", "flux")
    for name, value in sums.items():
        setattr(account, name, getattr(account, name) + value)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ledger.json"
    writers = [writer(path, 50) for _ in range(3)]
    assert [process.wait(timeout=60) for process in writers] == [0] * 3
    ledger = read_ledger(path)
    assert ledger is not None
    assert [(row["model"], row["calls"], row["spend"]) for row in ledger["by_model"]] == [
        ("m0", 75, 7.5),
        ("m1", 75, 7.5),
    ]
    assert (ledger["total"]["calls"], ledger["total"]["spend"]) == (150, 15.0)


@pytest.mark.chaos
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    for _ in range(2):
        process = writer(path, 10**6)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    ledger = read_ledger(path)
    assert ledger is not None
    assert ledger["total"]["calls"] > 2
    assert ledger["total"]["spend"] == pytest.approx(ledger["total"]["calls"] / 10)


def test_what_others_spent_is_learned_and_a_second_save_adds_nothing(tmp_path: Path) -> None:
    one, two = (Ledger(tmp_path / "ledger.json", threading.Lock()) for _ in range(2))
    one.account("judge", "m").spend += Decimal("1.5")
    one.save()
    assert two.spend() == 0
    two.account("judge", "m").spend += Decimal("0.25")
    two.save()
    two.save()
    assert two.spend() == Decimal("1.75")
    assert one.spend() == Decimal("1.5")
    one.account("judge", "m").spend += 1
    one.save()
    assert one.spend() == Decimal("2.75")


def test_a_change_is_on_disk_soon_without_anyone_asking(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger(path, threading.Lock())
    add(ledger, calls=1)
    ledger.changed()
    add(ledger, calls=1)
    ledger.changed()
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    found = read_ledger(path)
    assert found is not None
    assert found["total"]["calls"] == 2


def test_a_process_that_ends_has_written_everything(tmp_path: Path) -> None:
    code = WRITE.replace("ledger.save()", "ledger.changed()")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "ledger.json"), "7"], check=True)
    ledger = read_ledger(tmp_path / "ledger.json")
    assert ledger is not None
    assert ledger["total"]["calls"] == 7


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 9, "by_model": []}', '"x"'])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"ledger\.json"):
        Ledger(path, threading.Lock())
    assert path.read_text() == text


def test_the_headline_says_calls_tokens_pictures_and_money(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "ledger.json") is None
    ledger = Ledger(tmp_path / "ledger.json", threading.Lock())
    add(ledger, calls=1234, failed=5, refused=6, prompt_tokens=1000, completion_tokens=500, images=7)
    ledger.account("editor", "flux").spend += Decimal("12.345")
    ledger.save()
    found = read_ledger(tmp_path / "ledger.json")
    assert found is not None
    line = "1,234 metered calls (5 failed, 6 refused), 1,500 tokens, 7 images"
    assert headline({"budget": None, **found}) == f"{line}, 12.35 spent"
    assert headline({"budget": 50.0, **found}) == f"{line}, 12.35 of 50.00 spent"
    assert json.loads((tmp_path / "ledger.json").read_text())["by_model"][0]["kind"] == "editor"
