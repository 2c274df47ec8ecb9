"""report.html: one file that needs nothing from a network; whatever it is given is text, never markup or script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from dataset_tools.portrait import POLICY
from recbole_lsvcr.benchmark.report import charts, differences, quality_charts, studies, study_charts, tables, words
from recbole_lsvcr.benchmark.report.figure import Chart
from recbole_lsvcr.benchmark.report.style import CHARTS, SORTING, STYLE, TABS
from recbole_lsvcr.benchmark.report.view import Cell, Row, Table, Task, primary, protocols, task_title
from recbole_lsvcr.benchmark.vocabulary import COLD, STEPS

_LONG, _MOST = 24, 240  # letters from which on a cell breaks its line, and is cut
_NOTES = 5  # notes shown at once
_TAGS = {"best": "b", "second": "u"}


def page(results: Mapping[str, Any]) -> str:
    """The whole file."""
    from plotly.offline import get_plotlyjs

    return _Page().whole(results, get_plotlyjs())


class _Page:
    """Collects the charts and the navigation while the sections are written."""

    def __init__(self) -> None:
        self.charts: list[dict[str, Any]] = []
        self.places: list[tuple[str, str]] = []  # id and title of what the navigation leads to

    def whole(self, results: Mapping[str, Any], library: str) -> str:
        name = escape(results["dataset"])
        mark = ' <span class="synthetic">synthetic data</span>' if results["synthetic"] else ""
        body = [self._task(key, task, synthetic=results["synthetic"]) for key, task in results["tasks"].items()]
        body += [self._data_set(results.get("portrait")), self._how(results)]
        about = " · ".join(escape(f"{title}: {value}") for title, value in words.facts(results)[1:6])
        # `<` would let a text of the data end the script.
        data = json.dumps(self.charts, allow_nan=False).replace("<", "\\u003c")
        return "\n".join(
            [
                '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{name}{' (synthetic)' if results['synthetic'] else ''} – benchmark</title>",
                f"<style>{STYLE}</style>\n</head>\n<body>",
                f'<header><h1>Benchmark: {name}{mark}</h1>\n<p class="about">{about}</p></header>',
                self._nav(),
                "<main>",
                "<noscript><p>Charts, sorting and tabs need JavaScript; the tables do not.</p></noscript>",
                *body,
                "</main>",
                f'<script type="application/json" id="charts">{data}</script>',
                f"<script>{library}</script>",
                f"<script>{SORTING}{TABS}{CHARTS}</script>\n</body>\n</html>\n",
            ]
        )

    def _nav(self) -> str:
        return f'<nav class="top" aria-label="Page"><div>{_links(self.places)}</div></nav>'

    # ---- sections ---------------------------------------------------------------------------------------------------

    def _task(self, key: str, task: Task, *, synthetic: bool) -> str:
        title = task_title(key)
        place = f"task{len(self.places)}"
        sections = {
            "Quality": self._quality(task, place),
            "Differences": self._differences(task),
            "Cost": self._join([quality_charts.cost_chart(task)], [tables.cost_table(task)]),
            "Learning curves": self._join([charts.curves(task)], []),
            "Slices": self._join([charts.slices(task)], [], folded=[tables.slice_table(task)]),
            "Hyper-parameters": self._tuning(task),
            "Ablation": self._join([study_charts.ablation(task)], [studies.ablation_table(task)]),
            "Alignment": self._alignment(task),
            "Cold start": self._join(
                [study_charts.cold(task)],
                [studies.cold_table(task)],
                folded=[differences.group_table(task, COLD)],
            ),
        }
        kept = {name: content for name, content in sections.items() if content}
        ids = {name: f"{place}-{number}" for number, name in enumerate(kept)}
        self.places.append((place, title))
        links = f'<nav aria-label="{escape(title)}">{_links([(ids[name], name) for name in kept])}</nav>'
        content = "".join(f'<div id="{ids[name]}">{content}</div>' for name, content in kept.items())
        return f'<h2 id="{place}">{escape(title)}</h2>{links}{_findings(task, synthetic)}{content}'

    def _quality(self, task: Task, place: str) -> str:
        names = protocols(task)
        main, _ = primary(task)
        tabs, panels = [], []
        for number, name in enumerate(names):
            tab, panel = f"{place}-tab{number}", f"{place}-panel{number}"
            title = escape(name or "nothing was ranked") + " (primary)" * (name == main and len(names) > 1)
            tabs.append(f'<button type="button" role="tab" id="{tab}" aria-controls="{panel}">{title}</button>')
            chart = quality_charts.dots(task, name)
            content = _table(tables.main_table(task, name), title=False) + (self._chart(chart) if chart else "")
            panels.append(f'<div role="tabpanel" id="{panel}" aria-labelledby="{tab}"><h3>{title}</h3>{content}</div>')
        shown = f'<div role="tablist" aria-label="Protocol" hidden>{"".join(tabs)}</div>' if len(names) > 1 else ""
        return f"<section>{shown}{''.join(panels)}</section>"

    def _differences(self, task: Task) -> str:
        drawn = [charts.forest(task, name) for name in charts.compared_arms(task)]
        folded = [differences.slice_table(task), differences.other_table(task)]
        return self._join(drawn, [differences.main_table(task)], folded=folded)

    def _tuning(self, task: Task) -> str:
        table = tables.tuning_table(task)
        if table is None:
            return ""
        tried = [tables.trial_table(arm) for arm in tables.tuned_arms(task) if arm["trials"]]
        every = "".join(f"<h3>{escape(one.title)}</h3>{_table(one, title=False)}" for one in tried)
        count = sum(len(one.rows) for one in tried)
        more = f"<details><summary>All {count} trials</summary>{every}</details>" if count else ""
        return f"<section>{_table(table)}{more}</section>"

    def _alignment(self, task: Task) -> str:
        losses = [self._box(chart) for chart in study_charts.losses(task)]
        grid = f'<div class="grid">{"".join(losses)}</div>' if losses else ""
        return (
            self._join(
                [study_charts.steps(task)],
                [studies.steps_table(task)],
                folded=[differences.group_table(task, STEPS)],
            )
            + self._join([], [studies.health_table(task)])
            + grid
        )

    def _data_set(self, value: Mapping[str, Any] | None) -> str:
        found = study_charts.portrait(value) if value else None
        if value is None or found is None:
            return ""
        self.places.append(("data", "Data set"))
        hints = "".join(f"<li>{escape(str(hint.get('text')))}</li>" for hint in value.get("warnings") or [])
        warned = f'<section class="finding unclear"><ul>{hints}</ul></section>' if hints else ""
        boxes = [f"<section>{_table(table, sortable=False)}</section>" for table in found[0]]
        boxes += [self._box(chart) for chart in found[1]]
        return f'<h2 id="data">Data set</h2>{warned}<div class="grid">{"".join(boxes)}</div>'

    def _how(self, results: Mapping[str, Any]) -> str:
        self.places.append(("how", "How it was run"))
        parts = [f"<section><h3>Command</h3><pre>{escape(words.command(results))}</pre></section>"]
        parts.append(_pairs("Study", words.facts(results)))
        for key, title in (("shared", "Settings of all arms"), ("environment", "Environment")):
            if results.get(key):
                parts.append(_pairs(title, words.flat(results[key])))
        return f'<h2 id="how">How it was run</h2>{"".join(parts)}'

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _join(
        self,
        drawn: Iterable[Chart | None],
        shown: Iterable[Table | None],
        *,
        folded: Sequence[Table | None] = (),
    ) -> str:
        """A section of charts, tables, and tables to be opened; nothing where there is none of them."""
        parts = [self._chart(chart) for chart in drawn if chart is not None]
        parts += [_table(table) for table in shown if table is not None]
        parts += [
            f"<details><summary>{escape(table.title)}</summary>{_table(table, title=False)}</details>"
            for table in folded
            if table is not None
        ]
        return f"<section>{''.join(parts)}</section>" if parts else ""

    def _box(self, chart: Chart) -> str:
        return f"<section>{self._chart(chart)}</section>"

    def _chart(self, chart: Chart) -> str:
        name = f"chart{len(self.charts)}"
        self.charts.append({"id": name, "data": chart.data, "layout": chart.layout})
        caption = f'<p class="caption">{escape(chart.caption)}</p>' if chart.caption else ""
        wide = f"; min-width: {chart.width}px" if chart.width else ""
        return (
            f'<h3>{escape(chart.title)}</h3>{caption}<div class="scroll">'
            f'<div class="chart" id="{name}" style="height: {chart.height}px{wide}"></div></div>'
        )


def _links(places: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<a href="#{place}">{escape(name)}</a>' for place, name in places)


def _findings(task: Task, synthetic: bool) -> str:
    found = words.findings(task)
    mark = '<span class="synthetic">SYNTHETIC data</span> ' if synthetic else ""
    said = "".join(f"<p>{mark}{escape(finding.text)}</p>" for finding in found)
    items = [f"<li>{escape(str(note))}</li>" for note in task["notes"]]
    notes = f"<ul>{''.join(items[:_NOTES])}</ul>" if items else ""
    if len(items) > _NOTES:
        rest = "".join(items[_NOTES:])
        notes += f"<details><summary>{len(items) - _NOTES} more notes</summary><ul>{rest}</ul></details>"
    return f'<section class="finding {found[0].verdict}">{said}{notes}</section>'


def _table(table: Table, *, title: bool = True, sortable: bool = True) -> str:
    if sortable:
        head = "".join(
            f'<th scope="col" aria-sort="none"{_aligned(table, place)}><button type="button">'
            f"{escape(column) or 'name'}</button></th>"
            for place, column in enumerate(table.columns)
        )
    else:
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    foot = f"<tfoot>{''.join(_row(row) for row in table.foot)}</tfoot>" if table.foot else ""
    caption = f'<p class="caption">{escape(table.caption)}</p>' if table.caption else ""
    return (
        f"{f'<h3>{escape(table.title)}</h3>' if title else ''}{caption}"
        f'<div class="scroll"><table{" class=sortable" if sortable else ""}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(_row(row) for row in table.rows)}</tbody>{foot}</table></div>"
    )


def _aligned(table: Table, place: int) -> str:
    return ' class="text"' if any(isinstance(row.cells[place].value, str) for row in table.rows) else ""


def _row(row: Row) -> str:
    if row.status and row.empty:  # the reason in place of the figures; without them it is sorted last
        shown = row.status if len(row.status) <= _MOST else f"{row.status[:_MOST]}…"
        reason = f'<td class="long" colspan="{len(row.cells) - 1}" title="{escape(row.status)}">{escape(shown)}</td>'
        return f'<tr class="{row.kind}">{_cell(replace(row.cells[0], note=""), "th")}{reason}</tr>'
    named = replace(row.cells[0], hint=row.status or row.cells[0].hint)
    cells = "".join(_cell(cell, "td" if place else "th") for place, cell in enumerate((named, *row.cells[1:])))
    return f"<tr{f' class={row.kind}' if row.kind else ''}>{cells}</tr>"


def _cell(cell: Cell, tag: str) -> str:
    given = ' scope="row"' if tag == "th" else ""
    if isinstance(cell.value, float):
        given += f' data-number="{cell.value!r}"'
    elif cell.value is not None:
        given += f' data-text="{escape(cell.value)}"'
    hint = cell.hint or (cell.text if len(cell.text) > _MOST else "")
    if hint:
        given += f' title="{escape(hint)}"'
    if tag == "td" and isinstance(cell.value, str):
        given += ' class="long"' if len(cell.text) > _LONG else ' class="text"'
    text = escape(cell.text if len(cell.text) <= _MOST else f"{cell.text[:_MOST]}…")
    text += f" <small>{escape(cell.note)}</small>" if cell.note else ""
    mark = _TAGS.get(cell.mark)
    return f"<{tag}{given}>{f'<{mark}>{text}</{mark}>' if mark else text}</{tag}>"


def _pairs(title: str, rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<section><h3>{escape(title)}</h3><table class="pairs"><tbody>{body}</tbody></table></section>'
