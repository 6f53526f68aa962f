"""Links between our pages lead somewhere, and nothing in them belongs to one machine."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [
        p.name for p in (ROOT / "docs").glob("*.md") if p.name != "index.md" and f"({p.name})" not in index
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_shown_exist(page: Path) -> None:
    from thinkedit.cli import COMMANDS

    blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    shown = re.findall(r"^(?:\$ )?thinkedit ([a-z-]+)", "\n".join(blocks), re.MULTILINE)
    assert set(shown) <= set(COMMANDS)


def test_pinned_sets_name_no_place() -> None:
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"://|^-|(^|\s)/|\+cpu", path.read_text(encoding="utf-8"), re.MULTILINE), (
            path.name
        )
