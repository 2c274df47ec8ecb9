"""The rows of a conversion on their way from raw files to atomic files: Parquet parts on disk, in source order.

Memory holds one block of rows at a time. What is finished is written down after every block, so that a conversion that
was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import polars as pl

from dataset_tools.errors import DataToolError
from dataset_tools.files import held, write_json
from dataset_tools.problems import Problems
from dataset_tools.rules import clean_rows, ids_of
from dataset_tools.schema import ATOMIC_FILES

# Rows of one or more tables and, if reading can go on after them, where (plain data).
Rows = tuple[Mapping[str, pl.DataFrame], Mapping[str, int] | None]


class Stage:
    """A folder of parts, for one process at a time.

    Args:
        folder: made if need be; emptied if it is of another job.
        job: plain data that decides every row: source, options, raw files with size and time of change.

    Raises:
        DataToolError: another process is at it.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any]) -> None:
        self.folder = folder
        self.problems = Problems()
        self.notes: dict[str, int] = {}
        self._job = json.loads(json.dumps(job, default=str))
        self._units: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, int] = {}
        self._parts: dict[str, int] = {}
        self._dropped: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._made = [parent for parent in self.folder.parents if not parent.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._hold = ExitStack()
        if not self._hold.enter_context(held(self.folder)):
            self._hold.close()
            raise DataToolError(
                f"another process is converting in {self.folder}; wait for it, or stop it (where none is, the file"
                " system cannot lock: name another folder with --temp)"
            )
        state = self._state()
        if state is None:
            self._empty()
        else:
            self._restore(state)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Parts stay for the same command given again if the conversion was interrupted, and only then."""
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # one that something was written into
                for parent in self._made:
                    parent.rmdir()
        self._hold.close()

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something to go on from."""
        return bool(self._units)

    def take(self, unit: str, read: Callable[[Mapping[str, int] | None], Iterable[Rows]]) -> None:
        """Stage all that `read` gives of one unit of the source (a raw file), from where an earlier run stopped.

        `read` gets the last position that it gave before the run was stopped, None at first.
        """
        known = self._units.get(unit, {"position": None, "finished": False})
        if known["finished"]:
            return
        for tables, position in read(known["position"]):
            for name, rows in tables.items():
                self.add(name, rows)
            if position is not None:
                self._save(unit, {"position": dict(position), "finished": False})
        self._save(unit, {"position": None, "finished": True})

    def add(self, name: str, rows: pl.DataFrame) -> None:
        """Stage rows with `_file` and `_line`: those of an atomic file by its rules, those of another table as they
        are. `_row` numbers them through."""
        first = self._rows.get(name, 0)
        self._rows[name] = first + rows.height
        rows = rows.with_columns(_row=pl.int_range(first, first + rows.height, dtype=pl.Int64))
        if name in ATOMIC_FILES:
            check_names(name, rows.columns)
            kept = clean_rows(name, rows, self.problems)
            if ATOMIC_FILES[name].key and kept.height < rows.height:
                lost = pl.DataFrame({"id": ids_of(name, rows)}).filter(~rows["_row"].is_in(kept["_row"].implode()))
                self._write(self._dropped, name, "dropped", lost)
            rows = kept
        if rows.height or name not in self._parts:
            self._write(self._parts, name, "part", rows)

    def add_empty(self, suffix: str) -> None:
        """Make sure that an atomic file has its required columns, be it without a row."""
        if suffix not in self._parts:
            fields = ATOMIC_FILES[suffix].fields
            schema: dict[str, Any] = {name: pl.String for name, field in fields.items() if field.required}
            self.add(suffix, pl.DataFrame(schema={**schema, "_file": pl.UInt32, "_line": pl.UInt32}))

    def _write(self, numbers: dict[str, int], name: str, what: str, rows: pl.DataFrame) -> None:
        number = numbers.get(name, 0)
        try:
            rows.write_parquet(self._file(name, what, number), compression="lz4", statistics=False)
        except pl.exceptions.ComputeError as error:  # what a full disk is to Polars
            raise OSError(str(error)) from error
        numbers[name] = number + 1

    @property
    def names(self) -> tuple[str, ...]:
        """The tables that were staged."""
        return tuple(self._parts)

    def parts(self, name: str, what: str = "part") -> list[Path]:
        """The files of a table in source order; `what` "dropped": of the ids in rows that the rules dropped."""
        numbers = self._parts if what == "part" else self._dropped
        return [self._file(name, what, number) for number in range(numbers.get(name, 0))]

    def _file(self, name: str, what: str, number: int) -> Path:
        return self.folder / f"{name}-{what}-{number:06d}.parquet"

    # ------------------------------------------------------------------ going on

    def _save(self, unit: str, done: Mapping[str, Any]) -> None:
        self._units[unit] = dict(done)
        state = {
            "job": self._job,
            "units": self._units,
            "rows": self._rows,
            "parts": self._parts,
            "dropped": self._dropped,
            "notes": self.notes,
            "problems": self.problems.state(),
        }
        write_json(self.folder / "state.json", state)

    def _state(self) -> dict[str, Any] | None:
        """What an earlier run of the same job left, None if there is nothing that can be used."""
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            return dict(state) if state["job"] == self._job else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._units, self._rows, self._parts = state["units"], state["rows"], state["parts"]
        self._dropped, self.notes = state["dropped"], state["notes"]
        self.problems.restore(state["problems"])

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def check_names(suffix: str, names: Iterable[str]) -> None:
    """`DataToolError` for columns that neither an atomic file's header nor SQL could tell apart."""
    known: dict[str, str] = {}
    for name in names:
        if not name or re.search(r'[\s\0:"]', name):
            raise DataToolError(
                f"{name!r} cannot be the name of a column of .{suffix}: blanks, colons and quotes have a meaning there;"
                " rename it"
            )
        if name.lower() in known:
            raise DataToolError(
                f".{suffix} would have the columns {known[name.lower()]} and {name}, which differ in case only; rename"
                " one"
            )
        known[name.lower()] = name


def identity_of(files: Iterable[Path]) -> list[list[Any]]:
    """Raw files as a job knows them: name, size in bytes, time of change in nanoseconds."""
    return [[str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in files]
