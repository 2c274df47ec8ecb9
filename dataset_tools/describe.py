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
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dataset_tools import portrait
from dataset_tools.errors import DataToolError
from dataset_tools.files import atomic_path
from dataset_tools.portrait_numbers import DAY, FAST, HOUR, LONG_ID, SPLIT, Portrait, Spectrum, Texts, count
from dataset_tools.schema import SUFFIXES
from dataset_tools.scripts import EMOJI, NONE, SCRIPTS

HELP = "numbers, charts and warnings about a data set folder"
EXAMPLE = "lsvcr-data describe dataset/mine --html mine.html"

# Shares from which on a warning is given.
FEW_COMMENTING = 0.05  # of the users, below
REPEATED, REPEATED_NEARBY = 0.2, 0.05  # of the comments
EMPTY_CONTENTS, SHORT_TITLES, UNTIMED, FOREIGN = 0.01, 0.05, 0.01, 0.1  # of the texts
ROUNDED_IDS = 0.1  # of the long ids
SHORT_TITLE = 3  # characters
MOST = 0.5  # of everything else
_QUANTILES = (("25 %", 0.25), ("median", 0.5), ("75 %", 0.75), ("99 %", 0.99))
_ENGLISH = frozenset({"Latin"})
# What encoders read, by their names; the first that fits counts.
_ENCODERS: tuple[tuple[str, frozenset[str]], ...] = (
    (r"hashing", frozenset(SCRIPTS)),
    (r"multilingual|xlm|labse|bge-m3|(^|/)gte-multi|qwen", frozenset(SCRIPTS)),
    (r"chinese|-zh\b", frozenset({"Latin", "Han"})),
    (r"japanese", frozenset({"Latin", "Han", "Kana"})),
    (r"minilm|mpnet|-en\b|^(google-bert/)?bert-(base|large)-(un)?cased$|^(facebookai/)?roberta-", _ENGLISH),
)


@dataclass(frozen=True)
class Hint:
    """Something about a data set that will hurt."""

    key: str  # names the rule
    text: str  # one sentence: the number, and what to do


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


# ---------------------------------------------------------------------- tables


def tables(numbers: Portrait) -> list[Table]:
    """All numbers as they are shown."""
    return [_size(numbers), _activity(numbers), _popularity(numbers), _split(numbers), _texts(numbers), _hours(numbers)]


def _size(n: Portrait) -> Table:
    times = n.times
    rows = [
        ("users", f"{n.users:,}"),
        ("… with video interactions", f"{n.users_with_inter:,}"),
        ("… of these, with comment interactions too", _of(n.users_with_both, n.users_with_inter)),
        ("videos", f"{n.videos:,}"),
        ("… without a video interaction", _of(n.videos_without_inter, n.videos)),
        ("comments", f"{n.comments:,}"),
        ("… replies to another comment", _of(n.replies, n.comments)),
        ("… without a posting time", _of(n.untimed_comments, n.comments)),
        ("video interactions", f"{n.inter:,}"),
        ("… with a pair of user and video seen before", _of(n.inter_repeats, n.inter)),
        ("… share of all pairs (density)", _percent(n.density)),
        ("comment interactions", f"{n.cinter:,}"),
        ("… with a pair of user and comment seen before", _of(n.cinter_repeats, n.cinter)),
        ("comment records", f"{n.records:,}"),
        ("first event", _utc(times.first)),
        ("last event", _utc(times.last)),
        ("days", f"{len(times.inter_by_day):,}"),
        ("… without an event", _of(times.empty_days, len(times.inter_by_day))),
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
        ("held by the top 1 %", *(_percent(some.share_of_top(0.01)) for some in (n.inter_per_video, n.inter_per_user))),
        ("held by the top 10 %", *(_percent(some.share_of_top(0.1)) for some in (n.inter_per_video, n.inter_per_user))),
        ("Gini (0: equal, 1: one has all)", f"{n.inter_per_video.gini:.2f}", f"{n.inter_per_user.gini:.2f}"),
        ("with one interaction or none", *(_percent(some.up_to(1)) for some in (n.inter_per_video, n.inter_per_user))),
    ]
    return Table("Concentration of video interactions", ("", "videos", "users"), tuple(rows))


