"""YouTube Data API v3 dumps: videos, comment threads and comments, as resources or whole responses.

A comment or reply by a user under a video is a video interaction; a reply to somebody else's comment is a comment
interaction with the top-level comment of its thread. Replies are kept in `.comment` with their `parent_id`. The API
tells neither who liked a comment nor when: `like` is 0 and `reply` 1 in every row of `.cinter`, and `like_count` is the
snapshot's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.blocks import Values
from dataset_tools.convert import Conversion, add_options, conversion, machine_of, options_of
from dataset_tools.engine import Engine
from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems
from dataset_tools.raw_files import PACKED
from dataset_tools.reading import Reading
from dataset_tools.text import replace_surrogates
from dataset_tools.times import iso_seconds

HELP = "YouTube Data API v3 dumps (videos, commentThreads, comments)"
EXAMPLE = "lsvcr-data youtube dumps/ dataset/mychannel --min-user-inter 5 --min-item-inter 5"
SUFFIXES = tuple(f".{kind}{packed}" for kind in ("json", "jsonl", "ndjson") for packed in ("", *PACKED))
_PLACE = {"_inline": pl.Boolean, "_file": pl.UInt32, "_line": pl.UInt32}
_VIDEO = {"item_id": pl.String, "title": pl.String, "tags": pl.List(pl.String), "author_id": pl.String}
_VIDEO |= {"category": pl.String, "duration": pl.String, "upload_time": pl.String}
_COMMENT = dict.fromkeys(("comment_id", "item_id", "content", "user_id", "parent_id"), pl.String)
_COMMENT |= dict.fromkeys(("like_count", "reply_count", "timestamp"), pl.String)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data youtube`."""
    parser.add_argument(
        "raw",
        nargs="+",
        type=Path,
        metavar="RAW",
        help=f"files, or folders of {' '.join(SUFFIXES)} files, holding resources or whole responses",
    )
    add_options(parser)
    parser.add_argument("--keep-owner", action="store_true", help="the channel's owner counts as a user (default: not)")


def run(args: argparse.Namespace) -> int:
    """Convert as parsed arguments say."""
    files = list_files(args.raw)
    with conversion(
        args.out,
        source="youtube",
        files=files,
        options=options_of(args),
        source_options={"keep_owner": args.keep_owner},
        machine=machine_of(args),
        overwrite=args.overwrite,
    ) as work:
        with Reading(work.stage, files) as reading:
            for path in files:
                reading.take_values(path, _rows)
        for name, rows in _tables(_Rows(_VIDEO), _Rows(_COMMENT)).items():
            work.stage.add(name, rows)  # for a dump that has none
        work.finish(lambda engine: _derive(engine, work, keep_owner=args.keep_owner))
    return 0


