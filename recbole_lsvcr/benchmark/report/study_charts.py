"""Charts of the further studies: ablation, alignment steps, alignment losses, cold start; and of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataset_tools.describe import tables as portrait_tables
from dataset_tools.portrait import charts as portrait_charts
from dataset_tools.portrait_values import FastUsers, Ids, Part, Portrait, Spectrum, Texts, Times
from recbole_lsvcr.benchmark.report import studies
from recbole_lsvcr.benchmark.report.figure import (
    LINES,
    OURS,
    SLICE_COLORS,
    Chart,
    layout,
    line_style,
    row_height,
    rows_axis,
    shown,
)
from recbole_lsvcr.benchmark.report.quality_charts import dot_chart
from recbole_lsvcr.benchmark.report.view import (
    Cell,
    Row,
    Table,
    Task,
    group,
    is_ours,
    mean,
    number,
    primary,
    quality,
    score,
    size,
)
from recbole_lsvcr.benchmark.vocabulary import ABLATION, MAIN, STEPS
from recbole_lsvcr.titles import metric_title, slice_title

_EXACT = {"exponentformat": "power", "showexponent": "all"}  # no "100µ"
_LOSSES = ("loss", "lm", "sr", "ssc", "vcc")
_PORTRAIT_TABLES = ("Size", "Split by time")
_PORTRAIT = (
    "Interactions per day",
    "Video interactions per user",
    "Video interactions per video",
    "Comments per video",
)


def ablation(task: Task) -> Chart | None:
    """The primary metric of the full model (its mean as a line) and of each variant."""
    full = studies.full_model(task)
    arms = studies.variants(task) if group(task, ABLATION) else []
    protocol, metric = primary(task)
    if not any(mean(arm, protocol, metric) is not None for arm in arms):
        return None
    return dot_chart(
        arms,
        protocol,
        metric,
        title="What each part is worth",
        caption=f"{metric_title(metric)} under {protocol}, mean and standard deviation over seeds; dotted: the full"
        " model.",
        line=None if full is None else mean(full, protocol, metric),
        ranked=False,
    )


def steps(task: Task) -> Chart | None:
    """The primary metric by alignment steps, a line per slice."""
    protocol, metric = primary(task)
    arms = sorted(group(task, STEPS), key=studies.steps)
    parts = [name for name in studies.STEP_SLICES if size(arms, protocol, name)[0]]
    data = []
    for part in parts:
        known = [(studies.steps(arm), quality(arm, protocol, metric, part)) for arm in arms]
        known = [(step, found) for step, found in known if number(found.get("mean")) is not None]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": slice_title(part),
                "x": [step for step, _ in known],
                "y": [found["mean"] for _, found in known],
                "error_y": _deviations([found for _, found in known]),
                "line": {"color": SLICE_COLORS[part]},
                "hovertemplate": "%{x} steps: %{y:.4f}",
            }
        )
    if not data:
        return None
    look = layout(
        {"title": {"text": "alignment steps"}, "rangemode": "tozero"},
        {"title": {"text": metric_title(metric)}},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )
    return Chart("Quality by alignment steps", f"{protocol}; bars: standard deviation over seeds.", data, look, 360)


def _deviations(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Error bars of standard deviations; none at all where no deviation is known, for one of length 0 says it is 0."""
    known = [number(one.get("std")) for one in found]
    return {"type": "data", "array": [std or 0.0 for std in known], "visible": any(std is not None for std in known)}


def losses(task: Task) -> list[Chart]:
    """One chart per alignment loss: its log by step, a line per aligned arm."""
    arms = studies.aligned(task)
    found = [(arm, [entry for entry in arm["alignment"].get("log") or [] if "loss" in entry]) for arm in arms]
    names = [name for name in _LOSSES if any(name in entry for _, log in found for entry in log)]
    charts = []
    for name in names:
        data = []
        counts = {True: 0, False: 0}
        for arm, log in found:
            plain = not (is_ours(arm) and arm.get("group") == MAIN)
            style = line_style(counts[plain], {} if plain else arm)
            counts[plain] += 1
            points = [
                (number(entry.get("step")), value) for entry in log if (value := number(entry.get(name))) is not None
            ]
            if points:
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines" if len(points) > 1 else "markers",
                        "name": shown(arm["name"]),
                        "x": [step for step, _ in points],
                        "y": [value for _, value in points],
                        "line": {**style, "width": 3 if not plain else 1.6},
                        "hovertemplate": "step %{x}: %{y:.4g}",
                    }
                )
        look = layout(
            {"title": {"text": "step"}, "rangemode": "tozero"},
            {"title": {"text": name}, "type": "log" if _wide(data) else "linear", **_EXACT},
            legend={"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top", "font": {"size": 11}},
            showlegend=True,
        )
        title = "Alignment loss, all parts" if name == "loss" else f"Alignment loss: {name}"
        charts.append(Chart(title, "", data, look, 320 + 10 * len(data)))
    return charts


