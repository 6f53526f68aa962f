"""Arms judged through a real HTTP server, one benchmark after the other."""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest
from benchmark_judge import FIXTURES, answering, pictures, question
from chat_server import Answer, Call, ChatServer, Fails, Says
from PIL import Image

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.envs.images import read_rgb
from thinkedit.envs.tasks import TaskSource
from thinkedit.errors import ConfigError, DataError, JudgeRefused, JudgeUnreadable, UnknownName
from thinkedit.evals.benchmarks import FROM_FILES, open_benchmark
from thinkedit.evals.benchmarks.arms import FINAL, Arm, Course, Step, open_arm
from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.graders import grader_for
from thinkedit.evals.benchmarks.results import Results
from thinkedit.evals.benchmarks.run import judge_arms, locked, replay
from thinkedit.rewards.judges.base import Judge

TURNS = ["1", "2", "3", FINAL]


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _answers(server: ChatServer) -> None:
    server.choose, server.delay_s = answering(), 0.0
    server.reset()


def chat_judge(server: ChatServer, **options: Any) -> Judge:
    judge: Judge = plugins.build(
        "judges",
        "viescore",
        {"base_url": server.base_url, "api_key_env": None, "model": "grader", "backoff_s": 0.01, **options},
    )
    return judge


def benchmark_of(name: str) -> Benchmark:
    config = load_config("demo", ["eval.tasks=3"])
    tasks: TaskSource = plugins.build("tasks", "world")
    return open_benchmark(name, FIXTURES / name if name in FROM_FILES else None, config, tasks)


def make_arm(benchmark: Benchmark, out: Path, name: str = "thinker", leave_out: int = 0) -> Arm:
    """Items make one, two and three edits in turn; each edit is another picture."""
    arm = open_arm(out / "arms", name, {"editor": "drawn"}, TURNS)
    items = [item for item in benchmark.items if not item.unsupported]
    for k, item in enumerate(items[: len(items) - leave_out]):
        images = [np.roll(item.source(), 9 * (edit + 1) + k, axis=0) for edit in range(1 + k % 3)]
        steps = [Step(prompt=f"prompt {edit}", reason="not yet") for edit in range(len(images))]
        arm.write(benchmark, item, Course(images=images, steps=steps, chosen=len(images) - 1, stop="ok"))
    return arm


def evaluate(
    benchmark: Benchmark, arms: list[Arm], judge: Judge, out: Path, **options: Any
) -> tuple[Results, Path]:
    defaults: dict[str, Any] = {
        "only_final": False,
        "again": False,
        "concurrency": 8,
        "failures": {},
        "resamples": 50,
        "seed": 0,
        "progress": lambda label, done, total: None,
    }
    grader = grader_for(judge, benchmark)
    return asyncio.run(judge_arms(benchmark, arms, grader, out, **(defaults | options)))


def made_edits(benchmark: Benchmark) -> int:
    return sum(1 + k % 3 for k in range(sum(not item.unsupported for item in benchmark.items)))


@pytest.mark.parametrize("name", sorted(FROM_FILES))
def test_each_question_about_each_picture_is_asked_once(
    name: str, server: ChatServer, tmp_path: Path
) -> None:
    benchmark = benchmark_of(name)
    arm = make_arm(benchmark, tmp_path)
    judge = chat_judge(server)
    results, folder = evaluate(benchmark, [arm], judge, tmp_path)
    assert results.complete
    asked = {(question(call), *pictures(call)) for call in server.calls}
    assert len(asked) == len(server.calls)  # filled-forward turns cost nothing
    items = [item for item in benchmark.items if not item.unsupported]
    wanted = sum((1 + k % 3) * len(benchmark.asks(item)) for k, item in enumerate(items))
    assert len(server.calls) == wanted

    before = (folder / "figures.csv").read_text()
    server.reset()
    evaluate(benchmark, [arm], judge, tmp_path)
    assert not server.calls
    assert (folder / "figures.csv").read_text() == before
    judge.close()


