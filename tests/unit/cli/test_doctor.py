import sys
from pathlib import Path

import pytest

from thinkedit.cli import doctor


def test_a_supported_python_is_ok() -> None:
    assert doctor.python().state == "ok"


def test_another_python_is_refused_with_a_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    finding = doctor.python()
    assert finding.state == "bad"
    assert "3.12" in finding.mend


def test_base_packages_are_installed_where_tests_run() -> None:
    assert doctor.unmet_requirements(extra=None) == []


def test_an_unmet_requirement_names_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-package-anywhere", "pillow>=1", 'torch>=1; extra == "cpu"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    problems = doctor.unmet_requirements(extra=None)
    assert len(problems) == 2
    assert problems[0].startswith("numpy >=999 (found ")
    assert problems[1] == "no-such-package-anywhere"


def test_a_run_folder_that_is_not_there_yet_is_checked_at_its_parent(tmp_path: Path) -> None:
    finding = doctor.run_folder(tmp_path / "runs" / "later")
    assert finding.state in ("ok", "bad")  # bad only where the disk is nearly full
    assert str(tmp_path) in finding.seen


def test_a_run_folder_that_cannot_be_written_is_bad(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    finding = doctor.run_folder(blocked)
    assert finding.state == "bad"
    assert "run_dir=" in finding.mend


def test_a_module_that_cannot_be_imported_tells_why() -> None:
    finding = doctor.importable("no_such_module_anywhere")
    assert finding.state == "bad"
    assert "No module named" in finding.seen


def test_little_memory_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: doctor.GIB)
    assert doctor.memory().state == "bad"


def test_processes_can_talk_here() -> None:
    assert doctor.free_port().state == "ok"


def test_the_set_to_train_with_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "unmet_requirements", lambda extra: [f"part-of-{extra}"])
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: None)
    assert doctor.training_set().seen == "set cpu lacks part-of-cpu"
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: f"/bin/{tool}")
    assert "SET=gpu" in doctor.training_set().mend
