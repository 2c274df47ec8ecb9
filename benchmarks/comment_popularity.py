"""Why popularity wins or does not among comments: how much the earlier interactions of others say about a target.

    python benchmarks/comment_popularity.py docs/results/youtube-comment/plan.yaml --work runs/youtube-comment \\
        --output docs/results/youtube-comment-analysis/popularity.json

Test records under available+uniform. A comment is TOUCHED if another user interacted with it before the record began.
Reports the share of touched comments among positives and negatives, the ranking that knows nothing else (touched ones
first, at random within), and every arm's NDCG@10 on records whose positives are touched and on the others, each with
the chance level of its own lists.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from dataset_tools.files import write_json
from recbole_lsvcr.benchmark.cells import read_plan
from recbole_lsvcr.benchmark.compare import read_arm
from recbole_lsvcr.data.candidates import candidate_set
from recbole_lsvcr.data.comment_counts import CommentCounts
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.data.splits import TEST
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.evaluation.metrics import chance_metrics

PROTOCOL, METRIC, CUT = "available+uniform", "ndcg@10", 10


class TouchedFirst:
    """1 for comments with an earlier interaction of another user, 0 for the others."""

    name = "touched first"

    def __init__(self, counts: CommentCounts) -> None:
        self.counts = counts

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        """Scores [B, C] of the comments int64 [B, C]."""
        return torch.from_numpy((self.counts.before(items.numpy(), batch.user, batch.time) > 0).astype(np.float32))


def main() -> int:
    """Count, rank, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2020, help="candidate_seed of the cells")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    cells = read_plan(options.plan)
    base = cells[0].parameters
    tables = Tables.load(Path(base["data_path"]) / base["dataset"])
    data = JointData(tables, split=base["eval_args"]["split"], max_videos=20)
    chosen = candidate_set(data, "comment", TEST, Protocol.parse(PROTOCOL), seed=options.seed)
    counts = CommentCounts(tables)
    users, times = data.comments.user[chosen.rows], data.comments.time[chosen.rows]
    touched = counts.before(chosen.items, users, times) > 0
    negative = (chosen.items > 0) & ~chosen.positive
    found = (touched & chosen.positive).any(axis=1)
    rows = pl.DataFrame({"row": chosen.rows, "touched": found})
    lengths, positives = chosen.lengths, chosen.positive.sum(axis=1)
    rule = evaluate(TouchedFirst(counts), data, "comment", TEST, [PROTOCOL], seed=options.seed, progress=False)
    report: dict[str, Any] = {
        "records": len(rows),
        "positives_touched": float(touched[chosen.positive].mean()),
        "negatives_touched": float(touched[negative].mean()),
        "records_touched": float(rows["touched"].mean()),  # type: ignore[arg-type]
        "touched_first": rule.metrics(PROTOCOL)[METRIC],
        "chance": rule.summary()["protocols"][PROTOCOL]["chance"][METRIC],
        "chance_touched": chance_metrics(lengths[found], positives[found], [CUT])[METRIC],
        "chance_untouched": chance_metrics(lengths[~found], positives[~found], [CUT])[METRIC],
        "arms": {},
    }
    arms: dict[str, list[Any]] = {}
    for cell in cells:
        if cell.parameters["eval_args"] == base["eval_args"]:
            arms.setdefault(f"{cell.setting}:{cell.model}", []).append(cell)
    for name, group in arms.items():
        arm = read_arm(group, options.work, protocol=PROTOCOL)
        if arm.height:
            means = arm.join(rows, on="row").group_by("touched").agg(pl.mean(METRIC)).sort("touched")
            values = dict(means.iter_rows())
            report["arms"][name] = {"touched": values.get(True), "untouched": values.get(False)}
    for key, value in report.items():
        if key != "arms":
            sys.stdout.write(f"{key:18} {value:,.4f}\n" if isinstance(value, float) else f"{key:18} {value:,}\n")
    for name, values in report["arms"].items():
        sys.stdout.write(f"{name:32} touched {values['touched']:.4f}  untouched {values['untouched']:.4f}\n")
    if options.output:
        write_json(options.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
