"""The text vectors of a joint data set: opened from a text store, or encoded into one on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recbole_lsvcr.data.instances import Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.encoding import TextStore, build_store, load_encoder
from recbole_lsvcr.encoding.encoders import TextEncoder
from recbole_lsvcr.errors import StoreError

# Of a store's manifest: which vectors these are; an alignment is part of the fingerprint.
_MAKERS = ("encoder_fingerprint", "pooling", "max_tokens", "transform", "dim")


class TextVectors:
    """The stored vectors by item and comment id; row 0 and every empty text are the zero vector.

    Titles are held in memory (every model step reads them all); comment rows stay in the memory map and are read per
    batch. A deep copy of a model
    shares this object: the vectors are frozen.
    """

    def __init__(
        self,
        titles: torch.Tensor,
        comment_rows: np.ndarray,
        vectors: np.ndarray,
        *,
        aligned: bool = False,
        made_by: Mapping[str, Any] | None = None,
        alignment: str | None = None,
    ) -> None:
        self.aligned = aligned  # vectors that already passed text_mlp (Eq. 2), E long
        self.made_by = dict(made_by or {})  # what weights that were trained on these vectors do not fit others of
        self.alignment = alignment  # content of the alignment whose language model made them
        self.titles = titles  # [n_items, H]
        self.comment_rows = comment_rows  # [n_comments], row of the memory map, -1 = not stored
        self.vectors = vectors  # [rows, H]

    def __deepcopy__(self, memo: dict[int, Any]) -> TextVectors:
        return self

    @property
    def size(self) -> int:
        """H, the length of a vector."""
        return int(self.titles.shape[1])

    def comments(self, ids: torch.Tensor) -> torch.Tensor:
        """float32[n, H] vectors of comment ids [n].

        Raises:
            StoreError: a comment whose text was never stored.
        """
        rows = self.comment_rows[ids.cpu().numpy()]
        if rows.size and rows.min() < 0:
            raise StoreError(
                f"{int((rows < 0).sum())} comments of a batch are not in the text store; run --stage encode "
                "again with this configuration"
            )
        # PyTorch makes float32 of float16 four times as fast as NumPy.
        return torch.from_numpy(np.asarray(self.vectors[rows])).to(ids.device, torch.float32)


def store_folder(config: Any) -> Path:
    """Where the run's text store lies: `text_store`, else inside the output folder, else beside RecBole's
    checkpoints.
    """
    if config["text_store"]:
        return Path(config["text_store"])
    if config["output"]:
        return Path(config["output"]) / "text_store"
    name = str(config["text_encoder"]).replace("/", "_")
    return Path(config["checkpoint_dir"]) / "text_store" / f"{config['dataset']}-{name}-{config['text_transform']}"


def encoder_of(config: Any, name: str, *, max_tokens: int, precision: str = "auto") -> TextEncoder:
    """The text encoder `name` with the configuration's settings; `precision`: as of `load_encoder`.

    Raises:
        StoreError: it cannot be loaded.
    """
    return load_encoder(
        name,
        pooling=config["text_pooling"],
        max_tokens=max_tokens,
        batch_tokens=config["text_batch_tokens"],
        device=str(config["device"]),
        precision=precision,
        trust_remote_code=bool(config["trust_remote_code"]),
    )


def ensure_store(
    config: Any, joint: JointData, encoder: TextEncoder | None = None, *, kinds: Sequence[Kind] = ("video",)
) -> TextStore:
    """Open the run's text store, encoding every text an instance of the kinds can show first if it is not complete.

    `encoder`: what encodes; None: what the configuration names (`text_encoder`).

    Raises:
        StoreError: the store is of another data set, encoder or transform; the encoder cannot be loaded or does not
        know the language.
    """
    tables = joint.tables
    items, comments = joint.reachable(kinds)
    encoder = encoder or encoder_of(config, config["text_encoder"], max_tokens=config["text_max_tokens"])
    texts = {
        "title": _chosen(tables.items, tables.titles, items),
        "comment": _chosen(tables.comments, tables.contents, comments),
    }
    return build_store(
        store_folder(config),
        texts,
        encoder,
        dtype=config["text_dtype"],
        transform=config["text_transform"],
        dataset=tables.name,
        dataset_fingerprint=tables.fingerprint,
        max_unknown_share=float(config["max_unknown_share"]),
    )


def load_vectors(config: Any, joint: JointData) -> TextVectors:
    """The text vectors of the run's store, by item and comment id; no encoder (and no transformers) is needed when the
    store is complete.

    Raises:
        StoreError: the store is missing, incomplete, or of another data set.
    """
    tables = joint.tables
    store = TextStore.open(
        store_folder(config), expect={"dataset_fingerprint": tables.fingerprint, "transform": config["text_transform"]}
    )
    vectors = store.vectors()
    title_rows = _rows(store, "title", tables.items)
    if title_rows.min() < 0:
        raise StoreError(
            f"text store {store_folder(config)} lacks {int((title_rows < 0).sum())} titles of data set "
            f"'{tables.name}'; run --stage encode again"
        )
    comment_rows = _rows(store, "comment", tables.comments)
    titles = torch.from_numpy(np.asarray(vectors[title_rows], dtype=np.float32))
    return TextVectors(
        titles,
        comment_rows,
        vectors,
        aligned=bool(store.manifest.get("aligned", False)),
        made_by={name: store.manifest[name] for name in _MAKERS if name in store.manifest},
        alignment=store.manifest.get("alignment"),
    )


def _rows(store: TextStore, kind: str, tokens: pl.Series) -> np.ndarray:
    """int64 row of the store by id; padding has the zero vector's."""
    return np.concatenate([[0], store.lookup(kind, tokens[1:])])


def _chosen(tokens: pl.Series, texts: pl.Series, ids: np.ndarray) -> tuple[pl.Series, pl.Series]:
    chosen = pl.Series(ids[ids > 0])
    return tokens.gather(chosen), texts.gather(chosen)