def list_files(raw: list[Path]) -> list[Path]:
    """The files named and, sorted, those in the folders named; `DataToolError` if there is none."""
    files: list[Path] = []
    for path in raw:
        if not path.exists():
            raise DataToolError(f"{path} does not exist; give files or folders of {', '.join(SUFFIXES)}")
        inside = (
            sorted(child for child in path.rglob("*") if child.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        )
        if not inside:
            raise DataToolError(f"{path} holds no file of {', '.join(SUFFIXES)}")
        files += inside
    return files


def _rows(values: Values, problems: Problems) -> dict[str, pl.DataFrame]:
    """The videos (`item`) and comments (`said`) among some values, in source order."""
    videos, comments = _Rows(_VIDEO), _Rows(_COMMENT)
    for value, line in values.parts:
        for resource in _resources(value):
            try:
                _take(resource, (values.file, line), videos, comments)
            except _UnknownResourceError as error:
                problems.add("not a video, comment thread or comment", values.file, line, str(error))
            except (KeyError, TypeError, AttributeError) as error:
                problems.add("resource without what the API always gives", values.file, line, str(error))
    return {name: rows for name, rows in _tables(videos, comments).items() if rows.height}


def _tables(videos: _Rows, comments: _Rows) -> dict[str, pl.DataFrame]:
    item = videos.frame().with_columns(iso_seconds(pl.col("upload_time")), _duration("duration"))
    return {"item": item.drop("_inline"), "said": comments.frame()}


def _derive(engine: Engine, work: Conversion, *, keep_owner: bool) -> None:
    """`.comment`, `.inter` and `.cinter` of what was said; what is left out on purpose is counted in the notes.

    The owner of a channel is left out as a user and as an author: the replies in the owner's threads are video
    interactions as any comment, but neither comment interactions nor, their thread being gone, comments.
    """
    videos, said = (engine.number(f"SELECT count(*) FROM {name}") for name in ("item", "said"))
    if not videos or not said:
        engine.problems.settle("fail")
        raise DataToolError(f"found {videos:,} videos and {said:,} comments; a data set needs both")
    for name in ("duration", "tags"):
        if not engine.number(f"SELECT count(*) FROM item WHERE {name} IS NOT NULL AND {name}::VARCHAR <> ''"):
            engine.hide("item", name)
    merged = _join_forms(engine)
    engine.check_keys()
    engine.check_references(cascades=work.cascades)
    engine.run(
        "CREATE TABLE remark AS SELECT c.*, c.user_id = '' AS anonymous, c.parent_id <> '' AS is_reply,"
        f" NOT anonymous AND c.user_id = i.author_id AND NOT {keep_owner} AS by_owner,"
        f" is_reply AND p.user_id <> '' AND p.user_id = i.author_id AND NOT {keep_owner} AS to_owner,"
        " is_reply AND NOT anonymous AND p.user_id = c.user_id AS to_oneself"
        " FROM comment c JOIN item i USING (item_id) LEFT JOIN comment p ON p.comment_id = c.parent_id"
    )
    for column in ("by_owner", "to_owner", "to_oneself"):
        engine.run(f"UPDATE remark SET {column} = false WHERE {column} IS NULL")
    counts = {
        "comments_read": "true",
        "comments_without_author": "anonymous",
        "comments_by_owner_left_out": "by_owner",
        "replies_to_owner_left_out": "to_owner AND NOT by_owner",
        "replies_to_oneself_no_interaction": "to_oneself AND NOT by_owner AND NOT to_owner",
    }
    work.notes["comments_given_twice"] = merged
    work.notes |= {name: engine.number(f"SELECT count(*) FROM remark WHERE {rule}") for name, rule in counts.items()}
    engine.drop("comment", "SELECT _row FROM remark WHERE by_owner OR to_owner")
    columns = "user_id, item_id, timestamp, _file, _line"
    engine.derive("inter", f"SELECT {columns} FROM remark WHERE NOT anonymous AND NOT by_owner ORDER BY _row")
    engine.derive(
        "cinter",
        f"SELECT {columns}, parent_id AS comment_id, 0.0::DOUBLE AS like, 1.0::DOUBLE AS reply FROM remark"
        " WHERE is_reply AND NOT (anonymous OR by_owner OR to_owner OR to_oneself) ORDER BY _row",
    )


def _join_forms(engine: Engine) -> int:
    """Comments of `commentThreads` and `comments.list` as `.comment`; how many were given in both forms."""
    twice = "SELECT _row FROM said WHERE NOT _inline AND comment_id IN (SELECT comment_id FROM said WHERE _inline)"
    merged = engine.number(f"SELECT count(*) FROM ({twice})")
    engine.drop("said", twice)
    # The video of a reply listed without one is that of the first comment with its parent's id.
    engine.run(
        "CREATE TABLE thread AS SELECT comment_id, first(item_id ORDER BY NOT _inline, _row) AS item_id FROM said"
        " GROUP BY comment_id"
    )
    lost = (
        "SELECT _row FROM said s WHERE item_id IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM thread t WHERE t.comment_id = s.parent_id AND t.item_id IS NOT NULL)"
    )
    engine.fault("said", lost, "comment whose thread, and so its video, is missing", ["comment_id", "parent_id"])
    engine.derive(
        "comment",
        "SELECT s.* REPLACE (coalesce(s.item_id, t.item_id) AS item_id) FROM said s LEFT JOIN thread t"
        " ON t.comment_id = s.parent_id ORDER BY _file, _line, NOT _inline, _row",
        lambda rows: rows.drop("_inline", "_row").with_columns(iso_seconds(pl.col("timestamp"))),
    )
    return merged


class _UnknownResourceError(Exception):
    """JSON that is none of the three resources."""


class _Rows:
    """Columns that grow row by row while JSON is parsed."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.schema: dict[str, Any] = {**columns, **_PLACE}
        self.rows: list[tuple[Any, ...]] = []

    def add(self, *row: Any) -> None:
        self.rows.append(row)

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame(self.rows, schema=self.schema, orient="row")


def _resources(value: Any) -> Iterator[Any]:
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        yield from value["items"]
    else:
        yield value


def _take(resource: Any, place: tuple[int, int], videos: _Rows, comments: _Rows) -> None:
    kind = resource.get("kind") if isinstance(resource, dict) else None
    if kind == "youtube#video":
        videos.add(*_video(resource), True, *place)
    elif kind == "youtube#comment":
        comments.add(*_comment(resource, resource["snippet"].get("videoId"), None), False, *place)
    elif kind == "youtube#commentThread":
        snippet = resource["snippet"]
        comments.add(
            *_comment(snippet["topLevelComment"], snippet["videoId"], snippet.get("totalReplyCount")), True, *place
        )
        for reply in (resource.get("replies") or {}).get("comments") or []:
            comments.add(*_comment(reply, snippet["videoId"], None), True, *place)
    else:
        raise _UnknownResourceError(
            f"kind {kind!r}" if isinstance(resource, dict) else f"a JSON {type(resource).__name__}"
        )


def _video(resource: dict[str, Any]) -> tuple[Any, ...]:
    snippet = resource["snippet"]
    tags = snippet.get("tags")
    return (
        _text(resource["id"]),
        _text(snippet["title"]),
        None if tags is None else [_text(tag) for tag in tags],
        _text(snippet.get("channelId")),
        _text(snippet.get("categoryId")),
        _text(resource.get("contentDetails", {}).get("duration")),
        _text(snippet.get("publishedAt")),
    )


def _comment(resource: dict[str, Any], video: str | None, replies: int | None) -> tuple[Any, ...]:
    snippet = resource["snippet"]
    text = snippet.get("textOriginal")  # given to the comment's author only; others get textDisplay
    return (
        _text(resource["id"]),
        _text(video),
        _text(snippet["textDisplay"] if text is None else text),
        _text((snippet.get("authorChannelId") or {}).get("value")),
        _text(snippet.get("parentId")),
        _text(snippet.get("likeCount")),
        _text(replies),
        _text(snippet["publishedAt"]),
    )


def _text(value: object) -> str | None:
    return None if value is None else replace_surrogates(str(value))


def _duration(name: str) -> pl.Expr:
    """An ISO 8601 duration (`PT1H2M3S`, `P1DT2S`) in seconds."""
    text = pl.col(name)
    units = {"([0-9]+)D": 86_400, "T.*?([0-9]+)H": 3600, "T.*?([0-9]+)M": 60, "T.*?([0-9]+)S": 1}
    parts = [text.str.extract(pattern).cast(pl.Float64).fill_null(0.0) * size for pattern, size in units.items()]
    return pl.when(text.is_not_null()).then(pl.sum_horizontal(parts)).alias(name)