@pytest.mark.parametrize("name", sorted([*FROM_FILES, "world"]))
def test_stored_replies_give_the_same_figures(name: str, server: ChatServer, tmp_path: Path) -> None:
    benchmark = benchmark_of(name)
    arm = make_arm(benchmark, tmp_path, leave_out=1)
    judge: Judge = plugins.build("judges", "world") if name == "world" else chat_judge(server)
    results, folder = evaluate(benchmark, [arm], judge, tmp_path)
    assert not results.complete
    server.reset()
    _, other = replay(benchmark, folder / "replies.jsonl", [], tmp_path / "new", resamples=50, seed=0)
    assert not server.calls
    for file in ("figures.csv", "items.csv"):
        assert (other / file).read_text() == (folder / file).read_text()
    answered = "answered by " + ("world" if name == "world" else "grader-2026")  # as the server calls it
    for place in (folder, other):
        assert answered in (place / "tables.md").read_text()
    judge.close()


def test_every_headline_comes_with_its_coverage(server: ChatServer, tmp_path: Path) -> None:
    benchmark = benchmark_of("imgedit")
    _, folder = evaluate(
        benchmark, [make_arm(benchmark, tmp_path, leave_out=1)], chat_judge(server), tmp_path
    )
    summary = json.loads((folder / "summary.json").read_text())
    table = summary["arms"]["thinker"]["tables"]["imgedit"][FINAL]
    assert table["coverage"]["n_expected"] == 5
    assert table["coverage"]["n_generated"] == table["coverage"]["n_judged"] == 4
    assert table["columns"]["Overall"]["value"] is None
    assert table["columns"]["Overall"]["withheld"]
    assert table["columns"]["Add"]["value"]["mean"] == 4.0
    assert not summary["complete"]
    assert "the published ImgEdit-Bench has 737" in summary["notes"][0]
    assert "| withheld | " in (folder / "tables.md").read_text()
    rows = list(csv.DictReader((folder / "figures.csv").open()))
    overall = [row for row in rows if row["column"] == "Overall" and row["source"] == "measured"]
    assert {row["value"] for row in overall} == {""}
    assert {row["n_expected"] for row in overall} == {"5"}


def test_turns_have_the_same_items_and_gains_are_paired(server: ChatServer, tmp_path: Path) -> None:
    """Item k makes 1 + k % 3 edits; its first edit gets 2 and later ones 4."""
    benchmark = benchmark_of("imgedit")
    arm = make_arm(benchmark, tmp_path)
    first = {question_of(benchmark, item_id): path for item_id, path in first_pictures(benchmark, arm)}

    def mark(call: Call) -> int:
        return 2 if pictures(call)[1] == first[question(call)] else 4

    server.choose = answering(mark)
    results, folder = evaluate(benchmark, [arm], chat_judge(server), tmp_path)
    [found] = results.arms
    by_turn = {turn: found.table("imgedit", turn) for turn in TURNS}
    assert {table.coverage.n_judged for table in by_turn.values()} == {5}
    means = {
        turn: figure.interval.mean
        for turn, table in by_turn.items()
        if (figure := table.headline()) and figure.interval
    }
    # Edits by item: 1, 2, 3, 1, 2.
    assert means == {"1": 2.0, "2": 3.2, "3": 3.2, FINAL: 3.2}
    grown = found.gains["imgedit"]
    assert grown is not None
    assert (grown.mean, grown.n) == (pytest.approx(1.2), 5)
    assert "| thinker | measured | 2.00 " in (folder / "tables.md").read_text()


def question_of(benchmark: Benchmark, item_id: str) -> str:
    item = next(item for item in benchmark.items if item.id == item_id)
    return benchmark.asks(item)[0].text


def first_pictures(benchmark: Benchmark, arm: Arm) -> list[tuple[str, str]]:
    import base64
    import io

    found = []
    for item in benchmark.items:
        path = arm.picture(benchmark, item, "1")
        assert path is not None
        buffer = io.BytesIO()
        Image.open(path).save(buffer, "PNG", compress_level=1)
        url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        found.append((item.id, url))
    return found


