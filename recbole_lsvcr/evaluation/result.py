"""What an evaluation found: metrics by protocol and slice, per instance, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dataset_tools.files import atomic_path
from recbole_lsvcr.data.instances import Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.data.splits import PHASES
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation.metrics import chance_metrics, instance_metrics, metric_names
from recbole_lsvcr.evaluation.ranking import Ranks
from recbole_lsvcr.evaluation.slices import ALL, FIXED


@dataclass(frozen=True)
class ProtocolLists:
    """The ranked lists of one protocol.

    Attributes:
        positions: int64[I], the instances with a list, as positions among the phase's instances.
        ranks: where their positives are.
        left_out: instances of the phase without any negative. too_long: those whose list was not to be ranked whole.
        enough: lists with as many negatives as asked for; None for full rankings.
        hash: of the candidate set; None for full rankings.
        top_items: int64[I, k] best candidates, if they were kept.
    """

    protocol: Protocol
    positions: np.ndarray
    ranks: Ranks
    left_out: int
    too_long: int
    enough: int | None
    hash: str | None
    top_items: np.ndarray | None


@dataclass(frozen=True)
class EvaluationResult:
    """The evaluation of one model on one phase. Metrics are means over instances, never pooled by user."""

    data: JointData
    kind: Kind
    phase: int
    model: str
    seed: int
    topk: tuple[int, ...]
    rows: np.ndarray
    lists: Mapping[str, ProtocolLists]
    slices: Mapping[str, np.ndarray]
    seconds: float

    def metrics(self, protocol: str | Protocol, slice: str = ALL) -> dict[str, float]:
        """`{"recall@5": …, "ndcg@10": …, "mrr@10": …, "mrr": …}` of a slice; NaN where it has no instance.

        Raises:
            EvaluationError: a protocol or slice that was not evaluated.
        """
        row = self.table.filter((pl.col("protocol") == str(protocol)) & (pl.col("slice") == slice))
        if not row.height:
            raise EvaluationError(
                f"no metrics of protocol '{protocol}', slice '{slice}'; there are {list(self.lists)} and "
                f"{self.table['slice'].unique(maintain_order=True).to_list()}"
            )
        return {name: float("nan") if value is None else value for name, value in self._numbers(row).items()}

    @cached_property
    def instance_metrics(self) -> dict[str, dict[str, np.ndarray]]:
        """protocol -> metric -> float64[I]."""
        return {
            name: instance_metrics(lists.ranks.ranks, lists.ranks.positives, self.topk)
            for name, lists in self.lists.items()
        }

    @cached_property
    def table(self) -> pl.DataFrame:
        """One row per protocol and slice: the metrics (null without instances), `instances`, `users`."""
        instances = self.data.comments if self.kind == "comment" else self.data.videos
        users = instances.user[self.rows]
        rows = []
        for name, lists in self.lists.items():
            values = self.instance_metrics[name]
            for part, flags in self.slices.items():
                inside = flags[lists.positions]
                count = int(inside.sum())
                if not count and part not in FIXED:
                    continue
                means = {metric: float(numbers[inside].mean()) if count else None for metric, numbers in values.items()}
                n_users = len(np.unique(users[lists.positions[inside]]))
                rows.append({"protocol": name, "slice": part, **means, "instances": count, "users": n_users})
        schema = {
            "protocol": pl.String,
            "slice": pl.String,
            **dict.fromkeys(metric_names(self.topk), pl.Float64),
            "instances": pl.Int64,
            "users": pl.Int64,
        }
        return pl.DataFrame(rows, schema=schema)

    @cached_property
    def instances(self) -> pl.DataFrame:
        """One row per protocol and instance.

        Columns: protocol, row (of `JointData`'s instances), user, item (tokens), time (Unix seconds), rank (of the best
        positive), ranks (of all), positives, length (of the list), every metric, and a bool per slice.
        """
        tables = self.data.tables
        source = self.data.comments if self.kind == "comment" else self.data.videos
        frames = []
        for name, lists in self.lists.items():
            rows = self.rows[lists.positions]
            columns: dict[str, Any] = {
                "protocol": pl.repeat(name, len(rows), dtype=pl.String, eager=True),
                "row": rows,
                "user": tables.users.gather(source.user[rows]),
                "item": tables.items.gather(source.item[rows]),
                "time": source.time[rows],
                "rank": lists.ranks.first,
                "ranks": lists.ranks.listed(),
                "positives": lists.ranks.positives,
                "length": lists.ranks.lengths,
                **self.instance_metrics[name],
            }
            flags = {part: flags[lists.positions] for part, flags in self.slices.items() if part != ALL}
            frames.append(pl.DataFrame(columns | flags))
        return pl.concat(frames)

    def write_instances(self, path: Path, *, seed: int) -> None:
        """Write `instances` as Parquet, whole or not at all; `seed`: the model's, a column of it."""
        with atomic_path(path) as temporary:
            self.instances.with_columns(pl.lit(seed).alias("seed")).write_parquet(temporary)

    def summary(self) -> dict[str, Any]:
        """Everything but the instances as plain data for JSON; a metric without instances is None.

        Per protocol: `metrics` and `slices` (metrics, `instances`, `users`), `chance` (what a random order of the
        same lists would give), `instances`, `left_out` (without any negative), `too_long` (to be ranked whole),
        `mean_length` of the lists and, where negatives are sampled, `enough` (lists with all the negatives asked for)
        and the set's `candidates_hash`.
        """
        protocols = {}
        for name, lists in self.lists.items():
            parts = {}
            for row in self.table.filter(pl.col("protocol") == name).iter_rows(named=True):
                parts[row["slice"]] = {key: value for key, value in row.items() if key not in ("protocol", "slice")}
            overall = parts.pop(ALL)
            chance = (
                chance_metrics(lists.ranks.lengths, lists.ranks.positives, self.topk) if overall["instances"] else None
            )
            protocols[name] = {
                "metrics": {metric: overall[metric] for metric in metric_names(self.topk)},
                "chance": chance,
                "instances": overall["instances"],
                "users": overall["users"],
                "left_out": lists.left_out,
                "too_long": lists.too_long,
                "mean_length": float(lists.ranks.lengths.mean()) if overall["instances"] else None,
                "enough": lists.enough,
                "candidates_hash": lists.hash,
                "slices": parts,
            }
        return {
            "model": self.model,
            "kind": self.kind,
            "phase": PHASES[self.phase],
            "candidate_seed": self.seed,
            "topk": list(self.topk),
            "protocols": protocols,
        }

    def recbole_metrics(self, config: Any, protocol: str | Protocol | None = None) -> dict[str, float]:
        """The metrics that a RecBole configuration names, computed by RecBole's evaluator from one list per instance.

        Args:
            config: RecBole's `Config` (`metrics`, `topk`, `metric_decimal_place`). protocol: default: the first.

        Raises:
            EvaluationError: a metric that needs what was not kept (`evaluate(top_items=max(topk))` keeps the best
                candidates), or scores, which are not kept.
        """
        from recbole_lsvcr.evaluation.collector import evaluate_lists  # the one module that needs RecBole

        name = next(iter(self.lists)) if protocol is None else str(protocol)
        if name not in self.lists:
            raise EvaluationError(f"protocol '{name}' was not evaluated; there are {list(self.lists)}")
        lists = self.lists[name]
        return evaluate_lists(config, lists.ranks, lists.top_items, self.data.train_item_count)

    def _numbers(self, row: pl.DataFrame) -> dict[str, float | None]:
        return {name: row[name][0] for name in metric_names(self.topk)}
