"""What can be wrong with a data set, and the one exception that `dataset_tools` raises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """Every occurrence of one kind of fault in one file: how many, and where the first ones are."""

    kind: str
    file: str
    count: int
    first: tuple[str, ...] = ()  # "line 12: …", at most a handful

    def __str__(self) -> str:
        where = "; ".join(self.first)
        more = "; …" if self.count > len(self.first) and self.first else ""
        return f"{self.file}: {self.count:,} × {self.kind}" + (f" ({where}{more})" if where else "")


class DataToolError(Exception):
    """A raw log or a data set folder that cannot be used; the message says which file and line and what to do."""

    def __init__(self, message: str, violations: Iterable[Violation] = ()) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join([message, *(f"  {violation}" for violation in self.violations)]))