def test_unreadable_and_refused_replies_are_kept_counted_and_not_paid_again(
    server: ChatServer, tmp_path: Path
) -> None:
    benchmark = benchmark_of("risebench")
    arm = make_arm(benchmark, tmp_path)
    usual = answering()

    def choose(call: Call) -> Answer:
        if "a purple star stands at top-left" in question(call):
            return Says("Final Score: 4.5")
        if "no circle is left" in question(call):
            return Says(None, refusal="I won't.")
        if "the star is green" in question(call):
            return Fails(503)
        return usual(call)

    server.choose = choose
    judge = chat_judge(server, tries=2)
    results, folder = evaluate(benchmark, [arm], judge, tmp_path, only_final=True)
    coverage = results.arms[0].table("risebench").coverage
    assert (coverage.n_expected, coverage.n_judged) == (6, 3)
    assert (coverage.n_parse_failed, coverage.n_refused, coverage.n_unanswered) == (1, 1, 1)
    rows = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert "Final Score: 4.5" in {row["reply"] for row in rows}

    server.reset()
    server.choose = usual
    results, _ = evaluate(benchmark, [arm], judge, tmp_path, only_final=True)
    assert len(server.calls) == 1  # what nobody answered; the others stand
    coverage = results.arms[0].table("risebench").coverage
    assert (coverage.n_judged, coverage.n_parse_failed, coverage.n_refused) == (4, 1, 1)

    server.reset()
    results, _ = evaluate(benchmark, [arm], judge, tmp_path, only_final=True, again=True)
    assert len(server.calls) == 2
    assert results.complete
    judge.close()


def test_half_a_character_in_a_reply_or_an_error_ends_nothing(server: ChatServer, tmp_path: Path) -> None:
    """JSON can hold a lone surrogate; UTF-8 and sqlite can't."""
    benchmark = benchmark_of("imgedit")
    usual = answering()

    def choose(call: Call) -> Answer:
        if "delete the red circle" in question(call):
            return Fails(400, {"error": {"message": "bad \ud83d"}})
        answer = usual(call)
        assert isinstance(answer, Says)
        return Says(f"Brief reasoning: nice \ud83d\n{answer.text}")

    server.choose = choose
    judge = chat_judge(server, tries=1)
    results, folder = evaluate(benchmark, [make_arm(benchmark, tmp_path)], judge, tmp_path, only_final=True)
    coverage = results.arms[0].table("imgedit").coverage
    assert (coverage.n_judged, coverage.n_unanswered) == (4, 1)
    assert "nice ?" in (folder / "replies.jsonl").read_text()
    judge.close()


def test_a_changed_result_is_judged_anew(server: ChatServer, tmp_path: Path) -> None:
    benchmark = benchmark_of("imgedit")
    arm = make_arm(benchmark, tmp_path)
    judge = chat_judge(server)
    evaluate(benchmark, [arm], judge, tmp_path)
    server.reset()
    item = benchmark.items[0]
    image = np.roll(item.source(), 9, axis=1)
    arm.write(benchmark, item, Course(images=[image], steps=[Step(prompt="p")], chosen=0, stop="ok"))
    results, _ = evaluate(benchmark, [arm], judge, tmp_path)
    assert len(server.calls) == 1
    assert results.complete
    judge.close()


@pytest.mark.parametrize(
    ("name", "picture", "asked"),
    [
        ("imgedit", "shapes/11.png", 1),
        ("risebench", "spatial_reasoning_images/3_ref.png", 3),
        ("krisbench", "viewpoint_change/1_gt.png", 3),
        ("krisbench", "temporal_prediction/1-2.png", 3),
    ],
)
def test_a_result_is_judged_anew_beside_another_picture(
    name: str, picture: str, asked: int, server: ChatServer, tmp_path: Path
) -> None:
    """Source, reference, truth or a frame: the reply was about what the judge saw then."""
    data = tmp_path / "data"
    shutil.copytree(FIXTURES / name, data)
    theirs = tmp_path / "theirs"
    for item in FROM_FILES[name](data).items:
        path = theirs / f"{item.path}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FIXTURES / "imgedit" / "shapes" / "11.png", path)
    arm, judge = Arm("theirs", theirs, [FINAL], foreign=True), chat_judge(server)
    evaluate(FROM_FILES[name](data), [arm], judge, tmp_path)
    Image.fromarray(np.roll(read_rgb(data / picture), 5, axis=1)).save(data / picture)
    server.reset()
    results, _ = evaluate(FROM_FILES[name](data), [arm], judge, tmp_path)
    assert len(server.calls) == asked
    assert results.complete
    judge.close()


