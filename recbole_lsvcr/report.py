"""What a run shows a person: log lines on the terminal and in a file, and the table of results."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recbole.utils.logger import RemoveColorFilter

from recbole_lsvcr.config import output_folder
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.titles import metric_title, slice_title

# Beside all targets, by task; every slice is in metrics.json.
SHOWN_SLICES = {"video": ("unseen_items",), "comment": ("unseen_items", "no_records")}


@contextmanager
def log_to(config: Any) -> Iterator[None]:
    """Log to standard error and to `<output>/run.log` while a run lasts, in place of RecBole's `./log` folder.

    Raises:
        ConfigError: the output folder cannot be made.
    """
    root = logging.getLogger()
    folder = output_folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output folder {folder} cannot be made ({error.strerror}); give another --output") from error
    level = getattr(logging, str(config["state"] or "INFO").upper(), logging.INFO)
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    file = logging.FileHandler(folder / "run.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s"))
    file.addFilter(RemoveColorFilter())
    if not sys.stderr.isatty():
        screen.addFilter(RemoveColorFilter())
    before, level_before = root.handlers[:], root.level
    root.handlers[:] = [screen, file]
    root.setLevel(level)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level_before)
        file.close()


def table(report: Mapping[str, Any]) -> str:
    """The results of a report (`pipeline.evaluate`) as readable text."""
    lines = [""]
    for phase, result in report["phases"].items():
        lines += [*_phase(report, phase, result), ""]
    return "\n".join(lines)


def _phase(report: Mapping[str, Any], phase: str, result: Mapping[str, Any]) -> list[str]:
    protocols = result["protocols"]
    first = next(iter(protocols.values()))
    metrics = list(first["metrics"])
    shown = [name for name in metrics if name.startswith(("recall", "ndcg")) or name in ("mrr@10", "mrr")]
    synthetic = " (synthetic data)" if report.get("synthetic") else ""
    comments = report["task"] == "comment"
    head = (
        f"{report['model']} on {report['dataset']}{synthetic}, {'comments, ' if comments else ''}{phase}: "
        f"{first['instances']:,} {'records' if comments else 'targets'} of {first['users']:,} users"
    )
    rows = [["ranking", *(metric_title(name) for name in shown), "records" if comments else "targets"]]
    for name, found in protocols.items():
        rows.append([name, *_numbers(found["metrics"], shown), f"{found['instances']:,}"])
        for part in SHOWN_SLICES[report["task"]]:
            values = found["slices"].get(part)
            if values and values["instances"]:
                rows.append([f"  {slice_title(part)}", *_numbers(values, shown), f"{values['instances']:,}"])
        if found["chance"]:
            rows.append(["  chance", *_numbers(found["chance"], shown), ""])
    return [head, *aligned(rows), *_left_out(protocols), *_further(protocols)]


def _further(protocols: Mapping[str, Any]) -> list[str]:
    """The other metrics that were asked for, of all targets."""
    found = {name: values["recbole_metrics"] for name, values in protocols.items() if values.get("recbole_metrics")}
    names = list(dict.fromkeys(metric for values in found.values() for metric in values))
    if not names:
        return []
    shown = [[name, *_numbers(dict.fromkeys(names) | dict(values), names)] for name, values in found.items()]
    return ["", *aligned([["ranking", *map(metric_title, names)], *shown])]


def _left_out(protocols: Mapping[str, Any]) -> list[str]:
    """What some ranking does not count, in words."""
    lines = []
    for name, found in protocols.items():
        reasons = {"without any other candidate": found["left_out"], "with too long a list": found.get("too_long", 0)}
        said = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        lines += [f"left out of {name}: {said}"] if said else []
    return lines


def _numbers(values: Mapping[str, Any], names: list[str]) -> list[str]:
    return ["-" if values[name] is None else f"{values[name]:.4f}" for name in names]


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines with columns of one width, a rule below the first; the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
