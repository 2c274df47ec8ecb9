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

from dataset_tools.convert import Tables, add_options, clean, convert, options_of
from dataset_tools.errors import DataToolError
from dataset_tools.json_files import SUFFIXES, list_files, read_documents
from dataset_tools.problems import Problems
from dataset_tools.text import replace_surrogates
from dataset_tools.times import iso_seconds
from dataset_tools.writer import check_target

HELP = "YouTube Data API v3 dumps (videos, commentThreads, comments)"
EXAMPLE = "lsvcr-data youtube dumps/ dataset/mychannel --min-user-inter 5 --min-item-inter 5"
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
    check_target(args.out, overwrite=args.overwrite)
    problems = Problems()
    tables, notes = read(list_files(args.raw), problems)
    tables = clean(tables, problems, cascades=args.on_error == "skip")
    convert(
        events(tables, notes, keep_owner=args.keep_owner),
        problems,
        args.out,
        source="youtube",
        options=options_of(args),
        source_options={"keep_owner": args.keep_owner},
        notes=notes,
        overwrite=args.overwrite,
    )
    return 0


def read(files: list[Path], problems: Problems) -> tuple[Tables, dict[str, int]]:
    """The videos and comments of a dump, in source order, and counts worth knowing."""
    videos, comments = _Rows(_VIDEO), _Rows(_COMMENT)
    for value, file, line in read_documents(files, problems):
        for resource in _resources(value):
            try:
                _take(resource, (file, line), videos, comments)
            except _UnknownResourceError as error:
                problems.add("not a video, comment thread or comment", file, line, str(error))
            except (KeyError, TypeError, AttributeError) as error:
                problems.add("resource without what the API always gives", file, line, str(error))
    item, comment = videos.frame(), comments.frame()
    if item.is_empty() or comment.is_empty():
        problems.settle("fail")
        raise DataToolError(f"found {item.height:,} videos and {comment.height:,} comments; a data set needs both")
    comment, merged = _join_forms(comment, problems)
    item = item.with_columns(iso_seconds(pl.col("upload_time")), _duration("duration"))
    item = item.drop(name for name in ("duration", "tags") if item[name].is_null().all())
    return {"item": item, "comment": comment.with_columns(iso_seconds(pl.col("timestamp")))}, {
        "comments_given_twice": merged
    }


def events(tables: Tables, notes: dict[str, int], *, keep_owner: bool) -> Tables:
    """Cleaned videos and comments with `.inter` and `.cinter`; what is left out on purpose is counted in `notes`.

    The owner of a channel is left out as a user and as an author: the replies in the owner's threads are video
    interactions as any comment, but neither comment interactions nor, their thread being gone, comments.
    """
    place = ["timestamp", "_file", "_line"]
    comment = tables["comment"]
    owner = tables["item"].select("item_id", _owner="author_id")
    parent = comment.select(parent_id="comment_id", _parent_user="user_id")
    said = comment.join(owner, on="item_id", how="left", maintain_order="left")
    said = said.join(parent, on="parent_id", how="left", maintain_order="left")
    anonymous, is_reply = pl.col("user_id") == "", pl.col("parent_id") != ""
    by_owner = (pl.col("user_id") == pl.col("_owner")) & ~anonymous & pl.lit(not keep_owner)
    to_owner = (pl.col("_parent_user") == pl.col("_owner")) & is_reply & pl.lit(not keep_owner)
    to_oneself = (pl.col("_parent_user") == pl.col("user_id")) & is_reply & ~anonymous
    kept = said.filter(~by_owner & ~to_owner.fill_null(False))
    replies = kept.filter(is_reply & ~anonymous & ~to_oneself)
    notes |= {
        "comments_read": comment.height,
        "comments_without_author": said.filter(anonymous).height,
        "comments_by_owner_left_out": said.filter(by_owner).height,
        "replies_to_owner_left_out": said.filter(to_owner & ~by_owner).height,
        "replies_to_oneself_no_interaction": kept.filter(to_oneself).height,
    }
    return {
        **tables,
        "comment": kept.drop("_owner", "_parent_user"),
        "inter": said.filter(~anonymous & ~by_owner).select("user_id", "item_id", *place),
        "cinter": replies.select("user_id", "item_id", *place, comment_id="parent_id", like=pl.lit(0), reply=pl.lit(1)),
    }


class _UnknownResourceError(Exception):
    """JSON that is none of the three resources."""


class _Rows:
    """Columns that grow row by row while JSON is parsed, packed into frames now and then to stay small."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.schema: dict[str, Any] = {**columns, **_PLACE}
        self.rows: list[tuple[Any, ...]] = []
        self.frames: list[pl.DataFrame] = []

    def add(self, *row: Any) -> None:
        self.rows.append(row)
        if len(self.rows) == 50_000:
            self._pack()

    def _pack(self) -> None:
        self.frames.append(pl.DataFrame(self.rows, schema=self.schema, orient="row"))
        self.rows = []

    def frame(self) -> pl.DataFrame:
        self._pack()
        return pl.concat(self.frames)


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


def _join_forms(comment: pl.DataFrame, problems: Problems) -> tuple[pl.DataFrame, int]:
    """Comments of `commentThreads` and `comments.list` as one table; also how many were given in both forms."""
    inline, listed = comment.filter(pl.col("_inline")), comment.filter(~pl.col("_inline"))
    new = listed.join(inline, on="comment_id", how="anti", maintain_order="left")
    comment = pl.concat([inline, new])
    videos = comment.select(parent_id="comment_id", _video="item_id").unique("parent_id", keep="first")
    comment = comment.join(videos, on="parent_id", how="left", maintain_order="left")
    comment = comment.with_columns(pl.coalesce("item_id", "_video")).drop("_video")
    lost = pl.col("item_id").is_null()
    problems.add_rows(
        "comment whose thread, and so its video, is missing", comment.filter(lost), ["comment_id", "parent_id"]
    )
    return comment.filter(~lost).sort("_file", "_line", maintain_order=True), listed.height - new.height


def _duration(name: str) -> pl.Expr:
    """An ISO 8601 duration (`PT1H2M3S`, `P1DT2S`) in seconds."""
    text = pl.col(name)
    units = {"(\\d+)D": 86_400, "T.*?(\\d+)H": 3600, "T.*?(\\d+)M": 60, "T.*?(\\d+)S": 1}
    parts = [text.str.extract(pattern).cast(pl.Float64).fill_null(0.0) * size for pattern, size in units.items()]
    return pl.when(text.is_not_null()).then(pl.sum_horizontal(parts)).alias(name)
