"""A data set in columns, kept beside its atomic files: a second start neither parses text nor maps ids.

`<name>.cache/` holds `manifest.json` and a folder of columns: numbers as `.npy`, which are mapped into memory and cost
none until they are read; texts as Arrow files. No pickle is written or read.

WHEN IT IS VALID. The manifest records the SHA-256 fingerprint of the atomic files that the columns were made from and,
of each file, size, inode, and the times of its last modification and last status change (ns). While all these are
unchanged the content is taken to be, and nothing is hashed; otherwise the files are hashed, and where the fingerprint
is the same (a copied folder, a `touch`) only the record is renewed. Setting a file's modification time back does not
hide a change: the system alone sets the time of the status change. A record made within `_SETTLED_NS` of a file's last
change is not trusted either, for the file could change once more at the same tick of the clock. What cannot be noticed
is a change that leaves all four as they were: one below the file system, or in place with the system's clock set back.
The columns' own files are compared by size and time of modification, and those of texts by SHA-256 when they are read:
a damaged Arrow file can end the process that reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dataset_tools.files import sha256_file, write_json
from recbole_lsvcr.errors import DataError
from recbole_lsvcr.folders import exclusive

FORMAT = 2  # of the cache; any other is made anew
SMALLEST = 16 << 20  # bytes of atomic files; fewer are read faster than anybody notices, and get no cache
TEXT = "str"  # the type of a text column in a schema, beside NumPy's names of number types
_SETTLED_NS = 2_000_000_000
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    pl.exceptions.PolarsError,
)
logger = logging.getLogger(__name__)

Column = np.ndarray | pl.Series
States = dict[str, list[int] | None]  # of each atomic file, see `DataCache._states`


class TextColumn:
    """A column of texts that is read when it is asked for.

    Its file is held open, so that a cache that is replaced or deleted meanwhile makes no difference.
    """

    def __init__(self, path: Path, length: int, digest: str) -> None:
        """`length`: how many texts the file holds; `digest`: its SHA-256."""
        self._path, self._length, self._digest = path, length, digest
        self._handle = open(path, "rb")  # noqa: SIM115

    def __len__(self) -> int:
        return self._length

    def read(self) -> pl.Series:
        """The texts, String without nulls; `OSError`, `ValueError` or polars' error for a file that does not hold
        them."""
        with os.fdopen(os.dup(self._handle.fileno()), "rb") as handle:
            handle.seek(0)
            if _digest(handle) != self._digest:
                raise ValueError(f"{self._path.name} is damaged")
            handle.seek(0)
            frame = pl.read_ipc(handle)
        if frame.shape != (self._length, 1) or frame.dtypes != [pl.String]:
            raise ValueError(f"{self._path.name} does not hold {self._length:,} texts")
        return frame.to_series()


@dataclass(frozen=True)
class Stored:
    """What a cache holds: columns by name, and what is to be said of them."""

    fingerprint: str
    numbers: Mapping[str, np.ndarray]  # read-only, mapped into memory
    texts: Mapping[str, pl.Series]
    later: Mapping[str, TextColumn]
    notes: Mapping[str, int]


@dataclass(frozen=True)
class _Hashed:
    """The atomic files as they were hashed: their states, read at `recorded_ns`, before the hashing."""

    states: States
    fingerprint: str
    recorded_ns: int

    def record(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "recorded_ns": self.recorded_ns, "sources": self.states}


class DataCache:
    """The cache of one data set."""

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, Path],
        schema: Mapping[str, str],
        *,
        later: Collection[str] = (),
        optional: Collection[str] = (),
    ) -> None:
        """`sources`: the atomic files read, by suffix; one may be missing. `schema`: the type of every column, a
        NumPy type's name or `TEXT`. `later`: the columns of texts that are not read before they are asked for;
        `optional`: those that may be missing from what is written."""
        self.folder, self.sources, self.schema = folder, sources, schema
        self.later, self.optional = later, optional
        self._hashed: _Hashed | None = None

    def worthwhile(self) -> bool:
        """Whether the atomic files are large enough to be cached."""
        return sum(state[0] for state in self._states().values() if state) >= SMALLEST

    def fingerprint(self) -> str:
        """One hash for all files that are read; the bytes decide, not what a metadata file says of them.

        Raises `DataError` for a file that cannot be read.
        """
        now, states = time.time_ns(), self._states()
        if self._hashed is None or self._hashed.states != states:
            try:
                hashes = [(name, sha256_file(self.sources[name])) for name, state in states.items() if state]
            except OSError as error:
                raise DataError(f"cannot read {error.filename}: {_reason(error)}") from error
            self._hashed = _Hashed(states, fingerprint_of(hashes), now)
        return self._hashed.fingerprint

    def open(self, *, quiet: bool = False) -> Stored | None:
        """What the cache holds, or None where there is none that is valid; `quiet` keeps the reason from the log."""
        try:
            return self._open()
        except FileNotFoundError as error:
            if self.folder.exists() and Path(str(error.filename)).name != "manifest.json" and not quiet:
                self._ignored(error)
        except _BROKEN as error:
            if not quiet:
                self._ignored(error)
        return None

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Let one process at a time make the cache; gives whether one can be made at all."""
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(self.folder, "data cache"))
                possible = True
            except OSError as error:
                self._unwritable(error)
                possible = False
            yield possible

    def write(self, columns: Mapping[str, Column], *, notes: Mapping[str, int]) -> Stored | None:
        """Keep `columns`, read after `fingerprint()` was computed, and open what was kept; None where that cannot be
        done.

        The columns go to a new folder; the manifest, which names it, appears whole and is what makes them valid. What
        is there already is of no use any more and goes first: the disk need not hold both.
        """
        hashed = self._hashed
        if hashed is None or hashed.states != self._states():
            logger.warning("%s: the files changed while they were read; no cache is written", self.folder)
            return None
        place: Path | None = None
        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / "manifest.json").unlink(missing_ok=True)
            for old in self.folder.glob("columns-*"):
                shutil.rmtree(old, ignore_errors=True)
            place = self.folder / f"columns-{uuid.uuid4().hex}"
            place.mkdir()
            digests = {
                name: _write_column(place / _file_name(name, self.schema[name]), column)
                for name, column in columns.items()
            }
            manifest = {
                "format": FORMAT,
                "schema": dict(self.schema),
                **hashed.record(),
                "folder": place.name,
                "files": {path.name: _own_state(path) for path in sorted(place.iterdir())},
                "digests": digests,
                "lengths": {name: len(column) for name, column in columns.items()},
                "notes": dict(notes),
            }
            write_json(self.folder / "manifest.json", manifest)
        except (OSError, pl.exceptions.PolarsError) as error:
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)
            self._unwritable(error)
            return None
        return self.open()

    def _open(self) -> Stored:
        """Raises one of `_BROKEN` for whatever is not as it was written."""
        manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or manifest["schema"] != dict(self.schema):
            raise ValueError("it was written by another version")
        folder, fingerprint = str(manifest["folder"]), str(manifest["fingerprint"])
        place = self.folder / folder
        if Path(folder).name != folder or not folder.startswith("columns-"):
            raise ValueError(f"its manifest names no folder of columns ({folder!r})")
        if set(manifest["lengths"]) - set(self.schema):
            raise ValueError("it holds unknown columns")
        for name, state in manifest["files"].items():
            if _own_state(place / Path(name).name) != state:
                raise ValueError(f"{name} was changed")
        numbers, texts, later = {}, {}, {}
        for name, dtype in self.schema.items():
            if name in self.optional and name not in manifest["lengths"]:
                continue
            path, length = place / _file_name(name, dtype), int(manifest["lengths"][name])
            if path.name not in manifest["files"]:
                raise ValueError(f"{path.name} is not in its manifest")
            if dtype != TEXT:
                numbers[name] = _mapped(path, dtype, length)
                continue
            column = TextColumn(path, length, manifest["digests"][name])
            if name in self.later:
                later[name] = column
            else:
                texts[name] = column.read()
        notes = {str(key): int(value) for key, value in manifest["notes"].items()}
        self._check_sources(manifest)
        return Stored(fingerprint, numbers, texts, later, notes)

    def _check_sources(self, manifest: dict[str, Any]) -> None:
        states = self._states()
        latest = max((state[-1] for state in states.values() if state), default=0)
        if manifest["sources"] == states and latest < int(manifest["recorded_ns"]) - _SETTLED_NS:
            return
        if self.fingerprint() != manifest["fingerprint"]:
            raise ValueError("the atomic files were changed since")
        assert self._hashed is not None
        try:
            write_json(self.folder / "manifest.json", {**manifest, **self._hashed.record()})
        except OSError as error:
            logger.info("%s: valid, but its record cannot be renewed (%s)", self.folder, _reason(error))

    def _states(self) -> States:
        """`[size in bytes, inode, ns of the last modification, ns of the last status change]` of each file; None
        where there is none."""
        states: States = {}
        for name, path in self.sources.items():
            try:
                found = path.stat()
            except OSError:
                states[name] = None
            else:
                states[name] = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        return states

    def _ignored(self, error: BaseException) -> None:
        logger.info("%s is not used and made anew: %s", self.folder, _reason(error))

    def _unwritable(self, error: BaseException) -> None:
        reason = "a file has its name" if self.folder.is_file() else _reason(error)
        logger.warning(
            "%s cannot be written (%s), so every start reads the atomic files; data_cache: False does so silently",
            self.folder,
            reason,
        )


