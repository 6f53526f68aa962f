"""Rotary positions of a ragged batch, as verl's engine needs them."""

from __future__ import annotations

from typing import Any

from verl.utils.tensordict_utils import nested_tensor_from_tensor_list


def mend_position_ids(data: Any) -> None:
    """Rebuild a batch's three-axis rotary positions, in place.

    Rows are (4, length). Where all rows have one length torch takes the axes for the ragged
    dimension, and verl (utils/tensordict_utils.py, maybe_fix_3d_position_ids) then mislabels it:
    indexing such a batch crashes. Rebuilt from the rows, the ragged dimension is always the last.
    """
    positions = data.get("position_ids", None)
    if positions is not None and positions.is_nested and positions.dim() == 3:
        data["position_ids"] = nested_tensor_from_tensor_list(list(positions.unbind()), ragged_idx=2)
