import json
import shutil
from pathlib import Path

import pytest
from benchmark_judge import FIXTURES
from graded import figures, values

from thinkedit.errors import DataError, UnknownName
from thinkedit.evals.benchmarks.imgedit import CRITERIA, ImgEdit


@pytest.fixture(scope="module")
def benchmark() -> ImgEdit:
    return ImgEdit(FIXTURES / "imgedit")


def marks(kind: str, *numbers: float) -> dict[str, float]:
    return dict(zip(CRITERIA[kind], numbers, strict=True))


def test_items_come_from_the_official_file(benchmark: ImgEdit) -> None:
    assert [(item.id, item.kind) for item in benchmark.items] == [
        ("11", "add"),
        ("12", "adjust"),
        ("13", "remove"),
        ("14", "replace"),
        ("15", "replace"),
    ]
    assert benchmark.items[0].source().shape == (96, 96, 3)
    assert len(ImgEdit(FIXTURES / "imgedit" / "singleturn.json").items) == 5


def test_results_lie_where_the_official_script_looks(benchmark: ImgEdit, tmp_path: Path) -> None:
    item = benchmark.items[0]
    assert benchmark.result(tmp_path, item) == tmp_path / "gen_image" / "11.png"
    assert benchmark.find(tmp_path, item) is None
    (tmp_path / "11.png").touch()  # its --result_img_folder holds the pictures themselves
    assert benchmark.find(tmp_path, item) == tmp_path / "11.png"


def test_overall_is_the_mean_of_items_and_macro_that_of_kinds(benchmark: ImgEdit) -> None:
    found = values(
        figures(
            benchmark,
            {
                "11": marks("add", 5, 4, 4),  # 13 / 3 = 4.33
                "12": marks("adjust", 3, 3, 3),  # 3
                "13": marks("remove", 1, 1, 1),  # 1
                "14": marks("replace", 5, 5, 5),  # 5
                "15": marks("replace", 4, 4, 3),  # 11 / 3 = 3.67
            },
            "imgedit",
        )
    )
    assert found["Add"] == 4.33  # rounded as the official script does
    assert found["Replace"] == pytest.approx((5 + 3.67) / 2)
    assert found["Overall"] == pytest.approx((4.33 + 3 + 1 + 5 + 3.67) / 5)  # 3.40
    assert found["Macro"] == pytest.approx((4.33 + 3 + 1 + 4.335) / 4)  # 3.17
    assert "Style" not in found


def test_a_missing_item_is_counted_and_withholds_the_headline(benchmark: ImgEdit) -> None:
    found = figures(benchmark, {"11": marks("add", 5, 4, 4)}, "imgedit")
    assert (found.coverage.n_expected, found.coverage.n_generated, found.coverage.n_judged) == (5, 1, 1)
    assert [figure.name for figure in found.figures if figure.withheld] == ["Overall"]


def test_both_pictures_are_shown_for_every_kind(benchmark: ImgEdit) -> None:
    item = benchmark.items[2]
    [ask] = benchmark.asks(item)
    edited = benchmark.items[0].source()
    source, result = ask.pictures(edited)
    assert (source == item.source()).all()
    assert result is edited
    assert ask.text.count(": <number>") == 3
    assert '"delete the red circle"' in ask.text


def test_every_kind_has_three_criteria_and_a_column(benchmark: ImgEdit) -> None:
    assert all(len(criteria) == 3 for criteria in CRITERIA.values())
    assert len(benchmark.tables()[0].columns) == len(CRITERIA) + 2


OFFICIAL = {
    "add": ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Coherence"),
    "adjust": ("Prompt Compliance", "Visual Seamlessness", "Physical & Detail Fidelity"),
    "extract": ("Object Identity", "Mask Precision", "Visual Quality"),
    "replace": ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity"),
    "remove": ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity"),
    "background": ("Instruction Compliance", "Visual Seamlessness", "Physical Consistency"),
    "style": ("Style Fidelity", "Content Preservation", "Rendering Quality"),
    "compose": ("Instruction Compliance", "Visual Naturalness", "Physical Consistency & Fine Detail"),
    "action": ("Action Fidelity", "Identity Preservation", "Visual & Anatomical Coherence"),
}


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> ImgEdit:
    """An item of each kind, in the file as the repository of the benchmark names it."""
    folder = tmp_path_factory.mktemp("kinds")
    shutil.copytree(FIXTURES / "imgedit" / "shapes", folder / "shapes")
    records = {kind: {"id": "shapes/11.png", "prompt": f"do {kind}", "edit_type": kind} for kind in OFFICIAL}
    (folder / "basic_edit.json").write_text(json.dumps(records))
    return ImgEdit(folder)


@pytest.mark.parametrize("kind", OFFICIAL)
def test_each_kind_is_asked_about_its_own_criteria(kind: str, every_kind: ImgEdit) -> None:
    item = next(item for item in every_kind.items if item.kind == kind)
    [ask] = every_kind.asks(item)
    asked, form = ask.text.split("Reply with four lines")
    assert f'"do {kind}"' in asked
    assert [line.split(":")[0][2:] for line in asked.splitlines() if line.startswith("- ")] == [
        *OFFICIAL[kind]
    ]
    assert form.splitlines()[1:] == [
        "Brief reasoning: <at most twenty words>",
        *(f"{name}: <number>" for name in OFFICIAL[kind]),
    ]
    reply = "\n".join(["Brief reasoning: 1 of 2.", *(f"{n}: {k}" for k, n in enumerate(OFFICIAL[kind], 3))])
    assert ask.read(reply) == dict(zip(OFFICIAL[kind], (3, 4, 5), strict=True))
    assert len(ask.pictures(item.source())) == 2


def test_faults_in_the_file_are_named(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "imgedit", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "singleturn.json"
    records = json.loads(file.read_text())
    for change, error, message in (
        ({"prompt": ""}, DataError, "item '12': prompt: expected text"),
        ({"edit_type": "ad"}, UnknownName, "Did you mean 'add'"),
        ({"id": "shapes/99.png"}, DataError, "there is no picture"),
    ):
        file.write_text(json.dumps(records | {"12": records["12"] | change}))
        with pytest.raises(error, match=message):
            ImgEdit(tmp_path)
    with pytest.raises(DataError, match=r"singleturn.json or basic_edit.json"):
        ImgEdit(tmp_path / "shapes")
