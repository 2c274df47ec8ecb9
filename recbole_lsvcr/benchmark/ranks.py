"""The ranks of a cell's positives, kept beside its JSON: with both, the instances' metrics can be made again from the
data, so that a benchmark's cells can be carried to another machine, or its working folder be deleted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from dataset_tools.files import atomic_path
from recbole_lsvcr.config import LSVCRConfig, plain
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.splits import PHASES
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation import EvaluationResult, evaluate
from recbole_lsvcr.task_run import Run
from recbole_lsvcr.trainer import ranking_settings

PHASE = "test"


def keep_ranks(instances: Path, file: Path) -> None:
    """Write what cannot be made again of a cell's instances: which they are (`row`), and for each ranking the ranks of
    the positives, null for an instance without a list.

    Nothing where the run keeps no instances.
    """
    if not instances.is_file():
        return
    kept = None
    lists = pl.read_parquet(instances, glob=False, columns=["protocol", "row", "ranks"])
    for (name,), frame in lists.partition_by("protocol", as_dict=True).items():
        ranks = frame.select("row", pl.col("ranks").alias(str(name)))
        kept = ranks if kept is None else kept.join(ranks, on="row", how="full", coalesce=True)
    assert kept is not None  # an evaluation has instances
    with atomic_path(file) as temporary:
        kept.sort("row").write_parquet(temporary, compression="zstd", compression_level=19)


class Lists:
    """The ranked lists of configurations, without a model; made once for those that rank alike.

    Args:
        candidates: where candidate sets are kept.
    """

    def __init__(self, candidates: Path) -> None:
        self.candidates = candidates
        self._known: dict[str, EvaluationResult] = {}

    def restore(
        self, config: LSVCRConfig, summary: Mapping[str, Any], ranks: Path, instances: Path, *, seed: int
    ) -> None:
        """Make a cell's instances again.

        Args:
            config: how the cell ranked. summary: what its JSON says of the test phase. ranks: what `keep_ranks` wrote.
            instances: the file to be written. seed: the cell's.

        Raises:
            EvaluationError: the ranks are not those of the JSON's figures, or of these data.
        """
        try:
            result = _with_ranks(self._of(config), pl.read_parquet(ranks, glob=False))
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise EvaluationError(f"{ranks.name} cannot be used ({error})") from error
        if not _alike(result.summary()["protocols"], summary["protocols"]):
            raise EvaluationError(f"{ranks.name} and the JSON beside it differ")
        result.write_instances(instances, seed=seed)

    def _of(self, config: LSVCRConfig) -> EvaluationResult:
        run = Run(config)
        settings, names = ranking_settings(config), [str(protocol) for protocol in run.protocols]
        data = [config["data_path"], config["dataset"], plain(config["eval_args"]["split"]), run.kind]
        key = json.dumps([data, names, config["sample_num"], settings], sort_keys=True, default=str)
        if key not in self._known:
            run.dataset.build()
            joint, phase = run.dataset.joint, PHASES.index(PHASE)
            scorer, folder = _Same(joint.n_items), self.candidates
            self._known[key] = evaluate(
                scorer, joint, run.kind, phase, run.protocols, candidates_dir=folder, progress=False, **settings
            )
        return self._known[key]


class _Same:
    """A scorer to which all candidates are alike."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def score_full(self, batch: InstanceBatch) -> torch.Tensor:
        return torch.zeros(len(batch), self.n_items)

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(items), items.shape[1])


def _with_ranks(result: EvaluationResult, kept: pl.DataFrame) -> EvaluationResult:
    """The result with the ranks of another scorer.

    Raises:
        ValueError: they are not of the same lists.
    """
    if set(kept.columns) != {"row", *result.lists}:
        raise ValueError(f"columns {kept.columns}, but the rankings are {list(result.lists)}")
    lists = {}
    for name, one in result.lists.items():
        there = kept.filter(pl.col(name).is_not_null())
        if there["row"].to_list() != result.rows[one.positions].tolist():
            raise ValueError(f"other instances under {name}")
        lists[name] = replace(one, ranks=one.ranks.with_listed(there[name]))
    return replace(result, lists=lists)


def _alike(one: Any, other: Any) -> bool:
    """Whether two summaries say the same, numbers to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-9)
    return bool(one == other)
