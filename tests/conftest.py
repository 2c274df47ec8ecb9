"""Shared small data: a generated sample of some dozens of users, and a configuration small enough for seconds of
training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_tools.sample import generate
from recbole_lsvcr.config import LSVCRConfig, load_config

TINY = {
    "dataset": "tiny",
    "MAX_ITEM_LIST_LENGTH": 8,
    "eval_args": {"split": {"time": [0.7, 0.85]}},
    "text_encoder": "hashing",
    "hidden_size": 8,
    "n_layers": 1,
    "inner_size": 16,
    "train_batch_size": 128,
    "epochs": 3,
    "learning_rate": 0.01,
    "use_gpu": False,
    "seed": 7,
}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above a small sample data set named `tiny`."""
    folder = tmp_path_factory.mktemp("data")
    generate(folder / "tiny", users=60, videos=50, comments=300)
    return folder


@pytest.fixture
def tiny_config(tiny_data: Path, tmp_path: Path) -> Callable[..., LSVCRConfig]:
    """A configuration of a run on `tiny`; keyword arguments change it."""

    def make(**changes: Any) -> LSVCRConfig:
        model = changes.get("model", "LSVCR")
        small = (
            dict(TINY)
            if model == "LSVCR"
            else {key: TINY[key] for key in TINY if key not in ("hidden_size", "n_layers", "inner_size")}
        )
        return load_config(None, {**small, "data_path": str(tiny_data), "output": str(tmp_path / "run"), **changes})

    return make
