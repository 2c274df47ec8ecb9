"""The portrait of a data set as one HTML file: warnings, tables, and charts that need nothing from a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_tools.errors import DataToolError
from dataset_tools.portrait_format import utc
from dataset_tools.portrait_values import Portrait, Spectrum
from dataset_tools.scripts import NONE, SCRIPTS

if TYPE_CHECKING:
    from dataset_tools.describe import Table
    from dataset_tools.portrait_warnings import Hint

VIDEO, COMMENT, GREY = "#1f6fb2", "#d9772b", "#8a8f98"
_CURVE_POINTS = 400
_MARKED_DAYS = 90  # up to so many days each has a marker
# The browser itself refuses whatever is not in the file.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2127; background: #f5f6f8; margin: 0; }
main { max-width: 1240px; margin: 0 auto; padding: 20px; }
h1 { margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 0 0 8px; }
.about { color: #5f6b7a; margin: 4px 0 18px; overflow-wrap: anywhere; }
.synthetic { background: #7a3fb0; color: #fff; border-radius: 4px; padding: 1px 8px; font-size: 0.6em;
  vertical-align: middle; }
section { background: #fff; border: 1px solid #dde1e6; border-radius: 6px; padding: 14px 16px; min-width: 0; }
.warnings { border-left: 6px solid #c9302c; margin-bottom: 16px; } .none { border-left-color: #2e8b57; }
.warnings ul { margin: 0; padding-left: 20px; } .warnings li { margin: 6px 0; overflow-wrap: anywhere; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr));
  margin-bottom: 16px; }
.columns { columns: 2 520px; column-gap: 16px; margin-bottom: 16px; } .columns section { break-inside: avoid; }
.tables { margin-bottom: 16px; }
.wide { grid-column: 1 / -1; } .scroll { overflow-x: auto; } .chart { height: 300px; }
.caption { color: #5f6b7a; margin: 0 0 4px; font-size: 0.92em; }
table { border-collapse: collapse; width: 100%; font-size: 0.92em; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid #eceef1; font-weight: normal;
  white-space: nowrap; }
thead th { color: #5f6b7a; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
"""
# Of plotly's buttons only those that keep the data here: one of the others uploads a chart.
_DRAW = """
for (const chart of JSON.parse(document.getElementById("charts").textContent)) {
  Plotly.newPlot(chart.id, chart.data, chart.layout, {
    responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], showSendToCloud: false, plotlyServerURL: "",
  });
}
"""
LAYOUT: dict[str, Any] = {
    "margin": {"l": 60, "r": 15, "t": 10, "b": 45},
    "font": {"family": "system-ui, sans-serif", "size": 12},
    "legend": {"orientation": "h", "y": 1.15},
    "hovermode": "x unified",
    "bargap": 0.15,
}


