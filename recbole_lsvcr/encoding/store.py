"""The text store: one vector per distinct text, memory-mapped, found by the token of a title or comment.

A store is a folder:

- `manifest.json`: what the vectors are and which texts they cover. A folder without it is unfinished.
- `vectors.bin`: numbers [rows, dim]; row 0 is the zero vector, the row of every empty text.
- `texts-NNN.parquet` (row, text) and `<kind>-NNN.parquet` (token, row): one set per part. A store that is asked for
  more texts gets one more part; what is in the earlier ones never changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recbole_lsvcr.errors import StoreError

FORMAT = 1
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
VECTORS = "vectors.bin"
DTYPES = ("float32", "float16")
RENEW = "encode again into another folder, encode over it (overwrite), or go back to what it was made with"


class StaleStoreError(StoreError):
    """A store that is not the one asked for, or damaged: `overwrite` replaces it."""


class TextStore:
    """A finished text store, opened for reading.

    Attributes:
        folder: where it lies. dim: size of a vector. rows: number of vectors, row 0 included. manifest: see the module.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.dim = int(manifest["dim"])
        self.rows = int(manifest["rows"])

    @classmethod
    def open(cls, folder: str | Path, *, expect: Mapping[str, Any] | None = None) -> TextStore:
        """Open a finished store.

        Args:
            expect: manifest keys and the values they must have (`{"encoder": "minilm", "transform": "none"}`). A
                `text_hash` may be that of any part: an extended store still serves whoever used it before.
        Raises:
            StoreError: no store, an unfinished or damaged one, or one that differs from `expect`, each key named with
                both values.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        differing = differences(manifest, expect or {})
        if differing:
            raise StaleStoreError(f"the text store {folder} is another one: {differing}; {RENEW}")
        return cls(folder, manifest)

    def vectors(self) -> np.ndarray:
        """All vectors, a read-only memory map [rows, dim] of the store's dtype."""
        return np.memmap(self.folder / VECTORS, np.dtype(self.manifest["dtype"]), mode="r", shape=(self.rows, self.dim))

    def lookup(self, kind: str, tokens: pl.Series | Sequence[str], *, strict: bool = False) -> np.ndarray:
        """Row of each token's text, int64 [len(tokens)]: 0 for an empty text, -1 for a token that is not stored.

        The index is read anew each time: ask for many tokens at once.

        Raises:
            StoreError: no texts of this `kind`; with `strict`, also a token that is not stored.
        """
        wanted = pl.DataFrame({"token": pl.Series(tokens, dtype=pl.Utf8)})
        rows = (
            wanted.join(self.index(kind), on="token", how="left", maintain_order="left")["row"].fill_null(-1).to_numpy()
        )
        if strict and (rows < 0).any():
            first = wanted["token"][int(np.argmax(rows < 0))]
            raise StoreError(
                f"the text store {self.folder} lacks {int((rows < 0).sum()):,} of {len(rows):,} {kind}s, "
                f"the first {first!r}; run the encode stage again"
            )
        return rows

    def index(self, kind: str) -> pl.DataFrame:
        """The stored tokens of a kind and their rows: `token` (Utf8), `row` (Int64)."""
        if kind not in self.manifest["kinds"]:
            raise StoreError(
                f"the text store {self.folder} has no {kind!r}; it has {', '.join(self.manifest['kinds'])}"
            )
        return self._parts(kind, {"token": pl.Utf8, "row": pl.Int64})

    def texts(self) -> pl.DataFrame:
        """The distinct texts as they were encoded: `row` (Int64, from 1), `text` (Utf8)."""
        return self._parts("texts", {"row": pl.Int64, "text": pl.Utf8})

    def _parts(self, prefix: str, schema: dict[str, Any]) -> pl.DataFrame:
        parts = self.manifest["parts"]
        held = [number for number, part in enumerate(parts) if prefix == "texts" or prefix in part["kinds"]]
        files = [part_file(self.folder, prefix, number) for number in held]
        try:
            return pl.concat([pl.DataFrame(schema=schema), *(pl.read_parquet(file, glob=False) for file in files)])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StaleStoreError(
                f"the text store {self.folder} is damaged ({error}); encode over it (overwrite)"
            ) from error


def part_file(folder: Path, prefix: str, number: int) -> Path:
    """The Parquet file of one part: `prefix` is a kind of text, or `texts`."""
    return folder / f"{prefix}-{number:03d}.parquet"


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of the store; None where the file is missing.

    Raises:
        StaleStoreError: a file that holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StaleStoreError(f"{path} cannot be read ({error}); encode over it (overwrite)") from error
    if not isinstance(value, dict):
        raise StaleStoreError(f"{path} is no description of a text store; encode over it (overwrite)")
    return value


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished store whose files are there in full."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        progress = read_json(folder / PROGRESS)
        if progress is None:
            raise StoreError(f"there is no text store in {folder}; run the encode stage first")
        raise StoreError(
            f"the text store {folder} is unfinished ({progress.get('rows_done')} of {progress.get('rows')} rows); "
            "run the encode stage again"
        )
    if manifest.get("format") != FORMAT:
        raise StaleStoreError(
            f"the text store {folder} has format {manifest.get('format')!r}, this version reads {FORMAT}; "
            "encode over it (overwrite)"
        )
    try:
        expected = int(manifest["rows"]) * int(manifest["dim"]) * np.dtype(manifest["dtype"]).itemsize
        files = [
            part_file(folder, prefix, number)
            for number, part in enumerate(manifest["parts"])
            for prefix in ("texts", *part["kinds"])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise StaleStoreError(
            f"{folder / MANIFEST} is no manifest of a text store ({error!r}); encode over it (overwrite)"
        ) from error
    size = (folder / VECTORS).stat().st_size if (folder / VECTORS).is_file() else 0
    missing = [file.name for file in files if not file.is_file()]
    missing += [f"{key} in {MANIFEST}" for key in ("kinds", "text_hash", "encoder_fingerprint") if key not in manifest]
    if size < expected or missing:
        found = f"{', '.join(missing)} missing" if missing else f"{VECTORS} has {size:,} of {expected:,} bytes"
        raise StaleStoreError(f"the text store {folder} is damaged: {found}; encode over it (overwrite)")
    return manifest


def differences(found: Mapping[str, Any], expect: Mapping[str, Any]) -> str:
    """The keys of `expect` that have another value in `found`, in words with both values; "" where all agree."""
    hashes = [part["text_hash"] for part in found.get("parts", [])]
    return "; ".join(
        f"{key} is {_shown(found.get(key))}, expected {_shown(value)}"
        for key, value in expect.items()
        if found.get(key) != value and not (key == "text_hash" and value in hashes)
    )


def _shown(value: Any) -> str:
    return (
        "not recorded"
        if value is None
        else f"{value[:12]}…"
        if isinstance(value, str) and len(value) == 64
        else repr(value)
    )
