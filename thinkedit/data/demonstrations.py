"""SFT demonstrations: a scripted expert plays real episodes, each turn becomes one example.

The expert knows good practice (explicit references, preservation clauses) but not the quirks of
the editor at hand; what this editor obeys is left for reinforcement learning to find.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from thinkedit.actors.play import Policy, play_many
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.session import EditSession
from thinkedit.envs.tasks import TaskSource
from thinkedit.types import RGB, Observation

SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
        ("task_uid", pa.string()),
        ("turn", pa.int32()),
    ]
)
ROWS_PER_GROUP = 1024


def png(image: RGB) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def example(protocol: Protocol, observation: Observation, reply: str) -> dict[str, Any]:
    """One SFT row: the very text and images the policy will see, with `<image>` where an image goes."""
    images = protocol.images(observation)
    return {
        "messages": [
            {"role": "user", "content": "<image>" * len(images) + protocol.render_text(observation)},
            {"role": "assistant", "content": reply},
        ],
        "images": [{"bytes": png(image)} for image in images],
    }


async def write_demonstrations(
    path: Path,
    count: int,
    *,
    tasks: TaskSource,
    split: str,
    make_session: Callable[[], EditSession],
    expert: Policy,
    protocol: Protocol,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Play episodes until `count` examples are written to the parquet file `path`.

    Failed episodes give no example. The file appears only when it is complete.

    Returns:
        The number of episodes played.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    episodes = written = 0
    with pq.ParquetWriter(partial, SCHEMA) as writer:
        async for rows in _batches(tasks, split, make_session, expert, protocol, count):
            episodes += rows.pop("episodes")
            examples = rows["rows"][: count - written]
            writer.write_table(pa.Table.from_pylist(examples, schema=SCHEMA))
            written += len(examples)
            progress(written)
            if written == count:
                break
    partial.replace(path)
    return episodes


async def _batches(
    tasks: TaskSource,
    split: str,
    make_session: Callable[[], EditSession],
    expert: Policy,
    protocol: Protocol,
    count: int,
) -> AsyncIterator[dict[str, Any]]:
    """Rows of about ROWS_PER_GROUP examples at a time, in task order so that the file is repeatable."""
    index = 0
    while True:
        batch = range(index, index + min(ROWS_PER_GROUP, count))
        index = batch.stop
        episodes = [
            episode
            async for episode in play_many(
                make_session, ((tasks.task(split, i), i) for i in batch), expert, concurrency=64
            )
        ]
        order = {tasks.task(split, i).uid: i for i in batch}
        episodes.sort(key=lambda episode: order[episode.task.uid])
        rows = []
        for episode in episodes:
            if not episode.outcome.valid:
                continue
            edited = episode.first_edit
            assert edited is not None, "a valid episode has a first edit"
            for turn in episode.turns:
                observation = Observation(
                    source=episode.task.source,
                    edited=edited,
                    instruction=episode.task.instruction,
                    prompt=turn.prompt,
                    turn=turn.index,
                    turns_left=len(episode.turns) - turn.index,
                )
                rows.append(
                    example(protocol, observation, turn.reply)
                    | {"task_uid": episode.task.uid, "turn": turn.index}
                )
                edited = turn.edited
        yield {"rows": rows, "episodes": len(episodes)}