def test_judges_and_arms_stand_side_by_side(server: ChatServer, tmp_path: Path) -> None:
    benchmark = benchmark_of("imgedit")
    arms = [make_arm(benchmark, tmp_path, name) for name in ("a", "b")]
    _, one = evaluate(benchmark, arms, chat_judge(server), tmp_path)
    assert len(server.calls) == 2 * made_edits(benchmark)
    server.reset()
    _, other = evaluate(benchmark, arms, chat_judge(server, temperature=0.5), tmp_path)
    assert one != other
    assert len(server.calls) == 2 * made_edits(benchmark)
    text = (one / "tables.md").read_text()
    assert "| a | measured |" in text
    assert "| FLUX.1-Kontext-dev + EditThinker-8B | published | 3.82 |" in text


def test_results_of_others_are_judged_in_their_own_layout(server: ChatServer, tmp_path: Path) -> None:
    """Also of items that no editor of ours can make."""
    benchmark = benchmark_of("krisbench")
    theirs = tmp_path / "theirs"
    for item in benchmark.items:
        path = theirs / f"{item.path}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FIXTURES / "krisbench" / "biology" / "1.png", path)
    arm = Arm("theirs", theirs, [FINAL], foreign=True)
    results, _ = evaluate(benchmark, [arm], chat_judge(server), tmp_path)
    coverage = results.arms[0].table("krisbench-temporal").coverage
    assert (coverage.n_expected, coverage.n_judged, coverage.n_unsupported) == (6, 6, 0)
    assert {len(pictures(call)) for call in server.calls} == {1, 2, 3, 4}