def fingerprint_of(hashes: list[tuple[str, str]]) -> str:
    """One SHA-256 for files given as `(suffix, SHA-256)`."""
    return hashlib.sha256("".join(f"{suffix} {digest}\n" for suffix, digest in hashes).encode()).hexdigest()


def _file_name(column: str, dtype: str) -> str:
    return f"{column}.{'arrow' if dtype == TEXT else 'npy'}"


def _own_state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _write_column(path: Path, column: Column) -> str:
    """Write a column and have the disk hold it; gives the SHA-256 of the file."""
    if isinstance(column, np.ndarray):
        np.save(path, column, allow_pickle=False)
    else:
        # One batch, so that it is read back in one piece.
        column.rechunk().to_frame().write_ipc(path, record_batch_size=max(len(column), 1))
    with open(path, "rb") as written:
        os.fsync(written.fileno())
        return _digest(written)


def _digest(handle: BufferedReader) -> str:
    return hashlib.file_digest(handle, "sha256").hexdigest()


def _mapped(path: Path, dtype: str, length: int) -> np.ndarray:
    """The array of a file, read-only and mapped into memory."""
    # An empty array has no bytes that could be mapped.
    array = np.load(path, mmap_mode="r" if length else None, allow_pickle=False)
    if array.shape != (length,) or array.dtype != np.dtype(dtype):
        raise ValueError(f"{path.name} does not hold {length:,} numbers of type {dtype}")
    return np.asarray(array)


def _reason(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.splitlines()[0]
