"""The ceiling of the generated sample: the probabilities it was drawn from, ranked like a model.

    python benchmarks/sample_oracle.py --output docs/results/sample-oracle.json

The oracle is told what no model can know: each user's angles and, for videos, the session's topic.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_tools.files import write_json
from dataset_tools.oracle import SampleOracle
from dataset_tools.sample import generate
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.evaluation import evaluate

PROTOCOLS = {
    "video": ["all+uniform", "all+full", "available+period"],
    "comment": ["available+uniform", "available+full"],
}


class OracleScorer:
    """The generating probabilities as scores of videos and of comments."""

    name = "oracle"

    def __init__(self, data: JointData, oracle: SampleOracle) -> None:
        self.data, self.oracle = data, oracle
        place = {token: number for number, token in enumerate(data.tables.items.to_list())}
        self.columns = [place[token] for token in oracle.item_token]

    def _users(self, batch: InstanceBatch) -> list[str]:
        return self.data.tables.users.gather(batch.user).to_list()

    def score_full(self, batch: InstanceBatch) -> torch.Tensor:
        """Weights [B, n_items] of the videos in the session that an instance's time falls into."""
        scores = np.zeros((len(batch), self.data.n_items))
        scores[:, self.columns] = self.oracle.score_all(self._users(batch), batch.time)[0]
        return torch.from_numpy(scores)


class CommentOracleScorer(OracleScorer):
    """As `OracleScorer`, for comments alone: an evaluation of comments asks for given candidates."""

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        """Weights [B, C] of the comments int64 [B, C]; 0 for padding."""
        tokens = self.data.tables.comments.to_numpy()
        ids = np.where(items.numpy() > 0, items.numpy(), 1)  # any existing one in the place of padding
        return torch.from_numpy(self.oracle.score_comments(self._users(batch), tokens[ids].astype(str)))


def main() -> int:
    """Rank, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", nargs=2, type=float, default=(0.8, 0.9))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "lsvcr-sample"
        generate(sample)
        data = JointData(Tables.load(sample), split={"time": list(options.split)})
        oracle = SampleOracle.load(sample)
    report: dict[str, Any] = {"data": "lsvcr-sample (synthetic, seed 2024)", "split": list(options.split)}
    for kind, protocols in PROTOCOLS.items():
        scorer = (CommentOracleScorer if kind == "comment" else OracleScorer)(data, oracle)
        found = evaluate(scorer, data, kind, 2, protocols, seed=2020).summary()["protocols"]  # type: ignore[arg-type]
        report[kind] = {
            name: {key: one[key] for key in ("metrics", "chance", "instances")} for name, one in found.items()
        }
        for name, one in found.items():
            best, chance = one["metrics"], one["chance"]
            sys.stdout.write(
                f"{kind:8} {name:18} NDCG@10 {best['ndcg@10']:.4f} (chance {chance['ndcg@10']:.4f})  "
                f"Recall@10 {best['recall@10']:.4f} (chance {chance['recall@10']:.4f})\n"
            )
    if options.output:
        write_json(options.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