def _wide(data: list[dict[str, Any]]) -> bool:
    """Whether the values span more than a factor of 30, none of them zero or less."""
    values = [value for trace in data for value in trace["y"]]
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def cold(task: Task) -> Chart | None:
    """The primary metric for unseen videos and users, a line per arm."""
    protocol, metric = primary(task)
    arms = studies.cold_arms(task)
    parts = [name for name in studies.COLD_SLICES if size(arms, protocol, name)[0]]
    known = [arm for arm in arms if any(mean(arm, protocol, metric, part) is not None for part in parts)]
    if not known:
        return None
    data = []
    for place, part in enumerate(parts):
        found = [quality(arm, protocol, metric, part) for arm in known]
        offset = 0.2 * (place - (len(parts) - 1) / 2)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{slice_title(part)} (n={size(arms, protocol, part)[0]:,})",
                "x": [number(some.get("mean")) for some in found],
                "y": [line + 2 * offset for line in range(len(known))],
                "width": 0.36,
                "error_x": _deviations(found),
                "marker": {"color": (LINES[0], OURS)[place]},
                "text": [score(number(some.get("mean"))) for some in found],
                "textposition": "inside",
                "insidetextanchor": "start",
                "hovertext": [
                    f"{shown(arm['name'], 60)}, {slice_title(part)}: {studies.spread(arm, protocol, metric, part)}"
                    for arm in known
                ],
                "hoverinfo": "text",
            }
        )
    look = layout(
        {"title": {"text": metric_title(metric)}, "rangemode": "tozero"},
        rows_axis([str(arm["name"]) for arm in known]),
        barmode="overlay",
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )
    caption = f"{metric_title(metric)} under {protocol}; bars: standard deviation over seeds."
    return Chart("Cold start", caption, data, look, row_height(2 * len(known), 220))


# ---------------------------------------------------------------------- the data set


def portrait(value: Mapping[str, Any]) -> tuple[list[Table], list[Chart]] | None:
    """The key numbers of results.json's portrait, when there were interactions and how they are spread; None where it
    is of another version, which is no reason to have no report."""
    try:
        numbers = _portrait(value)
        shown_tables = [table for table in portrait_tables(numbers) if table.title in _PORTRAIT_TABLES]
        found = {spec["title"]: spec for spec in portrait_charts(numbers)}
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        return None
    drawn = [
        Chart(title, found[title]["caption"], found[title]["data"], found[title]["layout"], 300)
        for title in _PORTRAIT
        if title in found
    ]
    rows = [tuple(Row(tuple(Cell(text) for text in row)) for row in table.rows) for table in shown_tables]
    return [Table(one.title, one.columns, some) for one, some in zip(shown_tables, rows, strict=True)], drawn


def _portrait(value: Mapping[str, Any]) -> Portrait:
    """The portrait as the data set tools know it."""
    given = {name: found for name, found in value.items() if name != "warnings"}
    for name in ("inter_per_user", "inter_per_video", "comments_per_video", "records_per_user"):
        given[name] = _spectrum(given[name])
    for name in ("titles", "contents"):
        given[name] = Texts(**{**given[name], "lengths": _spectrum(given[name]["lengths"])})
    given["fast_users"] = FastUsers(**given["fast_users"])
    given["times"] = Times(**given["times"])
    given["boundaries"] = tuple(given["boundaries"])
    given["split"] = {name: Part(**part) for name, part in given["split"].items()}
    given["ids"] = {name: Ids(**part) for name, part in given["ids"].items()}
    return Portrait(**given)


def _spectrum(value: Mapping[str, Any]) -> Spectrum:
    return Spectrum(tuple(value["values"]), tuple(value["numbers"]))
