"""Builds a text store: every distinct text is encoded once, in chunks that survive a kill at any moment."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from tqdm import tqdm

from dataset_tools.files import atomic_path, write_json
from recbole_lsvcr import __version__
from recbole_lsvcr.encoding.announce import announce
from recbole_lsvcr.encoding.batches import cost_chunks
from recbole_lsvcr.encoding.encoders import TextEncoder
from recbole_lsvcr.encoding.plan import TRANSFORMS, Plan, make_plan
from recbole_lsvcr.encoding.store import (
    DTYPES,
    FORMAT,
    MANIFEST,
    PROGRESS,
    RENEW,
    VECTORS,
    StaleStoreError,
    TextStore,
    differences,
    part_file,
    read_json,
)
from recbole_lsvcr.errors import ConfigError, StoreError
from recbole_lsvcr.folders import exclusive

logger = logging.getLogger()
_NOT_DECISIVE = ("encoder", "precision", "alignment")  # the fingerprint tells more, and a model may move

CHUNK_COST = 256 * 1024  # about 60,000 tokens: seconds of work, which a kill can cost


def build_store(
    folder: str | Path,
    texts: Mapping[str, tuple[pl.Series, pl.Series]],
    encoder: TextEncoder,
    *,
    dtype: str = "float32",
    transform: str = "none",
    dataset: str = "",
    dataset_fingerprint: str = "",
    max_unknown_share: float = 0.3,
    overwrite: bool = False,
    progress: bool = True,
) -> TextStore:
    """The store in `folder` with all `texts`: returned as it is, extended, continued, or built.

    A store of the same encoder, options and data set that covers all texts costs no encoding; one that lacks some gets
    these. A build that was killed continues, and ends with the bytes of an undisturbed one of the same batch size and
    machine.

    Args:
        texts: kind (`title`, `comment`) -> (tokens, their texts), Utf8 series of one length; tokens are distinct within
            a kind.
        dtype: of the stored vectors, `float32` or `float16`.
        transform: `none`, or `mask_digits`, which writes # for each digit.
        dataset, dataset_fingerprint: where the texts are from; recorded and compared.
        max_unknown_share: encoding stops before it starts when more of the tokens are unknown to the encoder.
        overwrite: a store that does not fit is replaced (one that fits is still kept).
    Raises:
        ConfigError: an option that is not accepted.
        StoreError: a store of other vectors or texts (each difference named), too many unknown tokens, vectors that are
            not finite, or a full disk; what was encoded until then is kept for the next try.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"the dtype of the text store is {dtype!r}; accepted: {', '.join(DTYPES)}")
    if transform not in TRANSFORMS:
        raise ConfigError(f"the text transform is {transform!r}; accepted: {', '.join(TRANSFORMS)}")
    identity = {key: value for key, value in encoder.describe().items() if key not in _NOT_DECISIVE}
    identity |= {
        "dim": encoder.dim,
        "dtype": dtype,
        "transform": transform,
        "dataset": dataset,
        "dataset_fingerprint": dataset_fingerprint,
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, "text store"):
            store, plan, rows_done = _find(folder, texts, encoder, identity, overwrite)
            if store is not None and not plan.new_tokens:
                return store
            announce(folder, plan, rows_done, encoder, dtype, max_unknown_share)
            build = _Build(folder, plan, store, encoder, identity)
            build.encode(rows_done, progress)
            return build.finish()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"the text store {folder} cannot be written: {reason}; "
            "mend that, and the same command continues where it stopped"
        ) from error


