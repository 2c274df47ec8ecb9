"""A chart as plain data for plotly, and what all charts share: colours, axes, how names are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from dataset_tools.portrait import GREY, LAYOUT
from recbole_lsvcr.benchmark.report.view import (
    Arm,
    is_ours,
)

OURS, BASELINE, RULE = "#1f6fb2", "#5f6b7a", "#b06a10"
COLORS = {"ours": OURS, "baseline": BASELINE, "rule": RULE}
# Apart from each other and from white, in this order; from the eleventh line on they come again, dashed.
LINES = ("#d9772b", "#2e8b57", "#7a3fb0", "#c9302c", "#8c6d1f", "#17899b", "#c2559d", "#5f6b7a", "#6b8e23", "#8b4a2b")
DASHES = ("solid", "dash", "dot")
SLICE_COLORS = {"all": "#1c2127", "seen_items": OURS, "unseen_items": LINES[0]}  # those a chart has room for
_NAME = 26  # letters of a name on an axis


@dataclass(frozen=True)
class Chart:
    """Traces and layout of plotly; `height` and the least `width` in pixels (0: as narrow as the window)."""

    title: str
    caption: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 320
    width: int = 0


def shown(text: Any, length: int = _NAME) -> str:
    """A name in a chart: cut, and no markup to plotly, which reads some HTML."""
    name = " ".join(str(text).split())
    return escape(name if len(name) <= length else f"{name[: length - 1]}…", quote=False)


def layout(x: Mapping[str, Any], y: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The common layout with two axes."""
    axes = {"xaxis": {"automargin": True, **x}, "yaxis": {"automargin": True, **y}}
    return {**LAYOUT, "hovermode": "closest", **axes, **more}


def rows_axis(names: Sequence[str]) -> dict[str, Any]:
    """A y axis with one line per name, the first on top. By number: two arms may have one name."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [shown(name) for name in names],
        "range": [len(names) - 0.4, -0.6],
        "zeroline": False,
        "ticks": "",
    }


def row_height(rows: int, least: int = 150) -> int:
    """The height of a chart with so many lines."""
    return max(least, 90 + 26 * rows)


def vertical(x: float, color: str = GREY, dash: str = "dot") -> dict[str, Any]:
    """A line across the chart at `x`."""
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": color, "dash": dash, "width": 1.5},
    }


def line_style(place: int, arm: Arm) -> dict[str, Any]:
    """Colour and dash of an arm among many lines; ours is thick."""
    if is_ours(arm):
        return {"color": OURS, "width": 3.5, "dash": DASHES[place % 3]}
    return {"color": LINES[place % len(LINES)], "width": 1.8, "dash": DASHES[place // len(LINES) % 3]}
