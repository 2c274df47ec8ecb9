"""The CSV files of KuaiComt, the public sibling of the paper's data; comma- or tab-separated, plain, .gz or .zst.

RAW holds user_video_inter, video_features, user_comment_inter, comment_features and, if you like, user_features, each
`.csv` (or .tsv, .txt). Videos are named `video_id` or `photo_id`, times may be in seconds or milliseconds, columns that
are not needed may be missing.

A video interaction is a row that `--positive` accepts: names of flags of which one must be set (like, collect, forward,
follow, comment, click, long_view; the paper's choice is like,collect,forward), or an SQL expression over the columns of
user_video_inter (`"long_view = 1 AND is_hate = 0"`). A comment interaction is a like or a reply. A caption's hashtags
(`#tag` and `＃tag`) and the category become tags, what is left the title; a caption without words is titled by its
tags, and without these by its category. A video appears at midnight in Shanghai of its `upload_dt`. Durations and play
times become seconds. When comments were posted is not known.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from dataset_tools.blocks import Block, Choice, columns_of
from dataset_tools.convert import Conversion, add_options, conversion, machine_of, options_of
from dataset_tools.errors import DataToolError
from dataset_tools.expressions import RowExpression
from dataset_tools.problems import Problems
from dataset_tools.reading import Reading, unit_of
from dataset_tools.rules import numbers_of
from dataset_tools.schema import TIME_RANGE
from dataset_tools.text import as_number, normalise, without_lost
from dataset_tools.times import epoch_seconds, iso_seconds

HELP = "the CSV files of KuaiComt"
EXAMPLE = "lsvcr-data kuaicomt raw/ dataset/kuaicomt --min-user-inter 5 --min-item-inter 5 --on-error skip"
ZONE = "Asia/Shanghai"
FILES = ("user_video_inter", "video_features", "comment_features", "user_comment_inter", "user_features")
_OPTIONAL_FILE = "user_features"
_ENDINGS = tuple(f".{kind}{packed}" for kind in ("csv", "tsv", "txt") for packed in ("", ".gz", ".zst"))
VIDEO = ("video_id", "photo_id")
FLAGS = {name: f"is_{name}" for name in ("like", "collect", "forward", "follow", "comment", "click", "hate")}
FLAGS |= {"share": "is_forward", "long_view": "long_view"}
# Our name -> theirs, of columns that may be missing.
_INTER = {"like": "is_like", "collect": "is_collect", "share": "is_forward", "follow": "is_follow"}
_INTER |= {"comment": "is_comment", "play_time": "play_time_ms", "duration": "duration_ms"}
_ITEM = {"author_id": "author_id", "category": "category", "duration": "duration", "upload_time": "upload_dt"}
_ITEM |= {"video_type": "video_type"}
_COMMENT = {"like_count": "comment_like_cnt", "reply_count": "comment_reply_out"}
_MILLISECONDS = ("play_time", "duration")
_NUMBERS_OF_USERS = re.compile(r".*_(num|count|days)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data kuaicomt`."""
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder of the raw files")
    add_options(parser)
    parser.add_argument(
        "--positive",
        default="like,collect,forward",
        metavar="RULE",
        help="what a video interaction is: flags, or an SQL expression (default: like,collect,forward)",
    )
    parser.add_argument("--since", metavar="DATE", help="leave out interactions before this day or time (Shanghai)")
    parser.add_argument("--until", metavar="DATE", help="leave out interactions at or after this day or time")
    parser.add_argument(
        "--user-share",
        type=_share,
        default=1.0,
        metavar="P",
        help="keep this share of the users, the same ones every time (default: 1, all)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert as parsed arguments say."""
    files = find(args.raw)
    rule = positives(args.positive, files["user_video_inter"])
    chosen = Chosen(args.since, args.until, args.user_share)
    given = {"positive": args.positive, "since": args.since, "until": args.until, "user_share": args.user_share}
    with conversion(
        args.out,
        source="kuaicomt",
        files=list(files.values()),
        options=options_of(args),
        source_options=given,
        machine=machine_of(args),
        overwrite=args.overwrite,
    ) as work:
        source = _Source(work, rule, chosen)
        with Reading(work.stage, list(files.values())) as reading:
            for name in (name for name in FILES if name in files):
                source.read(reading, name, files[name])
        work.finish()
    return 0


def find(raw: Path) -> dict[str, Path]:
    """The raw files by name; `DataToolError` says which are missing."""
    if not raw.is_dir():
        raise DataToolError(f"{raw} is not a folder; give the folder of {', '.join(FILES)} (.csv)")
    found: dict[str, Path] = {}
    for name in FILES:
        there = [raw / f"{name}{ending}" for ending in _ENDINGS if (raw / f"{name}{ending}").is_file()]
        if len(there) > 1:
            raise DataToolError(f"{raw} has {' and '.join(path.name for path in there)}; keep one of them")
        if there:
            found[name] = there[0]
        elif name != _OPTIONAL_FILE:
            raise DataToolError(f"{raw} has no {name}.csv (also .tsv, .txt, with .gz or .zst); it has {_names(raw)}")
    return found


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "no file"


def positives(text: str, file: Path) -> RowExpression:
    """Which rows of user_video_inter are positives, by `--positive`.

    Raises:
        DataToolError: neither known flags nor an SQL expression over columns that the file has.
    """
    there = columns_of(file) or []
    flags = {name: column for name, column in FLAGS.items() if column in there}
    flags |= {name: name for name in there if name in FLAGS.values() or name.startswith("is_")}
    names = [name.strip() for name in text.split(",")]
    if all(re.fullmatch(r"\w+", name) for name in names):
        unknown = [name for name in names if name not in flags]
        rule = _any_of(flags.get(name, name) for name in names)
    else:
        rule = RowExpression(text, "--positive")
        unknown = [name for name in rule.columns if name not in there]
    if unknown or not rule.columns:
        raise DataToolError(
            f"--positive {text!r}: {', '.join(unknown) or 'it'} names no flag or column of {file.name}; give flags "
            f"({', '.join(name for name in flags if name in FLAGS)}) or an SQL expression over {', '.join(there)}"
        )
    return rule


def _any_of(flags: Iterable[str]) -> RowExpression:
    return RowExpression(" OR ".join(f'"{name}" > 0' for name in flags), "flags")


def _choice(rule: RowExpression) -> Choice:
    """The rows that a rule over numbers accepts; where one of its columns is no number, it is a fault."""

    def accepts(rows: pl.DataFrame, problems: Problems) -> pl.Series:
        numbers, sound = numbers_of(rows, rule.columns, problems)
        accepted = rule.accepts(numbers)
        return accepted if sound.all() else pl.select(pl.when(sound).then(accepted)).to_series()

    return Choice(rule.columns, accepts, numbers=True)


class Chosen:
    """The days and users that are wanted."""

    def __init__(self, since: str | None, until: str | None, share: float) -> None:
        self.since, self.until = _time(since, "--since"), _time(until, "--until")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise DataToolError(f"--since {since} is not before --until {until}")
        self.share = share

    def holds(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each row is of them; a time that cannot be right stays, for the checks to report."""
        wanted = self.has_user(rows)
        if self.since is None and self.until is None:
            return wanted
        time = rows.select(as_number(pl.col("timestamp").cast(pl.String))).to_series()
        within = pl.Series([True]).new_from_index(0, rows.height)
        if self.since is not None:
            within &= time >= self.since
        if self.until is not None:
            within &= time < self.until
        usable = time.is_between(*TIME_RANGE, closed="left").fill_null(False)
        return wanted & (within | ~usable)

    def has_user(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each row's user is one of them, whatever its time."""
        if self.share == 1:
            return pl.Series([True]).new_from_index(0, rows.height)
        ids = rows["user_id"].str.strip_chars()
        users = ids.unique()
        kept = users.filter(pl.Series([_draw(user) < self.share for user in users], dtype=pl.Boolean))
        return ids.is_in(kept.implode())


class _Source:
    """Blocks of the raw files as rows of the atomic files."""

    def __init__(self, work: Conversion, rule: RowExpression, chosen: Chosen) -> None:
        self.work, self.rule, self.chosen = work, rule, chosen
        self._units: dict[str, float] = {}

    def read(self, reading: Reading, name: str, path: Path) -> None:
        """Stage one raw file."""
        there = columns_of(path) or []
        readers = {
            "user_video_inter": self._inter,
            "video_features": self._item,
            "comment_features": self._comment,
            "user_comment_inter": self._cinter,
            "user_features": self._user,
        }
        readers[name](reading, path, there)

    def _inter(self, reading: Reading, path: Path, there: list[str]) -> None:
        video, time = _one_of(path, there, VIDEO), _one_of(path, there, ("time_ms", "timestamp", "time_stamp", "time"))
        more = {ours: theirs for ours, theirs in _INTER.items() if theirs in there}
        columns = list(
            dict.fromkeys([_one_of(path, there, ("user_id",)), video, time, *more.values(), *self.rule.columns])
        )

        def rows(block: Block) -> dict[str, pl.DataFrame]:
            self._note("impressions_read", block.frame.height + block.left_out)
            self._note("impressions_not_positive", block.left_out)
            frame = block.frame.select(
                "user_id", "_file", "_line", item_id=video, timestamp=self._seconds(path, time), **more
            )
            for name in set(_MILLISECONDS) & set(more):
                frame = frame.with_columns(_thousandth(name))
            return {"inter": self._chosen(frame)}

        reading.take(path, columns, rows, choice=_choice(self.rule))

    def _item(self, reading: Reading, path: Path, there: list[str]) -> None:
        video = _one_of(path, there, VIDEO)
        more = {ours: theirs for ours, theirs in _ITEM.items() if theirs in there}
        columns = [video, _one_of(path, there, ("caption",)), *more.values()]

        def rows(block: Block) -> dict[str, pl.DataFrame]:
            category = without_lost(pl.col("category").str.strip_chars()) if "category" in more else pl.lit("")
            hashtags = pl.col("caption").str.extract_all(r"[#＃][^\s#＃]+").list.eval(pl.element().str.slice(1))
            words = pl.col("caption").str.replace_all(r"[#＃][^\s#＃]+", " ").str.replace_all(r"[\p{Cc}\s]+", " ")
            frame = block.frame.select(
                "_file",
                "_line",
                item_id=video,
                words=words.str.strip_chars(" "),
                hashtags=hashtags,
                tags=hashtags.list.concat(pl.concat_list(category)),
                **more,
            )
            title = pl.when(pl.col("words") != "").then("words").otherwise(normalise(pl.col("hashtags").list.join(" ")))
            frame = frame.with_columns(title=title)
            if "category" in more:
                frame = frame.with_columns(title=pl.when(pl.col("title") != "").then("title").otherwise(category))
            self._note("captions_without_words", int((frame["words"] == "").sum()))
            if "upload_time" in more:
                empty = pl.col("upload_time").str.strip_chars() == ""
                at = pl.when(empty).then(pl.lit(None, pl.String)).otherwise(iso_seconds(pl.col("upload_time"), ZONE))
                frame = frame.with_columns(upload_time=at)
            if "duration" in more:
                frame = frame.with_columns(_thousandth("duration"))
            return {"item": frame.drop("words", "hashtags")}

        reading.take(path, columns, rows)

    def _comment(self, reading: Reading, path: Path, there: list[str]) -> None:
        video = _one_of(path, there, VIDEO)
        more = {ours: theirs for ours, theirs in _COMMENT.items() if theirs in there}
        content = _one_of(path, there, ("comment_content", "content"))
        columns = [_one_of(path, there, ("comment_id",)), video, content, *more.values()]

        def rows(block: Block) -> dict[str, pl.DataFrame]:
            return {
                "comment": block.frame.select("comment_id", "_file", "_line", item_id=video, content=content, **more)
            }

        reading.take(path, columns, rows)

    def _cinter(self, reading: Reading, path: Path, there: list[str]) -> None:
        video, time = _one_of(path, there, VIDEO), _one_of(path, there, ("time_stamp", "timestamp", "time_ms", "time"))
        flags = {"like": _one_of(path, there, ("is_like",)), "reply": _one_of(path, there, ("is_reply",))}
        ids = [_one_of(path, there, (name,)) for name in ("user_id", "comment_id")]

        def rows(block: Block) -> dict[str, pl.DataFrame]:
            self._note("comment_rows_not_positive", block.left_out)
            frame = block.frame.select(
                *ids, "_file", "_line", item_id=video, timestamp=self._seconds(path, time), **flags
            )
            return {"cinter": self._chosen(frame)}

        columns = [*ids, video, time, *flags.values()]
        reading.take(path, columns, rows, choice=_choice(_any_of(flags.values())))

    def _user(self, reading: Reading, path: Path, there: list[str]) -> None:
        there = [name for name in there if name]  # a table's index has no name
        _one_of(path, there, ("user_id",))
        numbers = [name for name in there if _NUMBERS_OF_USERS.fullmatch(name)]

        def rows(block: Block) -> dict[str, pl.DataFrame]:
            values, sound = numbers_of(block.frame, numbers, self.work.problems, may_be_empty=numbers)
            users = block.frame.with_columns(values).filter(sound)
            chosen = users.filter(self.chosen.has_user(users))
            if chosen.height < users.height:
                self._note("users_not_chosen", users.height - chosen.height)
            return {"user": chosen}

        reading.take(path, there, rows)

    def _seconds(self, path: Path, name: str) -> pl.Expr:
        """Times as seconds, whatever the file has: its first times decide."""
        if str(path) not in self._units:
            self._units[str(path)] = unit_of(path, name)
        return epoch_seconds(pl.col(name), self._units[str(path)])

    def _chosen(self, rows: pl.DataFrame) -> pl.DataFrame:
        kept = rows.filter(self.chosen.holds(rows))
        if kept.height < rows.height:
            self._note("positives_outside_the_days_or_users_chosen", rows.height - kept.height)
        return kept

    def _note(self, what: str, count: int) -> None:
        self.work.notes[what] = self.work.notes.get(what, 0) + count


def _one_of(path: Path, there: Sequence[str], names: Sequence[str]) -> str:
    """The one of `names` that a file has."""
    found = [name for name in names if name in there]
    if not found:
        raise DataToolError(f"{path} has no column {' or '.join(names)}; it has {', '.join(there)}")
    return found[0]


def _thousandth(name: str) -> pl.Expr:
    """A number of milliseconds, as text, in seconds; what is no number stays for the checks to report."""
    return epoch_seconds(pl.col(name), 1e3).alias(name)


def _draw(user: str) -> float:
    """A number in [0, 1) that depends on the user alone."""
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "big") / 2**64


def _time(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    found = pl.select(iso_seconds(pl.lit(text), ZONE).cast(pl.Float64, strict=False)).item()
    if found is None:
        raise DataToolError(f"{option} {text!r} is no day or time; give one such as 2023-10-07 or 2023-10-07T18:00")
    return float(found)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of the users (above 0, at most 1)")
    return value
