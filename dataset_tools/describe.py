"""Describe a data set folder: its numbers as tables, what in it will hurt, and as one HTML file with charts.

How many users, videos, comments and interactions there are and how they are spread, what a split by time leaves in each
part, how long, repeated and in which script the texts are, and when things happened. Files are read as they are;
`lsvcr-data check` proves that they keep to the format.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from dataset_tools import portrait
from dataset_tools.errors import DataToolError
from dataset_tools.files import atomic_path
from dataset_tools.portrait_format import of, percent, utc
from dataset_tools.portrait_numbers import SPLIT, count
from dataset_tools.portrait_values import Portrait, Spectrum
from dataset_tools.portrait_warnings import Hint, warnings
from dataset_tools.schema import SUFFIXES
from dataset_tools.scripts import EMOJI, NONE, SCRIPTS

HELP = "numbers, charts and warnings about a data set folder"
EXAMPLE = "lsvcr-data describe dataset/mine --html mine.html"

_QUANTILES = (("25 %", 0.25), ("median", 0.5), ("75 %", 0.75), ("99 %", 0.99))


@dataclass(frozen=True)
class Table:
    """Numbers as they are shown; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data describe`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the data set's folder; its name is the data set's")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write tables, charts and warnings into one file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers and warnings")
    parser.add_argument(
        "--split",
        type=float,
        nargs=2,
        default=SPLIT,
        metavar=("VALID", "TEST"),
        help="where validation and test start: fractions of .inter in order of time, or Unix seconds"
        f" (default: {SPLIT[0]} {SPLIT[1]})",
    )
    parser.add_argument(
        "--encoder",
        default="minilm",
        metavar="NAME",
        help="the text encoder that will be used (text_encoder in a configuration): a warning says where texts are in"
        " scripts that it does not read (default: minilm, English)",
    )


def run(args: argparse.Namespace) -> int:
    """Count, print, and write what was asked for."""
    _check_targets(args)
    numbers = count(args.folder, split=args.split)
    shown, hints = tables(numbers), list(warnings(numbers, args.encoder))
    written: dict[Path, str] = {}
    if args.html:
        written[args.html] = portrait.page(numbers, shown, hints)
    if args.json:
        value = {**asdict(numbers), "warnings": [asdict(hint) for hint in hints]}
        written[args.json] = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    try:
        with ExitStack() as stack:  # both or none
            for path, content in written.items():
                stack.enter_context(atomic_path(path)).write_text(content, encoding="utf-8")
    except OSError as error:
        raise DataToolError(f"cannot write {path}: {error.strerror or error}") from error
    sys.stdout.write(as_text(numbers, shown, hints))
    for path in written:
        sys.stdout.write(f"wrote {path}\n")
    return 0


def _check_targets(args: argparse.Namespace) -> None:
    """Refuse what cannot be written before anything is counted."""
    targets = [path for path in (args.html, args.json) if path]
    for path in targets:
        if path.is_dir():
            raise DataToolError(f"cannot write {path}: it is a folder; give a file")
        if path.suffix[1:] in SUFFIXES or path.name.endswith(".meta.json"):
            raise DataToolError(f"cannot write {path}: that is the name of a data set's file; give another one")
    if len({path.resolve() for path in targets}) < len(targets):
        raise DataToolError("--html and --json name the same file; give two")


def tables(numbers: Portrait) -> list[Table]:
    """All numbers as they are shown."""
    return [_size(numbers), _activity(numbers), _popularity(numbers), _split(numbers), _texts(numbers), _hours(numbers)]


def _size(n: Portrait) -> Table:
    times = n.times
    rows = [
        ("users", f"{n.users:,}"),
        ("… with video interactions", f"{n.users_with_inter:,}"),
        ("… of these, with comment interactions too", of(n.users_with_both, n.users_with_inter)),
        ("videos", f"{n.videos:,}"),
        ("… without a video interaction", of(n.videos_without_inter, n.videos)),
        ("comments", f"{n.comments:,}"),
        ("… replies to another comment", of(n.replies, n.comments)),
        ("… without a posting time", of(n.untimed_comments, n.comments)),
        ("video interactions", f"{n.inter:,}"),
        ("… with a pair of user and video seen before", of(n.inter_repeats, n.inter)),
        ("… share of all pairs (density)", percent(n.density)),
        ("comment interactions", f"{n.cinter:,}"),
        ("… with a pair of user and comment seen before", of(n.cinter_repeats, n.cinter)),
        ("comment records", f"{n.records:,}"),
        ("first event", utc(times.first)),
        ("last event", utc(times.last)),
        ("days", f"{len(times.inter_by_day):,}"),
        ("… without an event", of(times.empty_days, len(times.inter_by_day))),
    ]
    return Table("Size", ("", "number"), tuple(rows))


def _activity(n: Portrait) -> Table:
    spectra = {
        "video interactions per user": n.inter_per_user,
        "video interactions per video": n.inter_per_video,
        "comments per video, without replies": n.comments_per_video,
        "comment records per user with any": n.records_per_user,
        "characters per title": n.titles.lengths,
        "characters per comment": n.contents.lengths,
    }
    rows = [(name, *_quantiles(spectrum)) for name, spectrum in spectra.items()]
    return Table("Spread", ("", "mean", "least", *(name for name, _ in _QUANTILES), "most"), tuple(rows))


def _quantiles(spectrum: Spectrum) -> tuple[str, ...]:
    if not spectrum.size:
        return ("–",) * (len(_QUANTILES) + 3)
    whole = [spectrum.values[0], *(spectrum.quantile(share) for _, share in _QUANTILES), spectrum.values[-1]]
    return f"{spectrum.mean:,.1f}", *(f"{value:,}" for value in whole)


def _popularity(n: Portrait) -> Table:
    rows = [
        ("held by the top 1 %", *(percent(some.share_of_top(0.01)) for some in (n.inter_per_video, n.inter_per_user))),
        ("held by the top 10 %", *(percent(some.share_of_top(0.1)) for some in (n.inter_per_video, n.inter_per_user))),
        ("Gini (0: equal, 1: one has all)", f"{n.inter_per_video.gini:.2f}", f"{n.inter_per_user.gini:.2f}"),
        ("with one interaction or none", *(percent(some.up_to(1)) for some in (n.inter_per_video, n.inter_per_user))),
    ]
    return Table("Concentration of video interactions", ("", "videos", "users"), tuple(rows))


def _split(n: Portrait) -> Table:
    parts = n.split.values()
    rows = [
        ("from", utc(n.times.first), *(utc(bound) for bound in n.boundaries)),
        ("video interactions", *(f"{part.inter:,}" for part in parts)),
        ("targets: with an earlier one of the user", *(f"{part.instances:,}" for part in parts)),
        ("… video unseen in training", *(of(part.unseen_targets, part.instances) for part in parts)),
        ("users with a target", *(f"{part.users:,}" for part in parts)),
        ("… unseen in training", *(of(part.unseen_users, part.users) for part in parts)),
        ("comment records", *(f"{part.records:,}" for part in parts)),
        ("… no other comment to rank", *(of(part.lonely_records, part.records) for part in parts)),
    ]
    return Table("Split by time", ("", *n.split), tuple(rows))


def _texts(n: Portrait) -> Table:
    both = (n.titles, n.contents)
    rows = [
        ("number", *(f"{texts.number:,}" for texts in both)),
        ("empty", *(of(texts.empty, texts.number) for texts in both)),
        ("equal to another one before", *(of(texts.repeats, texts.number) for texts in both)),
        ("… under the same video", "–", of(n.contents.repeats_nearby, n.contents.number)),
    ]
    for script in (*SCRIPTS, NONE, EMOJI):
        found = [texts.scripts.get(script, 0) for texts in both]
        if any(found):
            name = {NONE: "without letters", EMOJI: "with emoji"}.get(script, f"mostly {script}")
            rows.append((name, *(of(some, texts.written) for some, texts in zip(found, both, strict=True))))
    return Table("Texts", ("", "titles", "comments"), tuple(rows))


def _hours(n: Portrait) -> Table:
    kinds = {"video interactions": n.times.inter_by_hour, "comment interactions": n.times.cinter_by_hour}
    rows = []
    for name, hours in kinds.items():
        bands = [sum(hours[first : first + 3]) for first in range(0, 24, 3)]
        rows.append((name, *(percent(band / sum(bands)) if sum(bands) else "–" for band in bands)))
    return Table("Hour of the day (UTC)", ("", *(f"{first}–{first + 3}" for first in range(0, 24, 3))), tuple(rows))


def as_text(numbers: Portrait, shown: list[Table], hints: list[Hint]) -> str:
    """What is printed: aligned tables, then the warnings."""
    title = f"{numbers.name} (source: {numbers.source}{', SYNTHETIC' if numbers.synthetic else ''})"
    lines = [_plain(title)]
    for table in shown:
        widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
        lines += ["", table.title]
        for row in (table.columns, *table.rows):
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  " + "  ".join(cells).rstrip())
    lines += ["", f"{len(hints)} warnings" if len(hints) != 1 else "1 warning"]
    lines += [f"  - {_plain(hint.text)}" for hint in hints]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without the control characters that a terminal would obey."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", text)
