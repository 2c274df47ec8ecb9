"""Negative videos drawn without replacement for many targets at once: uniform, by popularity, or of the week before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

PERIOD = 7 * 86_400.0  # seconds: the window of `period` negatives
_CELLS = 1 << 22  # cells of the largest temporary table
_ROUNDS = 3  # `popular` first draws this many times the number wanted


@dataclass(frozen=True)
class Targets:
    """What negatives are drawn for: target video and time (Unix seconds) of I instances."""

    items: np.ndarray  # int32[I]
    times: np.ndarray  # float64[I]

    def __len__(self) -> int:
        return len(self.items)


def distinct_positions(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different numbers of `range(sizes[i])` per row, every subset equally likely: int64[I, count].

    A row with `sizes[i] <= count` gets all of them, then -1. The order within a row is NOT random. (Floyd's algorithm,
    all rows in step: the cost does not depend on the sizes.)
    """
    chosen = np.where(np.arange(count) < sizes[:, None], np.arange(count), -1)
    large = np.flatnonzero(sizes > count)
    table = np.empty((len(large), count), np.int64)
    for step in range(count):
        newest = sizes[large] - count + step
        draw = rng.integers(0, newest + 1)
        taken = (table[:, :step] == draw[:, None]).any(axis=1)
        table[:, step] = np.where(taken, newest, draw)
    chosen[large] = table
    return chosen


def _blocks(n: int, size: int, what: str) -> Iterator[np.ndarray]:
    """`range(n)` in consecutive parts, with a progress bar."""
    with tqdm(total=n, desc=f"draw {what} negatives", unit="target", disable=None, leave=False) as bar:
        for first in range(0, n, max(size, 1)):
            rows = np.arange(first, min(first + max(size, 1), n))
            yield rows
            bar.update(len(rows))


class Catalogue:
    """The videos in order of the time they came to exist, so that those that exist at a time are a prefix.

    Args:
        item_time: float64[n_items], row 0 is padding.
        only_available: whether a target's pool holds only the videos that exist at its time.
    """

    def __init__(self, item_time: np.ndarray, *, only_available: bool) -> None:
        self.item_time = item_time
        self.only_available = only_available
        self.ordered = 1 + np.argsort(item_time[1:], kind="stable")  # [N]
        self.place = np.zeros(len(item_time), np.int64)  # [n_items] inverse of `ordered`
        self.place[self.ordered] = np.arange(len(self.ordered))

    def prefix(self, times: np.ndarray) -> np.ndarray:
        """int64[I]: how many of `ordered` are in the pool at each time (the target may or may not be among them)."""
        if not self.only_available:
            return np.full(len(times), len(self.ordered))
        return np.searchsorted(self.item_time[self.ordered], times, side="right")