def test_a_damaged_result_is_counted_as_missing_and_the_others_are_judged(
    server: ChatServer, tmp_path: Path
) -> None:
    benchmark = benchmark_of("imgedit")
    theirs = tmp_path / "theirs"
    shutil.copytree(FIXTURES / "imgedit" / "shapes", theirs)
    whole = (theirs / "12.png").read_bytes()
    (theirs / "12.png").write_bytes(whole[: len(whole) // 2])
    arm = Arm("theirs", theirs, [FINAL], foreign=True)
    judge = chat_judge(server)
    results, folder = evaluate(benchmark, [arm], judge, tmp_path)
    coverage = results.arms[0].table("imgedit").coverage
    assert (coverage.n_expected, coverage.n_generated, coverage.n_judged) == (5, 4, 4)
    [row] = [row for row in csv.DictReader((folder / "items.csv").open()) if row["item"] == "12"]
    assert row["status"] == "missing"
    assert "12.png: not a readable picture" in row["faults"]
    _, other = replay(benchmark, folder / "replies.jsonl", [arm], tmp_path / "new", resamples=50, seed=0)
    for file in ("figures.csv", "items.csv"):
        assert (other / file).read_text() == (folder / file).read_text()
    (theirs / "12.png").write_bytes(whole)
    server.reset()
    results, _ = evaluate(benchmark, [arm], judge, tmp_path)
    assert results.complete
    assert len(server.calls) == 1
    judge.close()


def test_what_another_system_did_not_make_is_missing_however_many_pictures_it_takes(
    server: ChatServer, tmp_path: Path
) -> None:
    benchmark = benchmark_of("krisbench")
    theirs = tmp_path / "theirs"
    for item in benchmark.items:
        if item.kind != "multi-element_composition":
            path = theirs / f"{item.path}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(FIXTURES / "krisbench" / "biology" / "1.png", path)
    arm = Arm("theirs", theirs, [FINAL], foreign=True)
    judge = chat_judge(server)
    results, _ = evaluate(benchmark, [arm, make_arm(benchmark, tmp_path, "ours")], judge, tmp_path)
    statuses = [arm.grades[FINAL]["multi-element_composition/1"].status for arm in results.arms]
    assert statuses == ["missing", "unsupported"]
    assert [note for note in results.notes if "theirs" in note] == []
    assert not results.complete
    judge.close()


@pytest.mark.parametrize("text", [None, '{"score": [4, 9]}'])
def test_a_reply_that_was_cut_off_is_unreadable_and_no_refusal(
    server: ChatServer, tmp_path: Path, text: str | None
) -> None:
    benchmark = benchmark_of("gedit")
    server.choose = lambda call: Says(text, finish="length")
    judge = chat_judge(server, tries=1)
    results, _ = evaluate(benchmark, [make_arm(benchmark, tmp_path)], judge, tmp_path, only_final=True)
    coverage = results.arms[0].table("gedit-en-full").coverage
    assert (coverage.n_parse_failed, coverage.n_refused) == (2, 0)
    judge.close()


@pytest.mark.parametrize(
    ("error", "counts"), [(JudgeUnreadable("no scores"), (3, 0)), (JudgeRefused("never"), (0, 3))]
)
def test_a_judge_that_grades_by_itself_may_be_unreadable_too(
    error: Exception, counts: tuple[int, int], tmp_path: Path
) -> None:
    benchmark = benchmark_of("world")
    judge = plain.BrokenJudge(plain.raising(error), good=0)
    results, _ = evaluate(benchmark, [make_arm(benchmark, tmp_path)], judge, tmp_path, only_final=True)
    coverage = results.arms[0].table("world").coverage
    assert (coverage.n_parse_failed, coverage.n_refused) == counts


def test_a_judge_without_a_chat_model_is_refused_where_one_is_needed() -> None:
    world: Judge = plugins.build("judges", "world")
    with pytest.raises(ConfigError, match="judge=viescore"):
        grader_for(world, benchmark_of("gedit"))


def test_replies_that_belong_nowhere_are_refused(tmp_path: Path) -> None:
    benchmark = benchmark_of("imgedit")
    file = tmp_path / "replies.jsonl"
    good = {"item": "11", "metric": "criteria", "reply": "hm"}
    for lines, error, message in (
        ([good, good], DataError, "line 2: replay / 11 / final / criteria is there twice"),
        ([good | {"item": "10"}], UnknownName, "unknown item"),
        ([good | {"metric": "criterion"}], UnknownName, "Did you mean 'criteria'"),
        ([good | {"reply": 4}], DataError, "reply: expected text or null"),
        (["{"], DataError, "line 1: not JSON"),
        ([], DataError, "no replies in it"),
    ):
        file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
        with pytest.raises(error, match=message):
            replay(benchmark, file, [], tmp_path, resamples=50, seed=0)


def test_bare_replies_are_enough_to_count(tmp_path: Path) -> None:
    """Item, metric and reply, as another program may have stored them."""
    benchmark = benchmark_of("gedit")
    marks = {"SC": '{"score": [4, 9]}', "PQ": '{"score": [9, 9]}'}
    file = tmp_path / "replies.jsonl"
    file.write_text(
        "\n".join(
            json.dumps({"item": item.id, "metric": metric, "reply": reply})
            for item in benchmark.items
            for metric, reply in marks.items()
        )
    )
    results, folder = replay(benchmark, file, [], tmp_path, resamples=50, seed=0)
    assert results.complete
    [arm] = results.arms
    headline = arm.table("gedit-cn-intersection").headline()
    assert headline is not None
    assert headline.interval is not None
    assert headline.interval.mean == 6.0
    assert (folder / "report.html").is_file()


def test_one_evaluation_at_a_time_in_a_folder(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="another evaluation is at work")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
