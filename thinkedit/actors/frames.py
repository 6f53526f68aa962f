"""Stored episodes as flat tables, made column by column (no Python object per row)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandas as pd

_EPISODE_COLUMNS = ("uid", "group", "step", "seed", "task_uid", "task_type", "split", "instruction")


def turn_frame(table: pa.Table) -> pd.DataFrame:
    """One row per turn; see `TrajectoryStore.frame`."""
    turns = table["turns"].combine_chunks()
    parents = pc.list_parent_indices(turns)
    flat = pc.list_flatten(turns)
    columns: dict[str, Any] = {name: table[name].take(parents) for name in _EPISODE_COLUMNS}
    for name in ("index", "prompt", "reply", "think", "answer", "predicted_semantic", "predicted_quality"):
        columns[name] = flat.field(name)
    for moment in ("before", "after"):
        columns |= _verdict_columns(_under(flat, moment), moment)
    for name in ("outcome", "error", "end", "kept", "terminated", "truncated", "total", "edited", "detail"):
        columns[name] = _under(flat, name)
    columns["well_formed"] = pc.is_valid(columns["think"])
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    rewards = _map_columns(_under(flat, "terms"), "term/") | _map_columns(_under(flat, "weights"), "weight/")
    return frame.assign(**rewards)


def episode_frame(table: pa.Table) -> pd.DataFrame:
    """One row per episode; see `TrajectoryStore.frame`."""
    turns = table["turns"].combine_chunks()
    counts = pc.list_value_length(turns).to_numpy(zero_copy_only=False)
    columns: dict[str, Any] = {name: table[name] for name in (*_EPISODE_COLUMNS, "outcome")}
    columns["turns"] = pa.array(counts)
    first = table["first"].combine_chunks()
    columns |= _verdict_columns(first, "first")
    # The final verdict is the last turn's `after`; an episode without turns ends with its first edit.
    flat = pc.list_flatten(turns)
    last = pa.array(np.cumsum(counts) - 1, mask=counts == 0)
    end = _under(flat, "end").take(last)
    columns["end"] = end
    for name, value in _verdict_columns(_under(flat, "after").take(last), "final").items():
        columns[name] = pc.if_else(pa.array(counts == 0), columns[name.replace("final", "first")], value)
    columns["source"], columns["first_edit"] = table["source"], table["first_edit"]
    columns["tags"] = table["tags"]
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame.assign(**_map_columns(table["timings"].combine_chunks(), "time/"))


def _under(struct: pa.StructArray, name: str) -> pa.Array:
    """A struct's field with the struct's own nulls applied."""
    return pc.struct_field(struct, name)


def _verdict_columns(verdicts: pa.StructArray, moment: str) -> dict[str, pa.Array]:
    return {f"{moment}_{name}": _under(verdicts, name) for name in ("semantic", "quality", "judge_id")}


def _map_columns(maps: pa.MapArray, prefix: str) -> dict[str, Any]:
    """A map column as one float column per key, NaN where a row lacks it."""
    offsets = maps.offsets.to_numpy()
    rows = np.repeat(np.arange(len(maps)), np.diff(offsets))
    keys = maps.keys[offsets[0] : offsets[-1]].dictionary_encode()
    values = maps.items[offsets[0] : offsets[-1]].to_numpy(zero_copy_only=False)
    codes = keys.indices.to_numpy(zero_copy_only=False)
    columns = {}
    for code, key in enumerate(keys.dictionary.to_pylist()):
        column = np.full(len(maps), np.nan)
        chosen = codes == code
        column[rows[chosen]] = values[chosen]
        columns[f"{prefix}{key}"] = column
    return columns
