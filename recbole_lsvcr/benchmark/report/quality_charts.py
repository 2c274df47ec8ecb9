"""Charts of quality alone and against cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_lsvcr.benchmark.report.figure import (
    COLORS,
    RULE,
    Chart,
    layout,
    row_height,
    rows_axis,
    shown,
    vertical,
)
from recbole_lsvcr.benchmark.report.view import (
    Arm,
    Task,
    amount,
    group,
    mean,
    number,
    primary,
    quality,
    score,
    whole,
)
from recbole_lsvcr.benchmark.vocabulary import MAIN
from recbole_lsvcr.titles import metric_title

_TICKS = 3  # least number on an axis


def dots(task: Task, protocol: str) -> Chart | None:
    """The primary metric of every arm, best on top: mean, standard deviation, each seed, and what chance gives."""
    _, metric = primary(task)
    chance = number(((task["ranked"].get(protocol) or {}).get("chance") or {}).get(metric))
    return dot_chart(
        group(task, MAIN),
        protocol,
        metric,
        title=f"{metric_title(metric)}, {protocol}",
        caption="Mean over seeds with its standard deviation; small dots: each seed."
        + (" Dotted: a random order." if chance is not None else ""),
        line=chance,
    )


@dataclass(frozen=True)
class _Dot:
    """An arm's number: mean, standard deviation over seeds (0: not known), of each seed where there are several."""

    arm: Arm
    mean: float
    std: float
    values: tuple[float, ...]


def _dot(arm: Arm, protocol: str, metric: str) -> _Dot | None:
    found = quality(arm, protocol, metric)
    middle = number(found.get("mean"))
    if middle is None:
        return None
    each = [value for one in (found.get("values") or {}).values() if (value := number(one)) is not None]
    return _Dot(arm, middle, number(found.get("std")) or 0.0, tuple(each) if len(each) > 1 else ())


def dot_chart(
    arms: Iterable[Arm],
    protocol: str,
    metric: str,
    *,
    title: str,
    caption: str,
    line: float | None = None,
    ranked: bool = True,
) -> Chart | None:
    """Arms as lines, a metric as dots with error bars; None without a number. `ranked`: best first."""
    known = [dot for arm in arms if (dot := _dot(arm, protocol, metric)) is not None]
    if not known:
        return None
    if ranked:
        known.sort(key=lambda dot: -dot.mean)
    roles = [role for role in COLORS if any(dot.arm.get("role") == role for dot in known)]
    ends = [end for dot in known for end in (dot.mean - dot.std, dot.mean + dot.std, *dot.values)]
    ends += [] if line is None else [line]
    room = 0.03 * (max(ends) - min(ends)) or 0.01
    look = layout(
        {"title": {"text": metric_title(metric)}, "range": [min(ends) - room, max(ends) + room]},
        rows_axis([str(dot.arm["name"]) for dot in known]),
        showlegend=len(roles) > 1,
        shapes=[] if line is None else [vertical(line)],
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )
    return Chart(
        title, caption, [trace for role in roles for trace in _dots(known, role)], look, row_height(len(known))
    )


def _dots(known: Sequence[_Dot], role: str) -> list[dict[str, Any]]:
    """The traces of one role: each seed, and above them the means."""
    places = [place for place, dot in enumerate(known) if dot.arm.get("role") == role]
    each = [(value, place) for place in places for value in known[place].values]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [value for value, _ in each],
            "y": [place for _, place in each],
            "marker": {"size": 5, "color": COLORS[role], "opacity": 0.45},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": {"baseline": "baselines", "rule": "rules without training"}.get(role, role),
            "x": [known[place].mean for place in places],
            "y": places,
            "error_x": {"type": "data", "array": [known[place].std for place in places], "thickness": 1.5, "width": 4},
            "marker": {"size": 10, "color": COLORS[role]},
            "text": [
                f"{shown(known[place].arm['name'], 60)}<br>{score(known[place].mean, known[place].std or None)}"
                for place in places
            ],
            "hoverinfo": "text",
        },
    ]