class _Build:
    """The writing of one part of a store: the whole of a new one, or what an existing one lacks."""

    def __init__(
        self, folder: Path, plan: Plan, store: TextStore | None, encoder: TextEncoder, identity: Mapping[str, Any]
    ) -> None:
        self.folder, self.plan, self.encoder, self.identity = folder, plan, encoder, identity
        self.parts: list[dict[str, Any]] = store.manifest["parts"] if store else []
        self.kinds: dict[str, int] = store.manifest["kinds"] if store else {}
        self.dtype = np.dtype(identity["dtype"])

    def encode(self, rows_done: int, progress: bool) -> None:
        """Append the rows from `rows_done` on to the vectors, chunk by chunk, each recorded once it is on the disk."""
        plan = self.plan
        costs = plan.costs()
        ends = cost_chunks(costs, CHUNK_COST)
        path = self.folder / VECTORS
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(rows_done * self.encoder.dim * self.dtype.itemsize)
            file.seek(0, os.SEEK_END)
            if rows_done == 0:
                file.write(np.zeros(self.encoder.dim, self.dtype).tobytes())
                rows_done = self._record(file, 1)
            start = rows_done - plan.first_row
            done_cost = int(costs[:start].sum())
            with tqdm(
                total=int(costs.sum()),
                initial=done_cost,
                unit="B",
                unit_scale=True,
                desc="Encoding texts",
                disable=None if progress else True,
            ) as bar:
                for end in ends[ends > start].tolist():
                    file.write(self._vectors(plan.texts[start:end].to_list()).tobytes())
                    self._record(file, plan.first_row + end)
                    bar.update(int(costs[start:end].sum()))
                    start = end

    def finish(self) -> TextStore:
        """Write the index and, last, the manifest that makes the part count; open the store."""
        plan, number = self.plan, len(self.parts)
        rows = plan.texts.to_frame("text").select(
            row=pl.int_range(plan.first_row, plan.first_row + pl.len(), dtype=pl.Int64), text="text"
        )
        for prefix, frame in {"texts": rows, **plan.index}.items():
            with atomic_path(part_file(self.folder, prefix, number)) as temporary:
                frame.write_parquet(temporary)
        description = self.encoder.describe()
        part = {
            "first_row": plan.first_row,
            "rows": len(plan.texts),
            "kinds": {kind: frame.height for kind, frame in plan.index.items()},
            "precision": description["precision"],
            "text_hash": plan.text_hash,
            "version": __version__,
        }
        counted = {kind: self.kinds.get(kind, 0) + part["kinds"].get(kind, 0) for kind in [*self.kinds, *plan.asked]}
        manifest = {
            "format": FORMAT,
            "version": __version__,
            **description,
            **self.identity,
            "rows": plan.rows,
            "text_hash": plan.text_hash,
        }
        write_json(self.folder / MANIFEST, {**manifest, "kinds": counted, "parts": [*self.parts, part]})
        (self.folder / PROGRESS).unlink(missing_ok=True)
        return TextStore.open(self.folder)

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """Vectors of a chunk in the store's dtype, [n, dim]."""
        vectors = self.encoder.encode(texts)
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.dtype, copy=False)
        finite = np.isfinite(stored).all(1)
        if not finite.all():
            first = int(np.argmin(finite))
            cause = (
                "is beyond float16; store float32"
                if np.isfinite(vectors[first]).all()
                else "is not finite: the model or its precision is broken"
            )
            raise StoreError(f"the vector that {self.encoder.name} gives for {texts[first][:60]!r} {cause}")
        return stored

    def _record(self, file: BinaryIO, rows_done: int) -> int:
        """Put the vectors on the disk and then, not before, say how many rows are there."""
        file.flush()
        os.fsync(file.fileno())
        write_json(
            self.folder / PROGRESS,
            {**_work(self.encoder, self.plan, self.identity), "rows_done": rows_done, "rows": self.plan.rows},
        )
        return rows_done


def _work(encoder: TextEncoder, plan: Plan, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What an unfinished build must have in common with the one that continues it."""
    return {
        **identity,
        "precision": encoder.describe()["precision"],
        "first_row": plan.first_row,
        "text_hash": plan.text_hash,
    }


def _find(
    folder: Path,
    texts: Mapping[str, tuple[pl.Series, pl.Series]],
    encoder: TextEncoder,
    identity: Mapping[str, Any],
    overwrite: bool,
) -> tuple[TextStore | None, Plan, int]:
    """The finished store in `folder` (None: there is none), what it lacks, and how many rows are on the disk."""
    transform = identity["transform"]
    try:
        store = TextStore.open(folder) if (folder / MANIFEST).exists() else None
        if store is not None and differences(store.manifest, identity):
            # The name alone does not count (a model may move), but it says more than a fingerprint.
            renamed = store.manifest["encoder_fingerprint"] != encoder.fingerprint
            TextStore.open(folder, expect={**({"encoder": encoder.name} if renamed else {}), **identity})
        plan = make_plan(texts, transform=transform, store=store)
        return store, plan, _rows_done(folder, plan, store, encoder, identity)
    except StaleStoreError as error:
        if not overwrite:
            raise
        plan = make_plan(texts, transform=transform, store=None)  # raises before anything is removed
        logger.warning(f"Encoding over a text store: {error}")
        _clear(folder, {"title", "comment", *texts})
        return None, plan, 0


def _rows_done(
    folder: Path, plan: Plan, store: TextStore | None, encoder: TextEncoder, identity: Mapping[str, Any]
) -> int:
    """Rows on the disk that this build may keep: a finished store's, and an unfinished build's of the same texts."""
    finished = store.rows if store else 0
    progress = read_json(folder / PROGRESS)
    if progress is None:
        return finished
    differing = differences(progress, _work(encoder, plan, identity))
    if differing and store is not None:
        return finished  # an extension by other texts, left unfinished: the store without it is sound
    if differing:
        raise StaleStoreError(f"the unfinished text store {folder} is another one: {differing}; {RENEW}")
    rows = int(progress["rows_done"])
    size = (folder / VECTORS).stat().st_size if (folder / VECTORS).is_file() else 0
    if size < rows * encoder.dim * np.dtype(identity["dtype"]).itemsize:
        raise StaleStoreError(
            f"the unfinished text store {folder} is damaged: {VECTORS} is shorter than its {rows:,} rows; "
            "encode over it (overwrite)"
        )
    return rows


def _clear(folder: Path, kinds: Iterable[str]) -> None:
    """Remove a store, the file that vouches for the others first; other files of the folder stay."""
    parts = [path for prefix in ("texts", *kinds) for path in folder.glob(f"{prefix}-[0-9][0-9][0-9].parquet")]
    for path in (folder / MANIFEST, folder / PROGRESS, folder / VECTORS, *parts):
        path.unlink(missing_ok=True)
