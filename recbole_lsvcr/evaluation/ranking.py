"""Ranks of the positives in an instance's list of scores, ties broken at random; which scores can be ranked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from recbole_lsvcr.errors import EvaluationError


@dataclass(frozen=True)
class Ranks:
    """Where the positives of B lists ended up.

    Attributes:
        ranks: int64[B, P], 1-based, ascending, 0-padded on the right.
        positives: int64[B], number of positives.
        lengths: int64[B], candidates in the list, positives included.
        average: float64[B], sum over the positives of the rank that is the mean over all orders of their ties.
    """

    ranks: np.ndarray
    positives: np.ndarray
    lengths: np.ndarray
    average: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """int64[B]: the rank of the best placed positive."""
        return self.ranks[:, 0]

    def listed(self) -> pl.Series:
        """The ranks of each list's positives, as one list of each."""
        table = pl.DataFrame({"ranks": self.ranks.astype(np.uint32), "positives": self.positives})
        return table.select(pl.col("ranks").arr.to_list().list.head(pl.col("positives")))["ranks"]

    def with_listed(self, listed: pl.Series) -> Ranks:
        """The same lists with other ranks, given as `listed` gives them; `average` is not known then (NaN).

        Raises:
            ValueError: not as many lists, or not as many positives in each.
        """
        if len(listed) != len(self.ranks) or (listed.list.len().to_numpy() != self.positives).any():
            raise ValueError("these are the ranks of other lists")
        ranks = np.zeros_like(self.ranks)
        ranks[self.ranks > 0] = listed.explode().to_numpy()
        return replace(self, ranks=ranks, average=np.full(len(ranks), np.nan))

    def at(self, rows: np.ndarray) -> Ranks:
        """The lists of `rows` (indices or a bool mask)."""
        return Ranks(self.ranks[rows], self.positives[rows], self.lengths[rows], self.average[rows])


def positive_columns(mask: torch.Tensor) -> torch.Tensor:
    """Columns of the set cells of a bool mask [B, C]: int64[B, P], ascending, padded with -1 (P is at least 1)."""
    rows, columns = mask.nonzero(as_tuple=True)
    return columns_of_pairs(rows, columns, len(mask))


def columns_of_pairs(rows: torch.Tensor, columns: torch.Tensor, n_rows: int) -> torch.Tensor:
    """(row, column) pairs in order of rows as a table int64[n_rows, P] of columns, padded with -1 (P is at least 1)."""
    counts = torch.bincount(rows, minlength=n_rows)
    first = counts.cumsum(0) - counts
    places = torch.arange(len(rows), device=rows.device) - first[rows]
    table = torch.full((n_rows, max(int(counts.max()) if n_rows else 0, 1)), -1, device=rows.device)
    table[rows, places] = columns
    return table


def positive_ranks(
    scores: torch.Tensor,
    positives: torch.Tensor,
    ties: np.random.Generator | np.ndarray,
    *,
    valid: torch.Tensor | None = None,
) -> Ranks:
    """Rank every positive among the candidates of its row, a higher score first, equal scores in random order.

    The list is counted, not sorted.

    Args:
        scores: float[B, C], finite where valid.
        positives: int64[B, P] columns padded with -1, or a bool mask [B, C]; every row has at least one.
        ties: breaks them: a generator, or random numbers of [0, 1) drawn before, float64[B, >= P].
        valid: bool[B, C], the columns that are candidates (positives always are); None: all of them.

    Returns:
        Ranks with `lengths` counted over the valid columns.
    """
    columns = positive_columns(positives) if positives.dtype == torch.bool else positives
    present = columns >= 0  # [B, P]
    own = scores.gather(1, columns.clamp(min=0))  # [B, P]
    greater, equal = _count(scores, own, present, valid)
    lengths = torch.full((len(scores),), scores.shape[1], device=scores.device) if valid is None else valid.sum(1)
    there = present.cpu().numpy()
    draws = ties.random(there.shape) if isinstance(ties, np.random.Generator) else ties
    # Host precision must tell apart what the device told apart: float64 holds every float format exactly.
    higher, same = greater.cpu().numpy(), equal.cpu().numpy()
    places = _tie_places(own.double().cpu().numpy(), there, same, draws)
    average = np.where(there, higher + (same + 1) / 2, 0.0).sum(1)
    ranks = np.where(there, higher + 1 + places, np.iinfo(np.int64).max)
    ranks.sort(axis=1)
    counts = there.sum(1)
    ranks[np.arange(ranks.shape[1]) >= counts[:, None]] = 0
    return Ranks(ranks, counts, lengths.cpu().numpy().astype(np.int64), average)