def cost_chart(task: Task) -> Chart | None:
    """Seconds to the best epoch against the primary metric; rules, which train nothing, as a line."""
    protocol, metric = primary(task)
    found = []
    rules = []
    for arm in group(task, MAIN):
        value = mean(arm, protocol, metric)
        seconds = number((arm.get("cost") or {}).get("seconds_to_best"))
        if value is not None and seconds and seconds > 0:
            found.append((seconds, value, arm))
        elif value is not None and arm.get("role") == "rule":
            rules.append((value, arm))
    if not found:
        return None
    best = max(rules, key=lambda pair: pair[0], default=None)
    heights = [value for _, value, _ in found] + ([best[0]] if best else [])
    points, names = [(math.log10(x), y) for x, y, _ in found], [str(arm["name"]) for *_, arm in found]
    places = label_places(points, names, best[0] if best else None)
    data = []
    for role in ("ours", "baseline", "rule"):
        some = [(one, place) for one, place in zip(found, places, strict=True) if one[2].get("role") == role]
        if not some:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": {"baseline": "baselines", "rule": "rules"}.get(role, role),
                "x": [x for (x, _, _), _ in some],
                "y": [y for (_, y, _), _ in some],
                "text": [shown(arm["name"], 18) for (*_, arm), _ in some],
                "textposition": [place for _, place in some],
                "textfont": {"size": 11, "color": COLORS[role]},
                "hovertext": [_cost_hover(arm, x, y) for (x, y, arm), _ in some],
                "hoverinfo": "text",
                "marker": {"size": 11, "color": COLORS[role]},
                "cliponaxis": False,
            }
        )
    low, high = (edge(math.log10(x) for x, *_ in found) for edge in (min, max))
    room, tall = max(0.12, 0.12 * (high - low)), max(heights) - min(heights) or 0.01
    line: dict[str, Any] = {}
    if best:
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": best[0], "y1": best[0]}
        note = {
            "xref": "paper",
            "x": 0,
            "xanchor": "left",
            "y": best[0],
            "yanchor": "bottom",
            "showarrow": False,
            "text": f"{shown(best[1]['name'])}, the best rule (no training)",
            "font": {"color": RULE, "size": 11},
        }
        line = {"shapes": [{**across, "line": {"color": RULE, "dash": "dot", "width": 1.5}}], "annotations": [note]}
    look = layout(
        {
            "type": "log",
            "title": {"text": "seconds to the best epoch (logarithmic)"},
            "range": [low - room, high + room],
            **_log_ticks(low - room, high + room),
        },
        {"title": {"text": metric_title(metric)}, "range": [min(heights) - 0.12 * tall, max(heights) + 0.12 * tall]},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        **line,
    )
    caption = "Up and left is better. Pretraining and alignment are not in the seconds; see the table."
    return Chart("Quality against cost", caption, data, look, 430, 640)


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Round numbers, written out: powers of ten, or as much more as it takes for some ticks."""
    values: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 2, 3, 5, 7), range(1, 10), [step / 10 for step in range(10, 100)]):
        values = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
        values = [value for value in values if 10**low <= value <= 10**high]
        if len(values) >= _TICKS:
            break
    return {"tickvals": values, "ticktext": [f"{value:,.10g}" for value in values]}


def _cost_hover(arm: Arm, seconds: float, value: float) -> str:
    cost = arm.get("cost") or {}
    return "<br>".join(
        [
            f"{shown(arm['name'], 60)}: {score(value)}",
            f"{amount(seconds)} s to the best epoch",
            f"{whole(cost.get('parameters'))} parameters",
            f"{amount(number(cost.get('peak_memory_mb')))} MB",
        ]
    )


def label_places(points: Sequence[tuple[float, float]], names: Sequence[str], line: float | None = None) -> list[str]:
    """Where each point's label stands, so that labels cover neither each other nor points nor the line at
    height `line`, as far as can be.

    Computed for a chart of 800 x 330 pixels: the first free place of six, else the one that covers least.
    """
    across, up = [x for x, _ in points], [y for _, y in points] + ([] if line is None else [line])
    left, bottom = min(across), min(up)
    wide, tall = max(across) - left or 1, max(up) - bottom or 1
    pixels = [(90 + 620 * (x - left) / wide, 40 + 250 * (y - bottom) / tall) for x, y in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels]
    if line is not None:
        height = 40 + 250 * (line - bottom) / tall
        taken += [(0, height - 2, 800, height + 2), (0, height, 220, height + 16)]  # and what is written on it
    chosen = []
    for (x, y), name in zip(pixels, names, strict=True):
        width = 6.4 * min(len(name), 18)
        boxes = {
            "top center": (x - width / 2, y + 7, x + width / 2, y + 21),
            "bottom center": (x - width / 2, y - 21, x + width / 2, y - 7),
            "middle right": (x + 8, y - 7, x + 8 + width, y + 7),
            "middle left": (x - 8 - width, y - 7, x - 8, y + 7),
            "top right": (x + 4, y + 6, x + 4 + width, y + 20),
            "bottom left": (x - 4 - width, y - 20, x - 4, y - 6),
        }
        place = min(boxes, key=lambda place: sum(_overlap(boxes[place], other) for other in taken))
        taken.append(boxes[place])
        chosen.append(place)
    return chosen


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, tall)
