"""Every number of the qualities as tidy rows: one CSV for notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from recbole_lsvcr.benchmark.report.view import number

COLUMNS = (
    "task",
    "group",
    "arm",
    "model",
    "setting",
    "protocol",
    "slice",
    "metric",
    "seed",
    "value",
    "instances",
    "users",
    "dataset",
    "synthetic",
)


def table(results: Mapping[str, Any]) -> str:
    """CSV of `COLUMNS`: a row per seed, and one each for `mean` and `std`; an unknown value is empty. What a random
    order gives is the group `chance`. An arm without a number has no row. A name that a spreadsheet would take for a
    formula has an apostrophe before it.
    """
    study = (_name(results["dataset"]), results["synthetic"])
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, task in results["tasks"].items():
        for arm in task["arms"]:
            head = [_name(part) for part in (name, arm["group"], arm["name"], arm["model"], arm["setting"])]
            writer.writerows((*head, *row, *study) for row in _arm(arm))
        for protocol, found in task["ranked"].items():
            ranked = found or {}
            tail = (ranked.get("instances"), ranked.get("users"))
            for metric, value in (ranked.get("chance") or {}).items():
                row = (_name(name), "chance", "chance", "", "", _name(protocol), "all", _name(metric), "mean")
                writer.writerow((*row, _value(value), *tail, *study))
    return written.getvalue()


def _arm(arm: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for protocol, parts in (arm.get("quality") or {}).items():
        for part, found in parts.items():
            tail = (found.get("instances"), found.get("users"))
            for metric, spread in found.items():
                if not isinstance(spread, Mapping):
                    continue
                values = {**(spread.get("values") or {}), "mean": spread.get("mean"), "std": spread.get("std")}
                for seed, value in values.items():
                    yield (*map(_name, (protocol, part, metric, seed)), _value(value), *tail)


def _name(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _value(value: Any) -> str:
    """A float as Python reads it back exactly."""
    found = number(value)
    return "" if found is None else repr(found)