def _split(n: Portrait) -> Table:
    parts = n.split.values()
    rows = [
        ("from", _utc(n.times.first), *(_utc(bound) for bound in n.boundaries)),
        ("video interactions", *(f"{part.inter:,}" for part in parts)),
        ("targets: with an earlier one of the user", *(f"{part.instances:,}" for part in parts)),
        ("… video unseen in training", *(_of(part.unseen_targets, part.instances) for part in parts)),
        ("users with a target", *(f"{part.users:,}" for part in parts)),
        ("… unseen in training", *(_of(part.unseen_users, part.users) for part in parts)),
        ("comment records", *(f"{part.records:,}" for part in parts)),
        ("… no other comment to rank", *(_of(part.lonely_records, part.records) for part in parts)),
    ]
    return Table("Split by time", ("", *n.split), tuple(rows))


def _texts(n: Portrait) -> Table:
    both = (n.titles, n.contents)
    rows = [
        ("number", *(f"{texts.number:,}" for texts in both)),
        ("empty", *(_of(texts.empty, texts.number) for texts in both)),
        ("equal to another one before", *(_of(texts.repeats, texts.number) for texts in both)),
        ("… under the same video", "–", _of(n.contents.repeats_nearby, n.contents.number)),
    ]
    for script in (*SCRIPTS, NONE, EMOJI):
        found = [texts.scripts.get(script, 0) for texts in both]
        if any(found):
            name = {NONE: "without letters", EMOJI: "with emoji"}.get(script, f"mostly {script}")
            rows.append((name, *(_of(some, _written(texts)) for some, texts in zip(found, both, strict=True))))
    return Table("Texts", ("", "titles", "comments"), tuple(rows))


def _hours(n: Portrait) -> Table:
    kinds = {"video interactions": n.times.inter_by_hour, "comment interactions": n.times.cinter_by_hour}
    rows = []
    for name, hours in kinds.items():
        bands = [sum(hours[first : first + 3]) for first in range(0, 24, 3)]
        rows.append((name, *(_percent(band / sum(bands)) if sum(bands) else "–" for band in bands)))
    return Table("Hour of the day (UTC)", ("", *(f"{first}–{first + 3}" for first in range(0, 24, 3))), tuple(rows))


def _written(texts: Texts) -> int:
    return texts.number - texts.empty


