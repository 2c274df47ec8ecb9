"""Shared small data: a generated sample of some dozens of users, and a configuration small enough for seconds of
training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from factories import make_talk

from dataset_tools.sample import generate
from recbole_lsvcr.config import LSVCRConfig, load_config
from recbole_lsvcr.data.joint import JointData

if TYPE_CHECKING:
    from recbole_lsvcr.alignment.collate import AlignmentCollator

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
TINY_ALIGNMENT = {
    "preset": "cpu-small",
    "corpus_steps": 2,
    "instruction_tokens": 256,
    "batch_size": 4,
    "eval_instances": 8,
}
Make = Callable[..., LSVCRConfig]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above a small sample data set named `tiny`."""
    folder = tmp_path_factory.mktemp("data")
    generate(folder / "tiny", users=60, videos=50, comments=300)
    return folder


@pytest.fixture
def tiny_config(tiny_data: Path, tmp_path: Path) -> Make:
    """A configuration of a run on `tiny`; keyword arguments change it."""

    def make(**changes: Any) -> LSVCRConfig:
        model = changes.get("model", "LSVCR")
        sized = model.startswith(("LSVCR", "Comment"))
        small = {key: TINY[key] for key in TINY if sized or key not in ("hidden_size", "n_layers", "inner_size")}
        return load_config(None, {**small, "data_path": str(tiny_data), "output": str(tmp_path / "run"), **changes})

    return make


@pytest.fixture(scope="session")
def talk() -> JointData:
    return make_talk()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion of small files needs neither threads nor to be safe from a power cut."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("dataset_tools.database.os.cpu_count", lambda: 1)


# Imported when asked for: most tests need no language model, and transformers takes seconds to import.


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the language model of `alignment_tiny`."""
    from alignment_tiny import save_tiny_lm

    return save_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="session")
def collator(tiny_lm: Path) -> AlignmentCollator:
    from alignment_tiny import make_collator

    return make_collator(tiny_lm)


@pytest.fixture(scope="session")
def tiny_lms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the language models of `tiny_models`, by architecture."""
    from tiny_models import ALL, save

    root = tmp_path_factory.mktemp("language_models")
    return {kind: save(root / kind, kind) for kind in ALL}
