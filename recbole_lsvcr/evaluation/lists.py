"""One pass of a scorer over batches of instances: every protocol's lists are ranked from the same scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, runtime_checkable
from typing import Protocol as Interface

import numpy as np
import torch

from recbole_lsvcr.data.candidates import CandidateSet
from recbole_lsvcr.data.instances import InstanceBatch, Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation.ranking import Ranks, check_finite, positive_ranks, top_candidates


@runtime_checkable
class FullScorer(Interface):
    """Scores of every video: float[B, n_items], column 0 (padding) ignored. Its model is in evaluation mode."""

    def score_full(self, batch: InstanceBatch) -> torch.Tensor: ...


@runtime_checkable
class CandidateScorer(Interface):
    """Scores of given candidates (videos or comments) int64[B, C], 0-padded: float[B, C]; padding is ignored."""

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor: ...


def scorer_name(scorer: object) -> str:
    """The name a scorer goes by in messages and reports."""
    return str(getattr(scorer, "name", type(scorer).__name__))


@dataclass
class ProtocolRun:
    """The ranks of one protocol, collected batch by batch.

    `ties` are random numbers, `tie_offsets[p]:tie_offsets[p + 1]` those of the positives of the instance at position
    `p` of the phase: drawn before, so that the order and size of batches change nothing. `chosen` is the sampled
    candidate set, or None for a full ranking. `row_of` maps a position to a row of the set, -1 for no list.
    """

    protocol: Protocol
    ties: np.ndarray
    tie_offsets: np.ndarray
    chosen: CandidateSet | None = None
    row_of: np.ndarray | None = None
    top: int = 0
    positions: list[np.ndarray] = field(default_factory=list)
    parts: list[Ranks] = field(default_factory=list)
    top_parts: list[np.ndarray] = field(default_factory=list)

    def lists_of(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the instances have a list in the sampled set, and its rows there."""
        assert self.row_of is not None
        rows = self.row_of[positions]
        kept = np.flatnonzero(rows >= 0)
        return kept, rows[kept]

    def add(
        self,
        positions: np.ndarray,
        scores: torch.Tensor,
        positives: torch.Tensor,
        valid: torch.Tensor | None,
        items: torch.Tensor | None,
    ) -> None:
        """Rank the lists of the instances at `positions` [B]; `items` [B, C] or [C] are the candidates' ids."""
        if not len(positions):
            return
        begin, end = self.tie_offsets[positions], self.tie_offsets[positions + 1]
        places = begin[:, None] + np.arange(int((end - begin).max()))
        ties = self.ties[np.minimum(places, len(self.ties) - 1)]
        self.positions.append(positions)
        self.parts.append(positive_ranks(scores, positives, ties, valid=valid))
        if self.top:
            self.top_parts.append(top_candidates(scores, self.top, valid=valid, items=items))

    def collect(self) -> tuple[np.ndarray, Ranks, np.ndarray | None]:
        """Instance positions [I] in ascending order, their ranks, and the best candidates [I, top] if asked for."""
        positions = np.concatenate([*self.positions, np.zeros(0, np.int64)])
        width = max((part.ranks.shape[1] for part in self.parts), default=1)
        order = np.argsort(positions, kind="stable")

        def joined(name: str) -> np.ndarray:
            return np.concatenate([*(getattr(part, name) for part in self.parts), np.zeros(0, np.int64)])[order]

        padded = [np.pad(part.ranks, ((0, 0), (0, width - part.ranks.shape[1]))) for part in self.parts]
        ranks = np.concatenate([*padded, np.zeros((0, width), np.int64)])[order]
        best = np.concatenate(self.top_parts)[order] if self.top_parts else None
        return positions[order], Ranks(ranks, joined("positives"), joined("lengths"), joined("average")), best


