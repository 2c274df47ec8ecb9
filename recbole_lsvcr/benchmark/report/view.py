"""What every form of the report shows: arms and their numbers as looked up, tables of cells, how numbers are written.

HTML, Markdown and LaTeX only differ in how they write a `Table`, so that rows, figures and marks are the same in all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_lsvcr.benchmark.vocabulary import COLD, MAIN

Arm = Mapping[str, Any]
Task = Mapping[str, Any]
NOTHING = "–"
TASK_TITLES = {"video": "Videos", "comment": "Comments"}


@dataclass(frozen=True)
class Cell:
    """Text, what it is sorted by (None: last, whatever the direction), and what it is in its column."""

    text: str
    value: float | str | None = None
    mark: str = ""  # "best", "second"
    hint: str = ""  # where there is a pointer to hold over it
    note: str = ""  # said behind the text, less loudly


@dataclass(frozen=True)
class Row:
    """Cells; `kind`: "ours" (what the table is about), "failed", else "". `status`: what is wrong with the arm."""

    cells: tuple[Cell, ...]
    kind: str = ""
    status: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is no figure in the row."""
        return all(cell.value is None for cell in self.cells[1:])


@dataclass(frozen=True)
class Table:
    """The first column names the row; `foot` stays below however the rows are sorted."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    foot: tuple[Row, ...] = ()
    caption: str = ""


# ---------------------------------------------------------------------- numbers


def number(value: Any) -> float | None:
    """A finite number as float; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def score(value: float | None, std: float | None = None) -> str:
    """A metric, with its standard deviation where there is one."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if std is None else f"{value:.4f} ± {std:.4f}"


def signed(value: float | None) -> str:
    """A difference of metrics."""
    return NOTHING if value is None else f"{value:+.4f}"


def percent(value: float | None) -> str:
    """A relative difference."""
    return NOTHING if value is None else f"{100 * value:+.1f} %"


def amount(value: float | None) -> str:
    """A cost: three digits that count, whole numbers from 100 on."""
    if value is None:
        return NOTHING
    if value and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:,.{0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 10 else 2}f}"


def whole(value: Any) -> str:
    """A count."""
    found = number(value)
    return NOTHING if found is None else f"{found:,.0f}"


def probability(value: float | None) -> str:
    """A p value."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def setting(value: Any) -> str:
    """A value of a setting: floats to four digits that count, all else as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return NOTHING if value is None else str(value)


def settings(values: Mapping[str, Any]) -> str:
    """Settings on one line."""
    return ", ".join(f"{name} {setting(value)}" for name, value in values.items()) or NOTHING


def task_title(name: str) -> str:
    """`video` -> `Videos`."""
    return TASK_TITLES.get(name, name)


# ---------------------------------------------------------------------- arms


def group(task: Task, name: str) -> list[Arm]:
    """The arms of a group, in the order of results.json."""
    return [arm for arm in task["arms"] if arm.get("group") == name]


def quality(arm: Arm, protocol: str, metric: str, part: str = "all") -> Mapping[str, Any]:
    """`mean`, `std`, `values` of a metric; empty where the arm has none."""
    found = (arm.get("quality") or {}).get(protocol) or {}
    some = (found.get(part) or {}).get(metric)
    return some if isinstance(some, Mapping) else {}


def mean(arm: Arm, protocol: str, metric: str, part: str = "all") -> float | None:
    """The mean of a metric over seeds."""
    return number(quality(arm, protocol, metric, part).get("mean"))


def size_of(arm: Arm, protocol: str, part: str = "all") -> tuple[int, int]:
    """Instances and users of an arm's slice."""
    found = ((arm.get("quality") or {}).get(protocol) or {}).get(part) or {}
    return int(number(found.get("instances")) or 0), int(number(found.get("users")) or 0)


def size(arms: Iterable[Arm], protocol: str, part: str) -> tuple[int, int]:
    """Instances and users of a slice: the most that any arm has."""
    found = [size_of(arm, protocol, part) for arm in arms]
    return max((one for one, _ in found), default=0), max((one for _, one in found), default=0)


def usual_size(arms: Iterable[Arm], protocol: str, part: str) -> tuple[int, int]:
    """Instances and users of a slice as most of the arms have them: means over others cannot be set beside theirs."""
    found = Counter(some for arm in arms if (some := size_of(arm, protocol, part))[0])
    return found.most_common(1)[0][0] if found else (0, 0)


def is_ours(arm: Arm) -> bool:
    """Whether it is one of our models."""
    return arm.get("role") == "ours"


def ours(task: Task) -> list[Arm]:
    """Our arms of the main group that have a number under the primary protocol and metric."""
    protocol, metric = primary(task)
    return [arm for arm in group(task, MAIN) if is_ours(arm) and mean(arm, protocol, metric) is not None]


def primary(task: Task) -> tuple[str, str]:
    """Protocol and metric that a study is judged by; the protocol is empty where nothing was ranked."""
    return task["primary"]["protocol"] or "", task["primary"]["metric"]


def best_baseline(task: Task, arm: Arm, protocol: str, metric: str, *, learned: bool = False) -> Arm | None:
    """The baseline with the highest mean over as many instances and users as `arm` has; rules count unless only learned
    ones are asked for. The first of equals."""
    known = [
        other
        for other in group(task, MAIN)
        if not is_ours(other)
        and mean(other, protocol, metric) is not None
        and size_of(other, protocol) == size_of(arm, protocol)
        and not (learned and other.get("role") == "rule")
    ]
    return max(known, key=lambda other: mean(other, protocol, metric) or 0.0, default=None)


def shown_metrics(task: Task) -> list[str]:
    """The metrics of a main table: Recall and NDCG at every cut, MRR@10, MRR."""
    known = [name for name in task["metrics"] if name.startswith(("recall", "ndcg")) or name in ("mrr@10", "mrr")]
    return known or [primary(task)[1]]


def protocols(task: Task) -> list[str]:
    """The protocols, the primary one first."""
    first, _ = primary(task)
    return [first, *(name for name in task["protocols"] if name != first)]


def marks(values: Sequence[float | None], *, lowest: bool = False) -> list[str]:
    """Which value is the best and which the second, at full precision; equal values share a mark, a single value has
    none."""
    known = sorted({value for value in values if value is not None}, reverse=not lowest)
    if sum(value is not None for value in values) < 2:
        return [""] * len(values)
    titles = dict(zip(known, ("best", "second"), strict=False))
    return ["" if value is None else titles.get(value, "") for value in values]


def status(arm: Arm, protocol: str | None = None) -> str:
    """What is wrong with an arm, or that it was not ranked under a protocol; nothing where all is well."""
    if arm.get("status") != "done":
        return f"{arm.get('status')}: {arm['reason']}" if arm.get("reason") else str(arm.get("status"))
    if protocol is None or (arm.get("quality") or {}).get(protocol):
        return ""
    return f"not ranked under {protocol}" if protocol else "not ranked"


def kind(arm: Arm) -> str:
    """The kind of an arm's row. In a table of our variants none but the full model stands out."""
    if arm.get("status") in ("failed", "missing"):
        return "failed"
    return "ours" if is_ours(arm) and arm.get("group") in (MAIN, COLD) else ""


def name_cell(arm: Arm) -> Cell:
    """The cell that names an arm."""
    model = "" if arm.get("model") == arm["name"] else str(arm.get("model") or "")
    known = ("rule", "partial", "failed", "missing")
    notes = [name for name in known if name in (arm.get("role"), arm.get("status"))]
    return Cell(str(arm["name"]), str(arm["name"]), hint=model, note=", ".join(notes))