def uniform(targets: Targets, count: int, catalogue: Catalogue, rng: np.random.Generator) -> np.ndarray:
    """Videos drawn uniformly from the pool without the target: int32[I, count], 0 where the pool was too small."""
    result = np.zeros((len(targets), count), np.int32)
    prefix, own = catalogue.prefix(targets.times), catalogue.place[targets.items]
    inside = own < prefix
    for rows in _blocks(len(targets), _CELLS // count, "uniform"):
        positions = distinct_positions((prefix - inside)[rows], count, rng)
        drawn = positions >= 0
        positions += inside[rows, None] & (positions >= own[rows, None])  # step over the target
        result[rows] = np.where(drawn, catalogue.ordered[positions], 0)
    return result


def popular(
    targets: Targets, count: int, catalogue: Catalogue, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Videos drawn one after the other in proportion to `weights`: int32[I, count], 0 where the pool was too small.

    A video of weight 0 (no training interaction) is never drawn. `weights` is [n_items]. Draws WITH replacement whose
    repeats are passed over have this law, and are quick where the pool is large; what is then missing comes from an
    exponential race (the smallest of Exp(1) / weight) among the videos that are left.
    """
    racing = weights[catalogue.ordered] > 0
    items, places = catalogue.ordered[racing], np.flatnonzero(racing)
    result = np.zeros((len(targets), count), np.int32)
    if not len(items):
        return result
    prefix = catalogue.prefix(targets.times)
    total = np.cumsum(weights[items].astype(np.float64))
    for rows in _blocks(len(targets), _CELLS // (_ROUNDS * count), "popular"):
        at = np.searchsorted(total, rng.random((len(rows), _ROUNDS * count)) * total[-1], side="right")
        at = np.minimum(at, len(items) - 1)  # a product may round up to the total
        fits = (places[at] < prefix[rows, None]) & (items[at] != targets.items[rows, None])
        order = np.argsort(at, axis=1, kind="stable")
        ranked = np.take_along_axis(at, order, axis=1)
        first = np.ones_like(fits)
        np.put_along_axis(first, order[:, 1:], ranked[:, 1:] != ranked[:, :-1], axis=1)
        kept = fits & first
        kept &= np.cumsum(kept, axis=1) <= count
        row, draw = np.nonzero(kept)
        result[rows[row], (np.cumsum(kept, axis=1) - 1)[row, draw]] = items[at[row, draw]]
    short = np.flatnonzero((result > 0).sum(axis=1) < count)
    slowness = (1.0 / weights[items]).astype(np.float32)
    for part in _blocks(len(short), _CELLS // len(items), "popular"):
        rows = short[part]
        finish = rng.standard_exponential((len(rows), len(items)), dtype=np.float32) * slowness
        finish[(places >= prefix[rows, None]) | (items == targets.items[rows, None])] = np.inf
        _fill_by_race(result, rows, finish, items, len(weights))
    return result


def _fill_by_race(result: np.ndarray, rows: np.ndarray, finish: np.ndarray, items: np.ndarray, n_items: int) -> None:
    """Fill the zeros on the right of `result[rows]` with the first finishers that are not drawn yet."""
    count = result.shape[1]
    column = np.zeros(n_items, np.int64)
    column[items] = np.arange(len(items))
    row, place = np.nonzero(result[rows])
    finish[row, column[result[rows[row], place]]] = np.inf
    have = (result[rows] > 0).sum(axis=1)
    take = min(count, len(items))
    best = np.argpartition(finish, take - 1, axis=1)[:, :take]
    best = np.take_along_axis(best, np.argsort(np.take_along_axis(finish, best, axis=1), axis=1), axis=1)
    reached = np.isfinite(np.take_along_axis(finish, best, axis=1))
    row, place = np.nonzero(reached & (np.arange(take) < (count - have)[:, None]))
    result[rows[row], have[row] + place] = items[best[row, place]]


def period(
    targets: Targets,
    count: int,
    catalogue: Catalogue,
    events: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    *,
    window: float = PERIOD,
    block: int = 512,
) -> np.ndarray:
    """Videos drawn uniformly from the different ones of `[t - window, t)`: int32[I, count], 0 where there are too few.

    Targets are taken in blocks of neighbours in time. Most videos of a block's windows are in every one of them (the
    core); only the others need a table of target × video.

    Args:
        events: (items, times) of everybody's interactions, sorted by time.
        window: seconds. block: targets handled at a time.
    """
    event_items, event_times = events
    result = np.zeros((len(targets), count), np.int32)
    order = np.argsort(targets.times, kind="stable")
    begin = np.searchsorted(event_times, targets.times[order] - window, side="left")
    end = np.searchsorted(event_times, targets.times[order], side="left")
    for part in _blocks(len(order), block, "period"):
        rows = order[part]
        seen = event_items[begin[part][0] : end[part][-1]]
        core, fringe, member = _pools(seen, begin[part], end[part], targets, rows, catalogue)
        positions = distinct_positions(len(core) + member.sum(axis=1), count, rng)
        # A position beyond the core is the n-th fringe video of that target's own window.
        own_fringe = np.argsort(~member, axis=1, kind="stable")
        beyond = np.clip(positions - len(core), 0, max(len(fringe) - 1, 0))
        choices = np.concatenate([core, fringe, [0]])
        index = np.where(positions < len(core), positions, len(core))
        if len(fringe):
            index = np.where(positions < len(core), index, len(core) + np.take_along_axis(own_fringe, beyond, axis=1))
        result[rows] = np.where(positions >= 0, choices[index], 0)
    return result


def _pools(
    seen: np.ndarray, begin: np.ndarray, end: np.ndarray, targets: Targets, rows: np.ndarray, catalogue: Catalogue
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Videos in the pool of every target of a block; those only some have; and which have them, bool[targets, fringe].

    `seen` are the videos of the events `begin[0]:end[-1]`; `begin` and `end` are non-decreasing.
    """
    begin, end = begin - begin[0], end - begin[0]
    always = np.zeros(len(catalogue.item_time), bool)
    always[seen[begin[-1] : end[0]]] = True
    always[targets.items[rows]] = False
    if catalogue.only_available:
        always &= catalogue.item_time <= targets.times[rows[0]]
    some = np.zeros_like(always)
    some[seen] = True
    core, fringe = np.flatnonzero(always), np.flatnonzero(some & ~always)
    column = np.full(len(always), -1)
    column[fringe] = np.arange(len(fringe))
    event = np.flatnonzero(column[seen] >= 0)
    # An event is in the windows of a run of neighbouring targets: +1 where the run starts, -1 where it ends.
    starts, stops = np.searchsorted(end, event, side="right"), np.searchsorted(begin, event, side="right")
    changes = np.zeros((len(rows) + 1, len(fringe)), np.int32)
    np.add.at(changes, (starts, column[seen[event]]), 1)
    np.add.at(changes, (stops, column[seen[event]]), -1)
    member = np.cumsum(changes[:-1], axis=0) > 0
    member &= fringe != targets.items[rows, None]
    if catalogue.only_available:
        member &= catalogue.item_time[fringe] <= targets.times[rows, None]
    return core, fringe, member
