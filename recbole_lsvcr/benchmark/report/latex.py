r"""Tables for a paper: `\input{results.tex}` in a document that loads booktabs (and graphicx, for wide tables, if it
wants `\resizebox`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recbole_lsvcr.benchmark.report import studies, tables
from recbole_lsvcr.benchmark.report.view import NOTHING, Cell, Row, Table, primary, task_title

CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "-": "-{}",  # no two of them make a dash
    "'": "'{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "…": r"\dots{}",
    "×": r"$\times$",
}


def latex(results: Mapping[str, Any]) -> str:
    """The main table of each task under its primary protocol, and its ablation if there is one."""
    parts = ["% Needs \\usepackage{booktabs}. Best bold, second underlined, at full precision."]
    for name, task in results["tasks"].items():
        protocol, _ = primary(task)
        about = f"{results['dataset']}{' (synthetic data)' if results['synthetic'] else ''}, {task_title(name).lower()}"
        main = tables.main_table(task, protocol)
        parts.append(_table(main, f"{about}, {protocol}: {main.caption}", f"main-{name}"))
        ablation = studies.ablation_table(task)
        if ablation is not None:
            parts.append(_table(ablation, f"Ablation, {about}, {protocol}. {ablation.caption}", f"ablation-{name}"))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, caption: str, label: str) -> str:
    width = len(table.columns)
    notes = [f"{escaped(row.cells[0].text)}: {escaped(row.status)}" for row in table.rows if row.status]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escaped(caption)}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', label)}}}",
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\toprule",
            _line([escaped(column) for column in table.columns]),
            r"\midrule",
            *(_row(row) for row in table.rows),
            *([r"\midrule", *(_row(row) for row in table.foot)] if table.foot else []),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {note}" for note in notes),
            r"\end{table}",
        ]
    )


def _row(row: Row) -> str:
    cells = []
    for cell in row.cells:
        text = "--" if cell.text == NOTHING else escaped(_named(cell))
        text = re.sub(r" \$\\pm\$ ([\d.]+)", r"{\\tiny$\\pm$\1}", text)  # as wide as a page can be
        command = {"best": "textbf", "second": "underline"}.get(cell.mark)
        cells.append(rf"\{command}{{{text}}}" if command else text)
    return _line(cells)


def _named(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _line(cells: list[str]) -> str:
    # A line that starts with `[` would be an argument of the `\\` before it.
    return " & ".join(f"{{}}{cell}" if cell.startswith(("[", "*")) else cell for cell in cells) + r" \\"


def escaped(value: Any) -> str:
    """Text as LaTeX prints it literally; letters that pdflatex has no fonts for are question marks."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", re.sub(r"\s+", " ", str(value)))
    return "".join(
        CHARACTERS.get(letter) or (letter if letter.isprintable() and ord(letter) < 256 else "?") for letter in text
    )
