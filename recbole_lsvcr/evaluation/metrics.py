"""Metrics of one ranked list per instance, from the ranks of its positives; and what a random order would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PAPER_MRR_CUT = 10  # the paper's "MRR" is MRR@10: its tables are arithmetically impossible for the full one


def metric_names(topk: Sequence[int]) -> list[str]:
    """`recall@k`, `ndcg@k`, `mrr@k` for every k, `mrr@10` always, and the full `mrr`."""
    cuts = sorted({int(k) for k in topk})
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in cuts]
    return [*names, *(f"mrr@{k}" for k in sorted({*cuts, PAPER_MRR_CUT})), "mrr"]


def instance_metrics(ranks: np.ndarray, positives: np.ndarray, topk: Sequence[int]) -> dict[str, np.ndarray]:
    """Metrics of every instance.

    Recall@k is hits / positives; the ideal DCG of NDCG@k uses min(positives, k); MRR is of the best placed positive.

    Args:
        ranks: int64[I, P], 1-based, 0 where an instance has fewer positives.
        positives: int64[I], at least 1.
        topk: the cuts.

    Returns:
        name -> float64[I], in the order of `metric_names`.
    """
    present = ranks > 0
    gains = np.where(present, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)
    best = np.where(present, ranks, np.iinfo(np.int64).max).min(axis=1)
    result: dict[str, np.ndarray] = {}
    for name in metric_names(topk):
        kind, _, cut = name.partition("@")
        if kind == "mrr":
            result[name] = np.where(best <= int(cut), 1.0 / best, 0.0) if cut else 1.0 / best
            continue
        k = int(cut)
        inside = present & (ranks <= k)
        if kind == "recall":
            result[name] = inside.sum(axis=1) / positives
        else:
            result[name] = np.where(inside, gains, 0.0).sum(axis=1) / _ideal_dcg(positives, k)
    return result


def chance_metrics(lengths: np.ndarray, positives: np.ndarray, topk: Sequence[int]) -> dict[str, float]:
    """Expected mean metrics of a random order of every list: exact, for one positive or several.

    Args:
        lengths: int64[I], candidates per list. positives: int64[I], of them positive. topk: the cuts.

    Returns:
        name -> expectation, averaged over instances (NaN for no instance).
    """
    result: dict[str, float] = {}
    for name in metric_names(topk):
        kind, _, cut = name.partition("@")
        if not len(lengths):
            result[name] = float("nan")
        elif kind == "mrr":
            result[name] = float(_expected_reciprocal(lengths, positives, int(cut) if cut else None).mean())
        elif kind == "recall":
            result[name] = float((np.minimum(int(cut), lengths) / lengths).mean())
        else:
            k = int(cut)
            table = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))])
            # Every place of the list holds a positive with probability positives / length.
            expected = positives / lengths * table[np.minimum(k, lengths)]
            result[name] = float((expected / _ideal_dcg(positives, k)).mean())
    return result


def _ideal_dcg(positives: np.ndarray, k: int) -> np.ndarray:
    table = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))])
    return table[np.minimum(positives, k)]


def _expected_reciprocal(lengths: np.ndarray, positives: np.ndarray, cut: int | None) -> np.ndarray:
    """Expectation of 1 / rank of the first positive (0 beyond `cut`) in a random order, per list."""
    longest = int(lengths.max())
    single = positives == 1
    reach = np.minimum(lengths, longest if cut is None else cut)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, longest + 1))])
    expected = np.where(single, harmonic[reach] / lengths, 0.0)
    # Several positives: P(first at r) = P(none before r) * positives / (length - r + 1), recursively over r.
    rows = np.flatnonzero(~single)
    none_before = np.ones(len(rows))
    rank = 1
    while len(rows):
        chance = none_before * positives[rows] / (lengths[rows] - rank + 1)
        expected[rows] += chance / rank
        none_before = none_before - chance
        rank += 1
        going = (rank <= reach[rows]) & (none_before > 1e-15)
        rows, none_before = rows[going], none_before[going]
    return expected
