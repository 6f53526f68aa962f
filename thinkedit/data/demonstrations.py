"""SFT demonstrations: a scripted expert plays real episodes, each turn becomes one example.

The expert knows good practice (explicit references, preservation clauses) but not the quirks of
the editor at hand; what this editor obeys is left for reinforcement learning to find.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from thinkedit.actors.play import Policy, play_many
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.session import EditSession
from thinkedit.envs.tasks import TaskSource
from thinkedit.errors import DataError
from thinkedit.types import RGB, Episode, Observation

SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
        ("task_uid", pa.string()),
        ("turn", pa.int32()),
    ]
)
EPISODES_PER_BATCH = 1024
FRUITLESS = 16  # episodes in a row without an example: those after them will hardly give one


def png(image: RGB) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def examples(protocol: Protocol, episode: Episode) -> Iterator[dict[str, Any]]:
    """An episode's turns as SFT rows: the very text and images the policy will see.

    `<image>` stands where an image goes. A failed episode gives none.
    """
    edited = episode.first_edit
    if not episode.outcome.valid or edited is None:
        return
    for turn in episode.turns:
        observation = Observation(
            source=episode.task.source,
            edited=edited,
            instruction=episode.task.instruction,
            prompt=turn.prompt,
            turn=turn.index,
            turns_left=len(episode.turns) - turn.index,
        )
        images = protocol.images(observation)
        text = "<image>" * len(images) + protocol.render_text(observation)
        yield {
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": turn.reply}],
            "images": [{"bytes": png(image)} for image in images],
            "task_uid": episode.task.uid,
            "turn": turn.index,
        }
        edited = turn.edited


async def write_demonstrations(
    counts: Mapping[Path, int],
    *,
    tasks: TaskSource,
    split: str,
    make_session: Callable[[], EditSession],
    expert: Policy,
    protocol: Protocol,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Play episodes until each parquet file has its count of examples; no two share an example.

    The files are the same whenever the arguments are, and each appears only when it is complete.

    Raises:
        DataError: episode after episode failed; says how.
    """
    first = written = 0
    fruitless: Counter[str] = Counter()  # outcomes since the last example
    left: list[dict[str, Any]] = []
    for path, count in counts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        missing = count
        with pq.ParquetWriter(partial, SCHEMA) as writer:
            while missing:
                if not left:
                    last = first + min(EPISODES_PER_BATCH, missing)
                    starts = ((tasks.task(split, index), index) for index in range(first, last))
                    episodes = [episode async for episode in play_many(make_session, starts, expert)]
                    episodes.sort(key=lambda episode: episode.seed)  # they finish in any order
                    left = [row for episode in episodes for row in examples(protocol, episode)]
                    first = last
                    fruitless = Counter() if left else fruitless + Counter(e.outcome for e in episodes)
                    if fruitless.total() >= FRUITLESS:
                        told = ", ".join(f"{outcome} {n:,}" for outcome, n in fruitless.most_common())
                        raise DataError(
                            f"{path}: {fruitless.total():,} episodes in a row gave no demonstration "
                            f"({told}): mend the editor (sft.editor, or editor) or the judge they go with"
                        )
                rows, left = left[:missing], left[missing:]
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                missing, written = missing - len(rows), written + len(rows)
                progress(written)
        partial.replace(path)
