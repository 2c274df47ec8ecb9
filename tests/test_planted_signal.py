"""The planted signal of the sample, taste shown only in comments, is found; with other users' comments it is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset_tools.oracle import SampleOracle
from dataset_tools.sample import generate
from recbole_lsvcr import pipeline
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data.joint import InstanceBatch, JointData
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.evaluation import evaluate

SPLIT = {"time": [0.8, 0.9]}
CHANCE = 0.0454  # NDCG@10 of a random order of 100


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sample as generated, and the same with the comment histories given to other users."""
    root = tmp_path_factory.mktemp("planted")
    generate(root / "own" / "planted", users=400, videos=150, comments=3000)
    shutil.copytree(root / "own", root / "shuffled")
    file = root / "shuffled" / "planted" / "planted.cinter"
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    users = sorted({row.split("\t")[0] for row in rows})
    other = dict(zip(users, np.random.default_rng(0).permutation(users).tolist(), strict=True))
    changed = ["\t".join([other[row.split("\t")[0]], *row.split("\t")[1:]]) for row in rows]
    file.write_text("\n".join([head, *changed]) + "\n", encoding="utf-8")
    return {name: root / name for name in ("own", "shuffled")}


@pytest.fixture(scope="module")
def quality() -> dict[str, float]:
    """NDCG@10 among 100 by kind of comment histories, filled test by test."""
    return {}


def train(folder: Path, task: str = "video", protocol: str = "all+uniform", epochs: int = 10) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "task": task,
        "dataset": "planted",
        "data_path": str(folder),
        "output": str(folder / task),
        "MAX_ITEM_LIST_LENGTH": 8,
        "eval_args": {"split": SPLIT},
        "valid_protocol": "all+full",
        "text_encoder": "hashing",
        "hidden_size": 32,
        "n_layers": 1,
        "inner_size": 64,
        "text_size": 64,
        "hidden_dropout_prob": 0.1,
        "attn_dropout_prob": 0.1,
        "train_batch_size": 128,
        "learning_rate": 0.003,
        "epochs": epochs,
        "use_gpu": False,
        "seed": 3,
    }
    report = pipeline.run(load_config(None, settings))
    assert report is not None
    return report["phases"]["test"]["protocols"][protocol]


@pytest.mark.parametrize("histories", ["own", "shuffled"])
def test_training_with(histories: str, folders: dict[str, Path], quality: dict[str, float]) -> None:
    quality[histories] = float(train(folders[histories])["metrics"]["ndcg@10"])
    assert quality[histories] > CHANCE


def test_the_signal_is_found_below_the_oracle_and_lost_by_shuffling(
    folders: dict[str, Path], quality: dict[str, float]
) -> None:
    own, shuffled = quality["own"], quality["shuffled"]
    oracle = oracle_quality(folders["own"] / "planted")
    assert own < oracle, "no model can be better than the generating probabilities"
    assert own > 2 * CHANCE
    assert own - shuffled > 0.025, (own, shuffled, oracle)


def oracle_quality(folder: Path) -> float:
    data = JointData(Tables.load(folder), split=SPLIT)
    oracle = SampleOracle.load(folder)

    class Scorer:
        name = "oracle"

        def score_full(self, batch: InstanceBatch) -> torch.Tensor:
            scores, order = oracle.score_all(data.tables.users.gather(batch.user).to_list(), batch.time)
            place = {token: number for number, token in enumerate(data.tables.items.to_list())}
            full = np.zeros((len(batch.user), data.n_items))
            full[:, [place[token] for token in order]] = scores
            return torch.from_numpy(full)

    found = evaluate(Scorer(), data, "video", 2, ["all+uniform"], slices=False, progress=False)
    return found.metrics("all+uniform")["ndcg@10"]


# ---- comments ----


@pytest.fixture(scope="module")
def scattered(folders: dict[str, Path]) -> Path:
    """The sample with each comment interaction given to a random user: earlier records say nothing of the next."""
    root = folders["own"].parent / "scattered"
    shutil.copytree(folders["own"] / "planted", root / "planted")
    file = root / "planted" / "planted.cinter"
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    users = np.random.default_rng(1).permutation([row.split("\t")[0] for row in rows])
    changed = ["\t".join([user, *row.split("\t")[1:]]) for user, row in zip(users, rows, strict=True)]
    file.write_text("\n".join([head, *changed]) + "\n", encoding="utf-8")
    return root


def test_taste_in_comments_is_found_below_the_oracle_and_lost_by_scattering(
    folders: dict[str, Path], scattered: Path
) -> None:
    def comments(folder: Path) -> dict[str, Any]:
        return train(folder, task="comment", protocol="available+uniform", epochs=6)

    own, other = comments(folders["own"]), comments(scattered)
    gain, lost = (found["metrics"]["ndcg@10"] - found["chance"]["ndcg@10"] for found in (own, other))
    data = JointData(Tables.load(folders["own"] / "planted"), split=SPLIT)
    oracle = SampleOracle.load(folders["own"] / "planted")

    class Scorer:
        def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
            tokens = data.tables.comments.to_numpy()[np.maximum(items.numpy(), 1)].astype(str)
            return torch.from_numpy(oracle.score_comments(data.tables.users.gather(batch.user).to_list(), tokens))

    best = evaluate(Scorer(), data, "comment", 2, ["available+uniform"], seed=2020, slices=False, progress=False)
    assert own["metrics"]["ndcg@10"] < best.metrics("available+uniform")["ndcg@10"]
    assert gain > 0.06
    assert gain - lost > 0.03, (gain, lost)
