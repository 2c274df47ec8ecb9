"""A Markdown table for each task of a folder of cells: `python -m recbole_lsvcr.benchmark.tables docs/results/plan`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

METRIC = "ndcg@10"
# The part of the targets that is shown beside all of them, by what is ranked: slice -> column title.
PARTS = {"video": ("unseen_items", "unseen"), "comment": ("no_records", "no records")}


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """The finished cells of a folder that were ranked in the test phase, in order of their names; no tuning trials."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    done = [cell for cell in cells if isinstance(cell, dict) and cell.get("status") == "done"]
    return [cell for cell in done if cell.get("phases", {}).get("test")]


def repeated(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """The arms and seeds that several of the cells are of: a folder keeps those of other settings and data too, and
    they are no further seeds."""
    counts = Counter((cell["setting"], cell["model"], cell["seed"]) for cell in cells)
    return [f"{setting}, {model}, seed {seed}" for (setting, model, seed), number in counts.items() if number > 1]


def metrics_of(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of the cells' test phases."""
    found = [summary["metrics"] for cell in cells for summary in cell["phases"]["test"]["protocols"].values()]
    return list(dict.fromkeys(name for metrics in found for name in metrics))


def quality(cell: Mapping[str, Any], protocol: str, part: str | None, metric: str = METRIC) -> float | None:
    """A metric of a cell's test phase, of all targets or of one slice; None where it was not ranked so."""
    found = cell["phases"]["test"]["protocols"].get(protocol, {"metrics": {}, "slices": {}})
    value = (found["metrics"] if part is None else found["slices"].get(part, {})).get(metric)
    return None if value is None else float(value)


def markdown(cells: Sequence[Mapping[str, Any]], metric: str = METRIC) -> str:
    """Rows: setting and model (of a benchmark: arm), means over seeds (± the standard deviation of several), and the
    chance of all settings, or of each that has another; cells of one task.
    """
    protocols = list(dict.fromkeys(name for cell in cells for name in cell["phases"]["test"]["protocols"]))
    slice_name, title = PARTS[_kind(cells[0])]
    columns = [(protocol, part) for protocol in protocols for part in (None, slice_name)]
    titles = [f"{protocol}{f', {title}' if part else ''}" for protocol, part in columns]
    lines = ["| setting | model | seeds | " + " | ".join(titles) + " | best epoch | s / epoch |"]
    lines.append("|---|---|---|" + "---|" * (len(columns) + 2))
    for setting, model in sorted({(cell["setting"], cell["model"]) for cell in cells}):
        group = [cell for cell in cells if (cell["setting"], cell["model"]) == (setting, model)]
        values = [_spread([quality(cell, protocol, part, metric) for cell in group]) for protocol, part in columns]
        training = [cell["training"] for cell in group]
        epochs = ", ".join(str(one["best_epoch"]) for one in training if one["best_epoch"] is not None)
        seconds = statistics.mean(one["seconds_per_epoch"] for one in training)
        row = [
            setting,
            str(group[0].get("arm") or model),
            str(len(group)),
            *values,
            epochs or "-",
            f"{seconds:.0f}" if seconds else "-",
        ]
        lines.append("| " + " | ".join(row) + " |")
    chances: dict[tuple[str, ...], list[str]] = {}
    for setting in sorted({cell["setting"] for cell in cells}):
        cell = next(cell for cell in cells if cell["setting"] == setting)
        found = cell["phases"]["test"]["protocols"]
        known = [(found.get(protocol, {}).get("chance") or {}).get(metric) for protocol, _ in columns]
        values = ["" if part or one is None else f"{one:.4f}" for one, (_, part) in zip(known, columns, strict=True)]
        chances.setdefault(tuple(values), []).append(setting)
    for chance, settings in chances.items():
        lines.append("| " + " | ".join([", ".join(settings), "*chance*", "", *chance, "", ""]) + " |")
    return "\n".join(lines) + "\n"


def _kind(cell: Mapping[str, Any]) -> str:
    return str(cell["phases"]["test"].get("kind", "video"))


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.4f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 when the folder holds no finished cell, two of one arm and seed, or none with
    the metric."""
    parser = argparse.ArgumentParser(prog="python -m recbole_lsvcr.benchmark.tables", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metric", default=METRIC, help=f"default: {METRIC}")
    options = parser.parse_args(arguments)
    cells = read_cells(options.folder)
    if not cells:
        sys.stderr.write(f"{parser.prog}: error: {options.folder} holds no finished cell; give a folder of cells\n")
        return 2
    if several := repeated(cells):
        sys.stderr.write(
            f"{parser.prog}: error: {options.folder} holds several cells of {several[0]}, with other settings or on "
            "other data; move those that do not belong together to folders of their own\n"
        )
        return 2
    if options.metric not in (known := metrics_of(cells)):
        sys.stderr.write(f"{parser.prog}: error: no cell has a metric {options.metric}; there are {', '.join(known)}\n")
        return 2
    kinds = [kind for kind in PARTS if any(_kind(cell) == kind for cell in cells)]
    tables = [markdown([cell for cell in cells if _kind(cell) == kind], options.metric) for kind in kinds]
    sys.stdout.write("\n".join(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
