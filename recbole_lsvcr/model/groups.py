"""Rows of similar length computed together: padding costs nothing where most histories are short. Pure PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 64  # rows of a group; below this a group's fixed cost outweighs the padding it saves
GROUPS = 4  # groups of rows with, and of rows without, comment records


@dataclass(frozen=True)
class StreamInput:
    """One stream of a batch, oldest step first, padding on the right (its content is never read)."""

    text: Tensor  # z [B, n, d], n >= 1
    length: Tensor  # int64 [B], existing steps per row; 0 is an empty stream
    ids: Tensor | None = None  # ungated id embeddings [B, n, d]
    positions: Tensor | None = None  # int64 [n]; None is 0 … n-1

    def rows(self, index: Tensor) -> StreamInput:
        """The rows `index` [R], without the columns that are padding in all of them (one column is kept)."""
        length = self.length[index]
        n = max(int(length.max()), 1)
        return StreamInput(
            self.text[:, :n].index_select(0, index),
            length,
            None if self.ids is None else self.ids[:, :n].index_select(0, index),
            None if self.positions is None else self.positions[:n],
        )


def by_length(compute: Callable[..., Tensor], videos: StreamInput, records: StreamInput, *others: Tensor) -> Tensor:
    """`compute(videos, records, *others)` [B, d], done in groups of rows of similar length where that saves work.

    Rows do not depend on each other, so the result is that of one call but for the draws of dropout. On an accelerator,
    which is slowed by small batches more than by padding, it is one call.
    """
    groups = _groups(videos, records) if videos.length.device.type == "cpu" else []
    if len(groups) < 2:
        return compute(videos, records, *others)
    parts = [compute(videos.rows(rows), records.rows(rows), *(other[rows] for other in others)) for rows in groups]
    return torch.cat(parts).index_select(0, torch.cat(groups).argsort())


def _groups(videos: StreamInput, records: StreamInput) -> list[Tensor]:
    """Row indices of each group; one group when the padding saved is small."""
    order = torch.argsort(videos.length, stable=True)
    without = records.length[order] == 0
    groups = [rows for half in (order[without], order[~without]) for rows in _cut(half)]
    work = sum(len(rows) * (_longest(videos, rows) + _longest(records, rows)) for rows in groups)
    whole = len(order) * (videos.text.shape[1] + records.text.shape[1])
    return groups if work < 0.9 * whole else []


def _cut(rows: Tensor) -> list[Tensor]:
    if not len(rows):
        return []
    return list(rows.tensor_split(max(min(len(rows) // SMALLEST, GROUPS), 1)))


def _longest(stream: StreamInput, rows: Tensor) -> int:
    return max(int(stream.length[rows].max()), 1)