def page(numbers: Portrait, tables: Sequence[Table], hints: Sequence[Hint]) -> str:
    """The whole HTML file; every text from the data set is escaped."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise DataToolError("the HTML file needs the package plotly; install it, or leave out --html") from error
    specs = charts(numbers)
    drawn = [
        {"id": f"chart{place}", "data": chart["data"], "layout": chart["layout"]} for place, chart in enumerate(specs)
    ]
    # `<` would let a text of the data end the script.
    data = json.dumps(drawn, allow_nan=False).replace("<", "\\u003c")
    name = escape(numbers.name)
    mark = ' <span class="synthetic">synthetic data</span>' if numbers.synthetic else ""
    sizes = f"{numbers.users:,} users · {numbers.videos:,} videos · {numbers.comments:,} comments"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name}{' (synthetic)' if numbers.synthetic else ''} – portrait of a data set</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            f'<h1>{name}{mark}</h1>\n<p class="about">source: {escape(numbers.source)} · {sizes}</p>',
            _warnings(hints),
            "<noscript><p>The charts need JavaScript; warnings and tables do not.</p></noscript>",
            f'<div class="grid">{"".join(_chart(place, chart) for place, chart in enumerate(specs))}</div>',
            f'<div class="columns">{"".join(_table(table) for table in tables if len(table.columns) < 4)}</div>',
            *(_table(table) for table in tables if len(table.columns) >= 4),
            "</main>",
            f'<script type="application/json" id="charts">{data}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{_DRAW}</script>\n</body>\n</html>\n",
        ]
    )


def _warnings(hints: Sequence[Hint]) -> str:
    if not hints:
        return '<section class="warnings none"><h2>No warnings</h2></section>'
    items = "".join(f"<li>{escape(hint.text)}</li>" for hint in hints)
    title = f"{len(hints)} warning{'s' * (len(hints) > 1)}"
    return f'<section class="warnings"><h2>{title}</h2><ul>{items}</ul></section>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return (
        f'<section class="tables"><h2>{escape(table.title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _chart(place: int, chart: Mapping[str, Any]) -> str:
    return (
        f"<section{' class=wide' if chart['wide'] else ''}><h2>{escape(chart['title'])}</h2>"
        f'<p class="caption">{escape(chart["caption"])}</p><div class="chart" id="chart{place}"></div></section>'
    )


# ---------------------------------------------------------------------- charts


def charts(n: Portrait) -> list[dict[str, Any]]:
    charts = [
        _days(n),
        _histogram("Video interactions per user", n.inter_per_user, "users", VIDEO),
        _histogram("Video interactions per video", n.inter_per_video, "videos", VIDEO),
        _histogram("Comments per video", n.comments_per_video, "videos", COMMENT, "replies left out"),
        _histogram("Comment records per user", n.records_per_user, "users", COMMENT, "users without any left out"),
        _concentration(n),
        _lengths(n),
        _scripts(n),
        _hours(n),
    ]
    return [chart for chart in charts if chart["data"]]


def _spec(
    title: str,
    caption: str,
    data: list[dict[str, Any]],
    x: dict[str, Any],
    y: dict[str, Any],
    *,
    wide: bool = False,
    **layout: Any,
) -> dict[str, Any]:
    layout = {**LAYOUT, "xaxis": {"automargin": True, **x}, "yaxis": {"automargin": True, **y}, **layout}
    return {"title": title, "caption": caption, "data": data, "layout": layout, "wide": wide}


def _days(n: Portrait) -> dict[str, Any]:
    times = n.times
    first = datetime.fromtimestamp(times.first, UTC).date()
    days = [_day(first, place) for place in range(len(times.inter_by_day))]
    mode = "lines+markers" if len(days) <= _MARKED_DAYS else "lines"
    data = [
        {"type": "scatter", "mode": mode, "name": name, "x": days, "y": counts, "line": {"color": color, "width": 1.2}}
        for name, counts, color in (
            ("video interactions", times.inter_by_day, VIDEO),
            ("comment interactions", times.cinter_by_day, COMMENT),
        )
        if any(counts)
    ]
    starts = [
        (name, utc(bound))
        for name, bound in zip(("valid", "test"), n.boundaries, strict=True)
        if times.first < bound <= times.last
    ]
    lines = [
        {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "dash": "dot"}}
        for _, x in starts
    ]
    notes = [
        {"x": x, "y": 1, "yref": "paper", "text": name, "showarrow": False, "xanchor": "left", "font": {"color": GREY}}
        for name, x in starts
    ]
    return _spec(
        "Interactions per day",
        "Dotted: where validation and test start." if starts else "",
        data,
        {"type": "date"},
        {"title": {"text": "a day (UTC)"}, "rangemode": "tozero"},
        wide=True,
        shapes=lines,
        annotations=notes,
    )


def _day(first: date, place: int) -> str:
    return (first + timedelta(days=place)).isoformat()


def _bins(*spectra: Spectrum) -> tuple[list[str], list[list[int]]]:
    """Bins 0, 1, 2, 3–4, 5–8 … from the least to the greatest value, and how many of each spectrum are in each."""
    ends = [np.array([_bin(value) for value in spectrum.values], np.int64) for spectrum in spectra]
    low = min(int(some[0]) for some in ends if len(some))
    high = max(int(some[-1]) for some in ends if len(some))
    counts = [
        np.bincount(some - low, np.array(spectrum.numbers, np.float64), high - low + 1).astype(int).tolist()
        if len(some)
        else [0] * (high - low + 1)
        for some, spectrum in zip(ends, spectra, strict=True)
    ]
    return [_bin_name(number) for number in range(low, high + 1)], counts


def _bin(value: int) -> int:
    return (value - 1).bit_length() + 1 if value else 0


def _bin_name(number: int) -> str:
    if number <= 2:
        return str(number)
    return f"{2 ** (number - 2) + 1:,}–{2 ** (number - 1):,}"


def _histogram(title: str, spectrum: Spectrum, things: str, color: str, note: str = "") -> dict[str, Any]:
    if not spectrum.size:
        return {"data": []}
    names, (counts,) = _bins(spectrum)
    caption = f"Half have {spectrum.quantile(0.5):,} or fewer, 1 % more than {spectrum.quantile(0.99):,}"
    return _spec(
        title,
        f"{caption}; {note}." if note else f"{caption}.",
        [{"type": "bar", "x": names, "y": counts, "name": things, "marker": {"color": color}}],
        {"type": "category", "title": {"text": f"{title.split(' per ')[0].lower()} each"}},
        {
            "type": "log",
            "title": {"text": things},
            "range": [float(np.log10(0.5)), float(np.log10(1.5 * max(counts)))],
            "dtick": 1,
        },
    )


def _concentration(n: Portrait) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for name, spectrum, color in (("videos", n.inter_per_video, VIDEO), ("users", n.inter_per_user, COMMENT)):
        x, y = (np.array(part) for part in spectrum.lorenz())
        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CURVE_POINTS)).round().astype(int))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": (100 * x[kept]).round(3).tolist(),
                "y": (100 * y[kept]).round(3).tolist(),
                "line": {"color": color},
            }
        )
    equal = {"type": "scatter", "mode": "lines", "name": "all equal", "x": [0, 100], "y": [0, 100]}
    data.append({**equal, "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip"})
    return _spec(
        "What the busiest hold",
        f"The most popular 10 % of the videos have {100 * n.inter_per_video.share_of_top(0.1):.0f} % of the video"
        " interactions.",
        data,
        {"title": {"text": "% of videos or users, the busiest first"}, "range": [0, 100]},
        {"title": {"text": "% of video interactions"}, "range": [0, 101]},
    )


def _lengths(n: Portrait) -> dict[str, Any]:
    kinds = [kind for kind in (("titles", n.titles, VIDEO), ("comments", n.contents, COMMENT)) if kind[1].number]
    if not kinds:
        return {"data": []}
    names, counts = _bins(*(texts.lengths for _, texts, _ in kinds))
    data = [
        {"type": "bar", "name": name, "x": names, "y": _percents(some, texts.number), "marker": {"color": color}}
        for (name, texts, color), some in zip(kinds, counts, strict=True)
    ]
    medians = " and ".join(f"{texts.lengths.quantile(0.5):,} ({name})" for name, texts, _ in kinds)
    return _spec(
        "Length of the texts",
        f"Medians: {medians} characters.",
        data,
        {"type": "category", "title": {"text": "characters"}},
        {"title": {"text": "% of the texts"}},
    )


def _scripts(n: Portrait) -> dict[str, Any]:
    kinds = (("titles", n.titles, VIDEO), ("comments", n.contents, COMMENT))
    found = [name for name in (*SCRIPTS, NONE) if any(texts.scripts.get(name) for _, texts, _ in kinds)]
    data = [
        {
            "type": "bar",
            "name": kind,
            "x": found,
            "y": _percents([texts.scripts.get(name, 0) for name in found], texts.written),
            "marker": {"color": color},
        }
        for kind, texts, color in kinds
        if found and texts.number > texts.empty
    ]
    return _spec(
        "Scripts",
        "By what most letters of a text are; a script is no language: Latin may be English or not.",
        data,
        {"type": "category"},
        {"title": {"text": "% of the texts"}},
    )


def _hours(n: Portrait) -> dict[str, Any]:
    kinds = (
        ("video interactions", n.times.inter_by_hour, VIDEO),
        ("comment interactions", n.times.cinter_by_hour, COMMENT),
    )
    data = [
        {
            "type": "bar",
            "name": name,
            "x": list(range(24)),
            "y": _percents(hours, sum(hours)),
            "marker": {"color": color},
        }
        for name, hours, color in kinds
        if any(hours)
    ]
    return _spec(
        "Hour of the day",
        "In UTC: people's evening shows how far they live from it.",
        data,
        {"title": {"text": "hour (UTC)"}, "dtick": 3},
        {"title": {"text": "% of their kind"}},
    )


def _percents(counts: Sequence[int], whole: int) -> list[float]:
    return [round(100 * count / whole, 4) for count in counts]