def _percent(share: float) -> str:
    """A share in per cent; two digits that count where it is small, so that only 0 is shown as 0 and 1 as 100."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.0001:
        return "< 0.01 %"
    if share > 0.999:
        return "> 99.9 %"
    return f"{100 * share:.{1 if share >= 0.01 else 2}f} %"


def _of(some: int, whole: int) -> str:
    return f"{some:,} ({_percent(some / whole)})" if whole else "–"


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


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


# ---------------------------------------------------------------------- warnings


def warnings(numbers: Portrait, encoder: str = "minilm") -> Iterator[Hint]:
    """What in a data set will hurt, each in one sentence with the number and what to do."""
    yield from _about_files(numbers)
    yield from _about_times(numbers)
    yield from _about_split(numbers)
    yield from _about_users(numbers)
    yield from _about_comments(numbers)
    yield from _about_texts(numbers, encoder)


def _about_files(n: Portrait) -> Iterator[Hint]:
    for suffix, rows in n.other_rows.items():
        yield Hint(
            "other_rows",
            f".{suffix} has {n.rows[suffix]:,} rows but its meta file says {rows:,}: it was cut or changed after it was"
            " written, so convert again or see `lsvcr-data check`.",
        )
    for kind, ids in n.ids.items():
        rounded = ids.rounded if ids.rounded > ROUNDED_IDS * ids.long else 0
        if ids.floats or rounded:
            yield Hint(
                "lost_ids",
                f"{_of(ids.floats + rounded, ids.number)} of the {kind} ids look like rounded numbers, such as"
                f" {ids.example!r} (spreadsheets and float columns keep about {LONG_ID - 1} digits, which makes one id"
                " of several): convert again from raw data where ids are read as text.",
            )


def _about_times(n: Portrait) -> Iterator[Hint]:
    times = n.times
    if times.first == times.last:
        yield Hint(
            "equal_times",
            f"All {n.inter + n.cinter:,} events have the same time ({_utc(times.first)}): there are no histories and"
            " nothing can be split by time, so convert with the real times.",
        )
        return
    if times.step >= HOUR:
        yield Hint(
            "coarse_times",
            f"All {n.inter + n.cinter:,} times are whole {'days' if times.step == DAY else 'hours'}: events of the same"
            " one are not in each other's histories, so convert with exact times if there are any.",
        )
    if times.empty_days:
        yield Hint(
            "gaps",
            f"{_of(times.empty_days, len(times.inter_by_day))} of the days have no event, up to {times.longest_gap:,}"
            f" in a row (from {_date(times.gap_start)} on; {_percent(times.before_gap)} of the events are older):"
            " unless the source was that quiet, a part of it is missing; convert all of it or cut off what is older.",
        )


def _about_split(n: Portrait) -> Iterator[Hint]:
    if n.times.first == n.times.last:
        return
    empty = [name for name, part in n.split.items() if not part.instances]
    if empty:
        yield Hint(
            "empty_part",
            f"The split by time at {_utc(n.boundaries[0])} and {_utc(n.boundaries[1])} leaves no video target for"
            f" {' and '.join(empty)}: choose other boundaries.",
        )
    test = n.split["test"]
    if test.unseen_targets > MOST * test.instances:
        yield Hint(
            "cold_targets",
            f"{_of(test.unseen_targets, test.instances)} of the test targets are videos without a training interaction:"
            " ids cannot rank them, so compare text models, report them as a slice of their own, or split later.",
        )
    if test.unseen_users > MOST * test.users:
        yield Hint(
            "new_users",
            f"{_of(test.unseen_users, test.users)} of the test users have no training interaction: models that learn"
            " one vector per user know nothing about them, so prefer those that read histories, or split later.",
        )
    if test.lonely_records > MOST * test.records:
        yield Hint(
            "lonely_records",
            f"{_of(test.lonely_records, test.records)} of the test's comment records have no other comment of their"
            " video to rank against: they tell nothing about a model, so take in more comments per video.",
        )


def _about_users(n: Portrait) -> Iterator[Hint]:
    fast = n.fast_users
    if fast.number:
        rules = " or ".join(f"{number} within {seconds:,} s" for number, seconds in FAST)
        named = ", ".join(f"{user!r} with {interactions:,}" for user, interactions in fast.examples)
        yield Hint(
            "fast_users",
            f"{fast.number:,} {'user' if fast.number == 1 else 'users'} with {_percent(fast.share)} of all interactions"
            f" act too fast for a person (of one kind, {rules} or more than {fast.limit:,} in all), such as {named}:"
            " these may be bots, so look at them and drop them from the raw data.",
        )
    single = n.inter_per_user.up_to(1)
    if single > MOST:
        yield Hint(
            "single_users",
            f"{_percent(single)} of the users have one video interaction only and so no target: they cost time and"
            " teach little, so convert with --min-user-inter 2.",
        )
    single = n.inter_per_video.up_to(1)
    if single > MOST:
        yield Hint(
            "single_videos",
            f"{_percent(single)} of the videos have one video interaction or none: their ids cannot be learned, so"
            " convert with --min-item-inter 2 or rely on text.",
        )


def _about_comments(n: Portrait) -> Iterator[Hint]:
    if not n.cinter:
        yield Hint(
            "no_comment_histories",
            "There are 0 comment interactions: nothing can be learned from comments and the comment task is impossible,"
            " so train a video model only or convert with a source that has them.",
        )
    elif n.users_with_both < FEW_COMMENTING * n.users_with_inter:
        yield Hint(
            "few_comment_histories",
            f"Only {_of(n.users_with_both, n.users_with_inter)} of the users with video interactions have a comment"
            " history too: it can hardly change the mean result, so report these users as a slice of their own.",
        )
    if not n.comments:
        return
    if n.untimed_comments > UNTIMED * n.comments:
        yield Hint(
            "untimed_comments",
            f"{_of(n.untimed_comments, n.comments)} of the comments have no posting time: candidates cannot be"
            " limited to those that existed, and later ones are ranked too, so convert with times if there are any.",
        )
    few = n.comments_per_video.up_to(1)
    if few > MOST:
        yield Hint(
            "few_comments",
            f"{_percent(few)} of the videos have fewer than 2 comments (replies left out): their comments cannot be"
            " ranked, so take in more comments per video.",
        )


def _about_texts(n: Portrait, encoder: str) -> Iterator[Hint]:
    titles, contents = n.titles, n.contents
    short = titles.lengths.up_to(SHORT_TITLE - 1)
    if titles.empty or short > SHORT_TITLES:
        yield Hint(
            "short_titles",
            f"{_of(titles.empty, titles.number)} of the titles are empty and {_percent(short)} shorter than"
            f" {SHORT_TITLE} characters: such videos are nearly the same to a text model, so add a description or tags"
            " to the titles, or drop these videos.",
        )
    if contents.empty > EMPTY_CONTENTS * contents.number:
        yield Hint(
            "empty_comments",
            f"{_of(contents.empty, contents.number)} of the comments are empty: nothing tells them apart, so drop them"
            " from the raw data.",
        )
    written = _written(contents)
    if contents.repeats > REPEATED * written or contents.repeats_nearby > REPEATED_NEARBY * written:
        yield Hint(
            "repeated_comments",
            f"{_percent(contents.repeats / written)} of the comments repeat the text of another one,"
            f" {_percent(contents.repeats_nearby / written)} one of the same video: text alone cannot rank these apart,"
            " so drop copies under the same video from the raw data, or expect lower results.",
        )
    known = known_scripts(encoder)
    foreign = {name: _foreign(texts, known) for name, texts in (("titles", titles), ("comments", contents))}
    if known is not None and max(foreign.values()) > FOREIGN:
        strange = {
            script: sum(texts.scripts.get(script, 0) for texts in (titles, contents))
            for script in SCRIPTS
            if script not in known
        }
        yield Hint(
            "encoder_language",
            f"{_percent(foreign['titles'])} of the titles and {_percent(foreign['comments'])} of the comments are in"
            f" scripts (mostly {max(strange, key=lambda script: strange[script])}) that the encoder {encoder!r} was not"
            " made for: its vectors will say little, so set text_encoder to a model of that language or a multilingual"
            " one.",
        )


def _foreign(texts: Texts, known: frozenset[str] | None) -> float:
    """The share of the texts that are not empty whose letters are mostly of a script outside `known`."""
    if known is None or not _written(texts):
        return 0.0
    return sum(texts.scripts.get(script, 0) for script in SCRIPTS if script not in known) / _written(texts)


def known_scripts(encoder: str) -> frozenset[str] | None:
    """The scripts that a text encoder reads, by its name; None if its name does not tell."""
    if encoder == "auto":
        try:
            from recbole_lsvcr.encoding.encoders import resolve_encoder

            encoder = resolve_encoder(encoder)
        except ImportError:
            encoder = "minilm"
    return next((scripts for name, scripts in _ENCODERS if re.search(name, encoder.lower())), None)
