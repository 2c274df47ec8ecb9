"""A data set and settings with which RecBole's models train in about a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TINY = {
    "epochs": 1,
    "show_progress": False,
    "state": "ERROR",
    "train_batch_size": 512,
    "hidden_size": 8,
    "embedding_size": 8,
    "n_layers": 1,
    "MAX_ITEM_LIST_LENGTH": 8,
}
ITEM_COLUMNS = {"load_col": {"inter": ["user_id", "item_id", "timestamp", "rating"], "item": ["item_id", "class"]}}


def write_data(folder: Path) -> None:
    """40 users, 30 items, about 9 interactions each, in RecBole's files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(40):
        items = rng.permutation(30)[: rng.integers(6, 12)]
        rows += [f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{1_000 * at + user}" for at, item in enumerate(items)]
    (folder / f"{folder.name}.inter").write_text("\n".join(rows) + "\n")
    classes = [f"i{item}\tc{item % 3} c{item % 5}" for item in range(30)]
    (folder / f"{folder.name}.item").write_text("\n".join(["item_id:token\tclass:token_seq", *classes]) + "\n")