class Pass:
    """Scores instances once and hands the scores to every protocol.

    Args:
        scorer: a `FullScorer` or `CandidateScorer`. data, kind: where the instances are from.
        rows: int64[I], the phase's instance rows. runs: one per protocol.
    """

    def __init__(self, scorer: Any, data: JointData, kind: Kind, rows: np.ndarray, runs: Sequence[ProtocolRun]) -> None:
        self.scorer, self.data, self.kind, self.rows = scorer, data, kind, rows
        self.runs = list(runs)
        self.sampled = [run for run in self.runs if run.chosen is not None]
        self.full = [run for run in self.runs if run.chosen is None]
        self.name = scorer_name(scorer)
        self.item_time = torch.from_numpy(data.tables.item_time)

    def videos_full(self, positions: np.ndarray, batch: InstanceBatch) -> None:
        """Score every video of a batch, then rank all protocols from the one table."""
        scores = self.scorer.score_full(batch)
        self._check_shape(scores, (len(positions), self.data.n_items))
        everything = scores[:, 1:]
        check_finite(everything, self.name, self._describe(batch, lambda row, column: column + 1))
        targets = torch.from_numpy(batch.item.astype(np.int64)).to(scores.device)
        for run in self.full:
            valid = None
            if run.protocol.only_available:
                times = torch.from_numpy(batch.time).to(scores.device)
                valid = self.item_time.to(scores.device)[1:] <= times[:, None]
                valid[torch.arange(len(targets), device=scores.device), targets - 1] = True
            items = torch.arange(1, self.data.n_items, device=scores.device)
            run.add(positions, everything, targets[:, None] - 1, valid, items)
        for run in self.sampled:
            kept, lists = run.lists_of(positions)
            items, positive = self._set_rows(run, lists, scores.device)
            rows = torch.from_numpy(kept).to(scores.device)
            run.add(positions[kept], scores[rows[:, None], items], positive, items > 0, items)

    def candidates(self, positions: np.ndarray, batch: InstanceBatch) -> None:
        """Score the sampled candidates of all protocols of a batch in one call."""
        if not self.sampled:
            return
        tables, spans, first = [], [], 0
        for run in self.sampled:
            assert run.chosen is not None
            kept, lists = run.lists_of(positions)
            table = np.zeros((len(positions), run.chosen.items.shape[1]), np.int64)
            table[kept] = run.chosen.items[lists]
            tables.append(table)
            spans.append((run, kept, lists, slice(first, first + table.shape[1])))
            first += table.shape[1]
        items = np.concatenate(tables, axis=1)  # [B, sum of C]
        scores = self._score_candidates(batch, items)
        for run, kept, lists, span in spans:
            ids, positive = self._set_rows(run, lists, scores.device)
            part = scores[torch.from_numpy(kept).to(scores.device)][:, span]
            run.add(positions[kept], part, positive, ids > 0, ids)

    def whole_lists(self, positions: np.ndarray, batch: InstanceBatch, items: np.ndarray, positive: np.ndarray) -> None:
        """Score whole lists int[B, C] (ascending ids, 0-padded) for the full protocols; the sampled ones are within."""
        scores = self._score_candidates(batch, items.astype(np.int64))
        ids = torch.from_numpy(items.astype(np.int64)).to(scores.device)
        flags = torch.from_numpy(positive).to(scores.device)
        for run in self.full:
            run.add(positions, scores, flags, ids > 0, ids)
        for run in self.sampled:
            kept, lists = run.lists_of(positions)
            chosen, chosen_positive = self._set_rows(run, lists, scores.device)
            columns = torch.from_numpy(_columns_in(items[kept], chosen.cpu().numpy())).to(scores.device)
            rows = torch.from_numpy(kept).to(scores.device)
            run.add(positions[kept], scores[rows[:, None], columns], chosen_positive, chosen > 0, chosen)

    def _score_candidates(self, batch: InstanceBatch, items: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(items)
        scores = self.scorer.score_candidates(batch, ids)
        self._check_shape(scores, items.shape)
        describe = self._describe(batch, lambda row, column: int(items[row, column]))
        check_finite(scores, self.name, describe, valid=(ids > 0).to(scores.device))
        return scores

    def _set_rows(self, run: ProtocolRun, lists: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        assert run.chosen is not None
        items = torch.from_numpy(run.chosen.items[lists].astype(np.int64)).to(device)
        return items, torch.from_numpy(run.chosen.positive[lists]).to(device)

    def _check_shape(self, scores: torch.Tensor, expected: tuple[int, ...]) -> None:
        if tuple(scores.shape) != tuple(expected):
            raise EvaluationError(
                f"model '{self.name}' gave scores of shape {tuple(scores.shape)} for {expected[0]} instances; expected "
                f"{tuple(expected)}, one score per instance and candidate (column 0 of a full ranking is padding)"
            )

    def _describe(self, batch: InstanceBatch, candidate: Callable[[int, int], int]) -> Callable[[int, int], str]:
        tables = self.data.tables
        names = tables.comments if self.kind == "comment" else tables.items

        def words(row: int, column: int) -> str:
            what, target = ("comment", "watched") if self.kind == "comment" else ("video", "target")
            video, user = tables.items[int(batch.item[row])], tables.users[int(batch.user[row])]
            return (
                f"{what} {names[candidate(row, column)]!r} in the list of user {user!r}, {target} video {video!r}, "
                f"time {batch.time[row]:.0f}"
            )

        return words


def _columns_in(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where `wanted` [B, D] stand in `table` [B, C] (ascending ids, then 0): columns int64[B, D], 0 for padding."""
    size = int(max(table.max(initial=0), wanted.max(initial=0))) + 2
    filled = np.where(table > 0, table, size - 1).astype(np.int64)
    shift = np.arange(len(table))[:, None] * size
    found = np.searchsorted((filled + shift).ravel(), (wanted + shift).ravel()).reshape(wanted.shape)
    return np.where(wanted > 0, found - np.arange(len(table))[:, None] * table.shape[1], 0)
