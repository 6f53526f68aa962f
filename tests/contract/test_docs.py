"""Links between our pages lead somewhere, and nothing in them belongs to one machine."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from thinkedit import cli
from thinkedit.configs.load import GROUPS, _refuse_unknown_path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)\s]+)", page.read_text(encoding="utf-8")) if "://" not in t]
    for target in targets:
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [
        p.name for p in (ROOT / "docs").glob("*.md") if p.name != "index.md" and f"({p.name})" not in index
    ] == []


@each_page
def test_commands_shown_can_be_typed(page: Path) -> None:
    """Command, options and the keys of overrides exist, and nothing that must be given is missing."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^    (.+)$", text, re.MULTILINE)
    lines += re.findall(r"`([^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True) if "thinkedit " in line else []
        if words[:1] != ["thinkedit"] or words[1].startswith("-"):
            continue
        name, *given = words[1:]
        assert name in cli.COMMANDS, line
        program = typer.Typer()
        program.command(name)(cli.COMMANDS[name].load())
        command = typer.main.get_command(program)
        try:
            command.make_context(name, ["1" if word == "N" else word for word in given])
        except Exception as error:
            mentioned = f"`{line}`" in text and "Missing" in type(error).__name__
            if not mentioned and "does not exist" not in str(error):  # a run's folder
                raise AssertionError(f"{line}: {error}") from error
        if "overrides" in {parameter.name for parameter in command.params}:
            keys = [word.partition("=")[0] for word in given if re.match(r"[a-z][a-z_.@]*=", word)]
            for key in keys:
                if key.partition("@")[0] not in GROUPS:
                    _refuse_unknown_path(key.split("."), value=None)


def test_pinned_sets_name_no_place() -> None:
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"://|^-|(^|\s)/|\+cpu", path.read_text(encoding="utf-8"), re.MULTILINE), (
            path.name
        )
