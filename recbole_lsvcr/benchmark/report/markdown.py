"""The report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from recbole_lsvcr.benchmark.report import differences, studies, tables, words
from recbole_lsvcr.benchmark.report.view import Row, Table, Task, protocols, task_title
from recbole_lsvcr.benchmark.vocabulary import COLD, STEPS


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report; every name and reason is text, no markup."""
    mark = " (SYNTHETIC data)" if results["synthetic"] else ""
    lines = [f"# Benchmark: {escaped(results['dataset'])}{mark}", ""]
    for name, task in results["tasks"].items():
        lines += [f"## {escaped(task_title(name))}", "", *_task(task)]
    lines += ["## How it was run", "", *_fence(words.command(results)), ""]
    lines += _pairs(("what", "value"), words.facts(results))
    for title in ("shared", "environment"):
        if results.get(title):
            lines += [f"### {'Settings of all arms' if title == 'shared' else 'Environment'}", ""]
            lines += _pairs(("name", "value"), words.flat(results[title]))
    return "\n".join(lines).rstrip() + "\n"


def _task(task: Task) -> Iterator[str]:
    for finding in words.findings(task):
        yield from (escaped(finding.text), "")
    if task["notes"]:
        yield from (*(f"- {escaped(note)}" for note in task["notes"]), "")
    for protocol in protocols(task):
        yield from _section(tables.main_table(task, protocol))
    for table in (
        differences.main_table(task),
        differences.slice_table(task),
        tables.cost_table(task),
        tables.slice_table(task),
        tables.tuning_table(task),
        studies.ablation_table(task),
        studies.steps_table(task),
        differences.group_table(task, STEPS),
        studies.health_table(task),
        studies.cold_table(task),
        differences.group_table(task, COLD),
        differences.other_table(task, whole_only=True),
    ):
        if table is not None:
            yield from _section(table)
    for arm in tables.tuned_arms(task):
        if not arm["trials"]:
            continue
        table = tables.trial_table(arm)
        title = escape(" ".join(table.title.split()))  # no Markdown is read up to the empty line
        yield from (f"<details><summary>Trials of {title}</summary>", "", *lines_of(table), "")
        yield from ("</details>", "")


def _section(table: Table) -> Iterator[str]:
    yield from (f"### {escaped(table.title)}", "")
    if table.caption:
        yield from (escaped(table.caption), "")
    yield from (*lines_of(table), "")


def lines_of(table: Table) -> list[str]:
    """A table's lines: the best of a column bold, the second underlined."""
    said = any(row.status for row in table.rows)
    titles = [escaped(column) for column in table.columns] + ["status"] * said
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(table.columns) - 1) + " --- |" * said]
    return [*lines, *(_row(row, said=said) for row in (*table.rows, *table.foot))]


def _row(row: Row, *, said: bool) -> str:
    texts: list[str] = []
    for cell in row.cells:
        text = escaped(f"{cell.text} ({cell.note})" if cell.note else cell.text)
        texts.append({"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text))
    texts += [escaped(row.status)] * said
    return "| " + " | ".join(texts) + " |"


def _pairs(columns: tuple[str, str], rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"| {columns[0]} | {columns[1]} |", "| --- | --- |"]
    return [*lines, *(f"| {escaped(name)} | {escaped(value)} |" for name, value in rows), ""]


def _fence(text: str) -> list[str]:
    """A block of code that no run of backticks in the text ends."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [ticks, re.sub(r"[\r\n]+", " ", text), ticks]


def escaped(value: Any) -> str:
    """Text as Markdown shows it literally, on one line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(value))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
