"""Faults of raw logs, collected with file and line until all are known, then fatal or reported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from dataset_tools.errors import DataToolError, Violation

SHOWN = 5


@dataclass
class Problems:
    """What was found wrong, per kind and file; rows carry their place in the columns `_file` and `_line`.

    `_file` is an index into `files`; `_line` is a line number, or the number of the item where `units` says so (a JSON
    file that is one document).
    """

    files: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    _found: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def open_file(self, name: str, unit: str = "line") -> int:
        """Register a raw file and return its index for the column `_file`."""
        self.files.append(name)
        self.units.append(unit)
        return len(self.files) - 1

    def fork(self) -> Problems:
        """One without a fault that knows the same files, to be absorbed later."""
        return Problems(list(self.files), list(self.units))

    def drain(self) -> Problems:
        """Its faults, in a fork; they are no longer in this one."""
        found, self._found = self._found, {}
        return Problems(list(self.files), list(self.units), found)

    def absorb(self, other: Problems) -> None:
        """Take over the faults of a fork, and the files that it opened."""
        self.files[:], self.units[:] = other.files, other.units
        for (kind, file), (count, first) in other._found.items():
            self._record(kind, file, count, first)

    def add(self, kind: str, file: int, line: int | None, what: str = "") -> None:
        """Record one fault."""
        place = f"{self.units[file]} {line:,}" if line is not None else ""
        self._record(kind, self.files[file], 1, [": ".join(part for part in (place, what) if part)])

    def add_rows(self, kind: str, rows: pl.DataFrame, shown: Sequence[str]) -> None:
        """Record every row of `rows`; the columns `shown` are quoted for the first ones of each file."""
        if rows.is_empty():
            return
        quoted = rows.select("_file", "_line", *shown).group_by("_file", maintain_order=True)
        for (file,), group in quoted:
            first = [self._describe(row, shown) for row in group.head(SHOWN).iter_rows(named=True)]
            self._record(kind, self.files[int(str(file))], group.height, first)

    def add_counted(self, kind: str, counts: Mapping[int, int], rows: pl.DataFrame, shown: Sequence[str]) -> None:
        """Record `counts` faults by file, of which `rows` are the first ones."""
        for file, count in counts.items():
            first = rows.filter(pl.col("_file") == file).head(SHOWN)
            texts = [self._describe(row, shown) for row in first.iter_rows(named=True)]
            self._record(kind, self.files[file], count, texts)

    def state(self) -> dict[str, Any]:
        """All that was recorded, as plain data."""
        found = [[*key, count, first] for key, (count, first) in self._found.items()]
        return {"files": self.files, "units": self.units, "found": found}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what another object's `state` gave."""
        self.files, self.units = list(state["files"]), list(state["units"])
        self._found = {(kind, file): (count, list(first)) for kind, file, count, first in state["found"]}

    def _describe(self, row: dict[str, object], shown: Sequence[str]) -> str:
        values = " ".join(f"{name}={_short(row[name])}" for name in shown)
        return f"{self.units[int(str(row['_file']))]} {row['_line']:,}: {values}"

    def _record(self, kind: str, file: str, count: int, first: list[str]) -> None:
        total, known = self._found.get((kind, file), (0, []))
        self._found[kind, file] = (total + count, (known + [text for text in first if text])[:SHOWN])

    def violations(self) -> list[Violation]:
        """All that was recorded, in the order of discovery."""
        return [
            Violation(kind=kind, file=file, count=count, first=tuple(first))
            for (kind, file), (count, first) in self._found.items()
        ]

    def totals(self) -> dict[str, int]:
        """Faults per kind, over all files."""
        totals: dict[str, int] = {}
        for (kind, _), (count, _) in self._found.items():
            totals[kind] = totals.get(kind, 0) + count
        return totals

    def settle(self, on_error: str) -> None:
        """Raise `DataToolError` listing everything (`on_error="fail"`), or say on standard error what is dropped."""
        violations = self.violations()
        if not violations:
            return
        total = sum(violation.count for violation in violations)
        if on_error == "fail":
            raise DataToolError(
                f"{total:,} fault{'s' * (total > 1)} in the raw data, nothing written; mend or drop (--on-error skip):",
                violations,
            )
        sys.stderr.write(
            f"faults in the raw data, {total:,} dropped:\n" + "".join(f"  {violation}\n" for violation in violations)
        )


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + "…'"
