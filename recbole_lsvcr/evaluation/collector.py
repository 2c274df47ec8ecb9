"""RecBole's collector and metrics fed with one ranked list per instance (the only module here that needs RecBole)."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.register import metric_information

from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation.ranking import (
    Ranks,
    check_finite,
    columns_of_pairs,
    positive_columns,
    positive_ranks,
    top_candidates,
)

_EXACT = 16  # decimal places
_FORGOTTEN = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")  # after every evaluation


def needs_items(metric: str) -> bool:
    """Whether a metric of RecBole's is of the ranked videos themselves (ItemCoverage …), not of positives' ranks."""
    return "rec.items" in metric_information.get(metric.lower(), ())


class InstanceCollector(Collector):
    """RecBole's `Collector` for one list per instance: ties are broken at random, unrankable scores are an error.

    Against RecBole's: `rec.topk` and `rec.meanrank` come from ranks that were counted, so neither a catalogue smaller
    than `topk` nor a list without masked columns is a special case; `rec.score` and `data.label` are those of the
    candidates only; metrics that need `data.num_items` or `data.count_items` work (RecBole 1.2.1 calls `.cpu()` on
    them).

    Args:
        config: RecBole's `Config`. seed: of the ties.
    """

    def __init__(self, config: Any, seed: int = 0) -> None:
        super().__init__(config)
        self.generator = np.random.default_rng(seed)

    def eval_batch_collect(
        self, scores_tensor: torch.Tensor, interaction: Any, positive_u: torch.Tensor, positive_i: torch.Tensor
    ) -> None:
        """Collect full rankings: scores [B, n_items] in which what is no candidate (padding, …) is -inf.

        `positive_u`, `positive_i`: row and item of every positive, in order of rows.

        Raises:
            EvaluationError: NaN or +inf anywhere, or -inf for a positive.
        """
        del interaction  # the labels of a list are known from its positives
        device = scores_tensor.device
        positives = columns_of_pairs(positive_u.to(device), positive_i.to(device), len(scores_tensor))
        self.collect_lists(scores_tensor, positives, valid=~torch.isneginf(scores_tensor))

    def collect_lists(
        self,
        scores: torch.Tensor,
        positives: torch.Tensor,
        *,
        valid: torch.Tensor | None = None,
        items: torch.Tensor | None = None,
    ) -> None:
        """Collect B lists.

        Args:
            scores: float[B, C]. positives: int64[B, P] columns padded with -1, or bool[B, C].
            valid: bool[B, C], the candidates; None: all. items: ids [B, C]; None: the column numbers.

        Raises:
            EvaluationError: a candidate's score is NaN or infinite.
        """
        name = str(self.config["model"])
        check_finite(scores, name, lambda row, column: f"list {row} of a batch, column {column}", valid=valid)
        columns = positive_columns(positives) if positives.dtype == torch.bool else positives
        if valid is not None and not bool((valid.gather(1, columns.clamp(min=0)) | (columns < 0)).all()):
            raise EvaluationError(f"model '{name}' scored -inf for a positive; a score must be a finite number")
        ranks = positive_ranks(scores, columns, self.generator, valid=valid)
        best = (
            top_candidates(scores, max(self.topk), valid=valid, items=items)
            if self.register.need("rec.items")
            else None
        )
        self.collect_ranks(ranks, best)
        if self.register.need("rec.score") or self.register.need("data.label"):
            every = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
            label = torch.zeros_like(scores)
            rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(columns)
            label[rows[columns >= 0], columns[columns >= 0]] = 1.0
            self.data_struct.update_tensor("rec.score", scores[every])
            self.data_struct.update_tensor("data.label", label[every])

    def collect_ranks(self, ranks: Ranks, best: np.ndarray | None = None) -> None:
        """Collect lists that are ranked already; `best` int64[B, max(topk)] are their first candidates.

        Raises:
            EvaluationError: a configured metric needs the candidates, and `best` is missing or too narrow.
        """
        cut = max(self.topk)
        if self.register.need("rec.topk"):
            self.data_struct.update_tensor("rec.topk", torch.from_numpy(_hits(ranks, cut)))
        if self.register.need("rec.meanrank"):
            table = np.column_stack([ranks.average, ranks.lengths, ranks.positives]).astype(np.float64)
            self.data_struct.update_tensor("rec.meanrank", torch.from_numpy(table))
        if self.register.need("rec.items"):
            if best is None or best.shape[1] < cut:
                raise EvaluationError(
                    f"metrics {list(self.register.metrics)} need the ranked videos themselves, which were not kept; "
                    f"call evaluate(..., top_items={cut}), or choose metrics of ranks (Recall, NDCG, MRR, Hit, GAUC …)"
                )
            self.data_struct.update_tensor("rec.items", torch.from_numpy(best[:, :cut]))

    def get_data_struct(self) -> DataStruct:
        """What was collected, on the CPU; what belongs to one evaluation is then forgotten."""
        stored = self.data_struct._data_dict
        stored.update({key: value.cpu() for key, value in stored.items() if isinstance(value, torch.Tensor)})
        collected = copy.deepcopy(self.data_struct)
        for key in _FORGOTTEN:
            stored.pop(key, None)
        return collected


def evaluate_lists(
    config: Any, ranks: Ranks, best: np.ndarray | None = None, item_count: np.ndarray | None = None
) -> dict[str, float]:
    """RecBole's metrics of ranked lists, not rounded: rounded ones tie, and early stopping would not see a gain.

    Args:
        config: RecBole's `Config`. ranks: of I lists.
        best: int64[I, k], the first candidates (for coverage and the like).
        item_count: int64[n_items], training interactions per item (for popularity metrics).

    Raises:
        EvaluationError: a configured metric needs scores, or candidates that are not given.
    """
    collector = InstanceCollector(config)
    if collector.register.need("rec.score"):
        raise EvaluationError(
            f"metrics {list(collector.register.metrics)} need scores, not ranks; choose ranking metrics (Recall …)"
        )
    collector.collect_ranks(ranks, best)
    struct = collector.get_data_struct()
    if item_count is not None:
        struct.set("data.num_items", len(item_count))
        struct.set("data.count_items", Counter(dict(enumerate(item_count.tolist()))))
    evaluator = Evaluator(config)
    for metric in evaluator.metric_class.values():
        metric.decimal_place = _EXACT
    return {name: float(value) for name, value in evaluator.evaluate(struct).items()}


def _hits(ranks: Ranks, cut: int) -> np.ndarray:
    """RecBole's `rec.topk` int32[B, cut + 1]: which of the first places are positives, and how many there are."""
    table = np.zeros((len(ranks.ranks), cut + 1), np.int32)
    row, place = np.nonzero((ranks.ranks > 0) & (ranks.ranks <= cut))
    table[row, ranks.ranks[row, place] - 1] = 1
    table[:, cut] = ranks.positives
    return table
