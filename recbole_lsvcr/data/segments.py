"""Vectorised look-ups in flat arrays that are cut into segments by offsets (one per user, video or record)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_COUNTED = 1 << 22  # ids counted at once
_AT_ONCE = 1 << 14  # queries bisected together: what is held for them stays in the processor's cache


def offsets_of(sorted_ids: np.ndarray, n: int) -> Ints:
    """Offsets `[n + 1]` of the segments of `sorted_ids` (non-decreasing ids in `[0, n)`)."""
    return np.searchsorted(sorted_ids, np.arange(n + 1, dtype=sorted_ids.dtype)).astype(np.int64, copy=False)


def offsets_from_sizes(sizes: np.ndarray) -> Ints:
    """Offsets `[n + 1]` of `n` segments that stand one after the other."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def stable_order(ids: np.ndarray, *then_by: np.ndarray) -> Ints:
    """The indices that sort by `ids`, equal ones by `then_by`, and else in the order in which they stand.

    All are whole numbers in `[0, 2**31)`. As `lexsort((…, ids))`, which takes more than twice as long.
    """
    if not then_by:
        return _order_of(ids)
    order = stable_order(*then_by)
    return order[_order_of(ids[order])]


def _order_of(ids: np.ndarray) -> Ints:
    packed = np.left_shift(ids, 32, dtype=np.int64)
    for first in range(0, len(ids), _AT_ONCE):
        packed[first : first + _AT_ONCE] |= np.arange(first, min(first + _AT_ONCE, len(ids)))
    packed.sort()
    packed &= 0xFFFFFFFF
    return packed


def search_segments(
    values: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    queries: np.ndarray,
    side: Literal["left", "right"] = "left",
) -> Ints:
    """`begin[q] + searchsorted(values[begin[q]:end[q]], queries[q], side)` for every query at once.

    A bisection in lock step: exact for float64 times, since no key is packed from user and time, and in the memory of
    an array as long as `queries`.
    """
    low = np.array(begin, np.int64)
    for first in range(0, len(low), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        _bisect(values, low[some], np.asarray(end[some], np.int64), queries[some], side)
    return low


def _bisect(
    values: np.ndarray, low: np.ndarray, end: np.ndarray, queries: np.ndarray, side: Literal["left", "right"]
) -> None:
    """`search_segments` for a few queries: moves `low` from the beginning of each segment to the place found."""
    size = end - low
    for _ in range(int(size.max(initial=0)).bit_length()):
        half = size >> 1
        # A finished query (size 0) may point one past the array; its probe is clipped and its result not used.
        probe = values.take(low + half, mode="clip")
        right = (probe < queries if side == "left" else probe <= queries) & (size > 0)
        low += np.where(right, half + 1, 0)
        size = np.where(right, size - half - 1, half)


def expand(begin: np.ndarray, end: np.ndarray) -> tuple[Ints, Ints]:
    """`(row, index)` of all ranges `begin[row]:end[row]`, one after the other; an empty range gives none."""
    counts = np.maximum(np.asarray(end, np.int64) - begin, 0)
    rows = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return rows, np.arange(len(rows)) - np.repeat(first - begin, counts)


def count_marked(ids: np.ndarray, marked: np.ndarray, n: int) -> Ints:
    """How often each id `[n]` occurs where `marked`; counted piece by piece, since NumPy copies what it counts."""
    counts = np.zeros(n, np.int64)
    for first in range(0, len(ids), _COUNTED):
        some = slice(first, first + _COUNTED)
        counts += np.bincount(ids[some][marked[some]], minlength=n)
    return counts


def rank_in_group(sorted_groups: np.ndarray) -> Ints:
    """0, 1, 2 … within each run of equal values of `sorted_groups`."""
    n = len(sorted_groups)
    starts = np.ones(n, bool)
    starts[1:] = sorted_groups[1:] != sorted_groups[:-1]
    position = np.arange(n)
    return position - np.maximum.accumulate(np.where(starts, position, 0))


def padded(values: np.ndarray, begin: np.ndarray, end: np.ndarray, fill: int) -> np.ndarray:
    """The ranges `values[begin[row]:end[row]]` as the rows of a table `[B, X]`, filled up on the right."""
    row, at = expand(begin, end)
    column = rank_in_group(row)
    table = np.full((len(begin), int(column.max(initial=-1)) + 1), fill, values.dtype)
    table[row, column] = values[at]
    return table
