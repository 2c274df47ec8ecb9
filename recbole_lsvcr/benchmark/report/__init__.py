"""The report of a benchmark: results.json as one HTML file, Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dataset_tools.files import atomic_path
from recbole_lsvcr.benchmark.report import html, latex, markdown, rows
from recbole_lsvcr.benchmark.report.read import check

FILES = ("report.html", "report.md", "results.csv", "results.tex")


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write `FILES` into `folder`, each whole or not at all; all are made before the first is written.

    Args:
        results: the content of results.json.

    Raises:
        EvaluationError: not the content of a results.json.
        OSError: a file that cannot be written.
    """
    check(results)
    contents = (html.page(results), markdown.markdown(results), rows.table(results), latex.latex(results))
    with ExitStack() as stack:
        for name, content in zip(FILES, contents, strict=True):
            stack.enter_context(atomic_path(folder / name)).write_text(content, encoding="utf-8", newline="")
