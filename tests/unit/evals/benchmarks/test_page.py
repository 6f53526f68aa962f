"""The page in a real browser: sorted by gain, by score and by failure."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from benchmark_judge import FIXTURES

from thinkedit.evals.benchmarks.arms import FINAL, Course, Step, open_arm
from thinkedit.evals.benchmarks.imgedit import CRITERIA, ImgEdit
from thinkedit.evals.benchmarks.page import build_page
from thinkedit.evals.benchmarks.results import Results, count
from thinkedit.evals.benchmarks.store import Row

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TURNS = ["1", "2", FINAL]
MARKS = {"11": (2, 5), "12": (4, 1), "13": (3, 3), "14": (1, 2)}  # at turn 1 and 2; 15 can't be read


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    benchmark = ImgEdit(FIXTURES / "imgedit")
    arm = open_arm(folder / "arms", "a", {}, TURNS)
    rows = []
    for item in benchmark.items:
        images = [np.roll(item.source(), shift, axis=0) for shift in (5, 9)]
        steps = [Step(prompt="first", reason="<b>worse</b>"), Step(prompt="second & last")]
        arm.write(benchmark, item, Course(images=images, steps=steps, chosen=1, stop="turn_limit"))
        for turn in TURNS:
            mark = MARKS.get(item.id, ("?", "?"))[turn != "1"]
            reply = "\n".join(f"{name}: {mark}" for name in CRITERIA[item.kind])
            rows.append(Row(arm="a", item=item.id, turn=turn, metric="criteria", reply=reply))
    found = count(benchmark, "a", rows, TURNS, about={}, stops={}, failures={}, resamples=50, seed=0)
    results = Results(benchmark=benchmark, judge="j", judge_id="j-1", arms=[found], notes=["a note"])
    return build_page(results, [arm], folder / "judges" / "j-1")


def test_every_picture_of_an_item_is_beside_the_page(page: Path) -> None:
    html = page.read_text()
    shown = re.findall(r'<img src="([^"]+)"', html)
    assert len(shown) == 5 * 3  # source and two edits
    assert all((page.parent / path).is_file() for path in shown)
    assert "&lt;b&gt;worse&lt;/b&gt;" in html
    assert "withheld" in html
    assert "criteria</b>: Prompt Compliance: &#39;?&#39; is no whole number" in html


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
@pytest.mark.parametrize(
    ("order", "items"),
    [
        ("order", ["11", "12", "13", "14", "15"]),
        ("gain-down", ["11", "14", "13", "12", "15"]),  # +3, +1, 0, -3, none
        ("gain-up", ["12", "13", "14", "11", "15"]),
        ("score-up", ["12", "14", "13", "11", "15"]),  # 1, 2, 3, 5, none
        ("failed", ["15", "11", "12", "13", "14"]),
    ],
)
def test_items_are_sorted_by_gain_score_and_failure(
    page: Path, order: str, items: list[str], tmp_path: Path
) -> None:
    choose = f"""<script>
      const sort = document.getElementById("sort");
      sort.value = "{order}"; sort.dispatchEvent(new Event("change"));
    </script></body>"""
    chosen = page.with_name(f"chosen-{order}.html")
    chosen.write_text(page.read_text().replace("</body>", choose))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    command = [str(BROWSER), *flags, f"--user-data-dir={tmp_path}", chosen.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    assert re.findall(r'data-item="(\d+)"', dom) == items
    assert "5 of 5" in dom