def _count(
    scores: torch.Tensor, own: torch.Tensor, present: torch.Tensor, valid: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every positive [B, P]: candidates scored higher, and candidates scored the same (itself included)."""
    greater = torch.zeros(own.shape, dtype=torch.int64, device=scores.device)
    equal = torch.zeros_like(greater)
    for place in range(own.shape[1]):
        rows = slice(None) if place == 0 else present[:, place].nonzero().squeeze(1)
        table, value = scores[rows], own[rows, place, None]
        above, same = table > value, table == value
        if valid is not None:
            above, same = above & valid[rows], same & valid[rows]
        greater[rows, place] = above.sum(1)
        equal[rows, place] = same.sum(1)
    return greater, equal


def _tie_places(own: np.ndarray, present: np.ndarray, equal: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """How many equally scored candidates each positive [B, P] ends up behind, in a random order of the tied ones.

    The positives are inserted one after the other into the row of their tied negatives, each at a random place; those
    behind it move up by one. That makes every order of them equally likely.
    """
    tied = (own[:, :, None] == own[:, None, :]) & present[:, :, None] & present[:, None, :]  # [B, P, P]
    negatives = equal - tied.sum(2)
    places = np.zeros(own.shape, dtype=np.int64)
    for place in range(own.shape[1]):
        before = tied[:, place, :place]
        slots = negatives[:, place] + before.sum(1) + 1
        chosen = np.minimum((draws[:, place] * slots).astype(np.int64), slots - 1)
        places[:, :place] += before & (places[:, :place] >= chosen[:, None])
        places[:, place] = chosen
    return places


def top_candidates(
    scores: torch.Tensor, k: int, *, valid: torch.Tensor | None = None, items: torch.Tensor | None = None
) -> np.ndarray:
    """Ids of the k best candidates of each row, best first: int64[B, k], 0 where a list is shorter.

    Args:
        scores: float[B, C]. valid: bool[B, C], the candidates. items: ids [C] or [B, C]; None: the column numbers.
    """
    ranked = scores if valid is None else scores.masked_fill(~valid, -torch.inf)
    best, columns = ranked.topk(min(k, scores.shape[1]), dim=1)
    ids = columns if items is None else (items[columns] if items.ndim == 1 else items.gather(1, columns))
    ids = torch.where(torch.isneginf(best), 0, ids)
    return torch.nn.functional.pad(ids, (0, k - ids.shape[1])).cpu().numpy()


def check_finite(
    scores: torch.Tensor, model: str, describe: Callable[[int, int], str], *, valid: torch.Tensor | None = None
) -> None:
    """Refuse scores that cannot be ranked.

    Args:
        scores: float[B, C].
        model: the model's name, for the message.
        describe: (row, column) -> the instance and candidate in words.
        valid: bool[B, C], the columns that count; None: all of them.

    Raises:
        EvaluationError: a NaN or infinite score on a column that counts.
    """
    counted = (
        scores
        if valid is None
        else torch.where(valid, scores, torch.zeros((), dtype=scores.dtype, device=scores.device))
    )
    # A sum is one pass without a mask; every cell is looked at only if it is not finite (by overflow too).
    wide = torch.float64 if counted.dtype == torch.float64 else torch.float32
    if bool(torch.isfinite(counted.sum(1, dtype=wide)).all()):
        return
    bad = (~torch.isfinite(counted)).nonzero()
    if len(bad):
        row, column = (int(number) for number in bad[0])
        raise EvaluationError(
            f"model '{model}' scored {float(counted[row, column])} for {describe(row, column)} ({len(bad)} of "
            f"{counted.numel()} scores of the batch are NaN or infinite); a score must be a finite number: "
            "look for a division by zero or a learning rate that is too high"
        )
