"""MicroLens-50k and -100k: an interaction is a comment that the user wrote under the video.

RAW holds `*_pairs.csv` (user, item, timestamp in milliseconds or seconds) and the titles, `*_titles.csv` (with a header
line) or `*_title_en.csv` (without); if you like, `*_comment_en.txt` (user, item, text, separated by tabs, no header)
and `*_likes_and_views.txt` (item, likes, views, separated by tabs).

Comments have neither ids nor times: they are numbered c1, c2, … in the order of their file, the first comment of a user
under a video has the time of the pair's first row, the second that of its second, and so on; more comments than rows
have the last one's. Every comment is its author's comment interaction, the video's other comments are its candidates.
Likes and views are the snapshot's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.blocks import Block, columns_of, read_blocks
from dataset_tools.convert import Conversion, add_options, conversion, machine_of, options_of
from dataset_tools.engine import Engine
from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems
from dataset_tools.reading import Reading, unit_of
from dataset_tools.rules import numbers_of
from dataset_tools.times import epoch_seconds

HELP = "MicroLens-50k or -100k"
EXAMPLE = "lsvcr-data microlens MicroLens-100k/ dataset/microlens"
PACKED = ("", ".gz", ".zst")
FILES = {
    "pairs": ("_pairs.csv",),
    "titles": ("_titles.csv", "_title_en.csv", "_title.csv"),
    "comments": ("_comment_en.txt", "_comment.txt"),
    "counts": ("_likes_and_views.txt",),
}
_NEEDED = ("pairs", "titles")
_TABS: dict[str, Any] = {"separator": "\t", "quoted": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data microlens`."""
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder of the raw files")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert as parsed arguments say."""
    files = find(args.raw)
    with conversion(
        args.out,
        source="microlens",
        files=list(files.values()),
        options=options_of(args),
        source_options={},
        machine=machine_of(args),
        overwrite=args.overwrite,
    ) as work:
        with Reading(work.stage, list(files.values())) as reading:
            _read(reading, files)
        work.finish(lambda engine: _derive(engine, work))
    return 0


def find(raw: Path) -> dict[str, Path]:
    """The raw files by what they hold; `DataToolError` says which is missing or there twice."""
    if not raw.is_dir():
        raise DataToolError(f"{raw} is not a folder; give the folder of *_pairs.csv and *_titles.csv")
    found: dict[str, Path] = {}
    for what, endings in FILES.items():
        accepted = tuple(f"{ending}{packed}" for ending in endings for packed in PACKED)
        there = sorted(path for path in raw.iterdir() if path.name.lower().endswith(accepted))
        if len(there) > 1:
            raise DataToolError(
                f"{raw} has {' and '.join(path.name for path in there)}; keep the files of one MicroLens in it"
            )
        if there:
            found[what] = there[0]
        elif what in _NEEDED:
            raise DataToolError(f"{raw} has no file that ends in {' or '.join(endings)}")
    return found


def _read(reading: Reading, files: dict[str, Path]) -> None:
    pairs = files["pairs"]
    unit = unit_of(pairs, "timestamp")
    reading.take(
        pairs,
        ["user", "item", "timestamp"],
        lambda block: {
            "inter": block.frame.select(
                "_file",
                "_line",
                user_id="user",
                item_id="item",
                timestamp=epoch_seconds(pl.col("timestamp"), unit),
            )
        },
    )
    titles = files["titles"]
    names = ["item", "title"] if _is_headless(titles) else None
    columns = ["item", "title"] if names else list(columns_of(titles) or [])[:2]
    if len(columns) < 2:
        raise DataToolError(f"{titles} has the column {', '.join(columns)} only; expected are item and title")
    reading.take(
        titles,
        columns,
        lambda block: {"titled": block.frame.select("_file", "_line", _id("item_id", columns[0]), title=columns[1])},
        header=names,
    )
    if "comments" in files:
        names = ["user", "item", "content"]
        reading.take(
            files["comments"],
            names,
            lambda block: {"said": block.frame.with_columns(_id("user"), _id("item"))},
            header=names,
            **_TABS,
        )
    if "counts" in files:
        names = ["item", "likes", "views"]
        problems = reading.stage.problems

        def counted(block: Block) -> dict[str, pl.DataFrame]:
            numbers, sound = numbers_of(block.frame, ["likes", "views"], problems)
            return {"counted": block.frame.with_columns(_id("item"), *numbers).filter(sound)}

        reading.take(files["counts"], names, counted, header=names, **_TABS)


def _is_headless(titles: Path) -> bool:
    """Whether the first row of the titles is one; two columns of a file with a header are called item and title."""
    blocks = read_blocks(titles, ["item"], Problems(), header=["item", "title"], block_bytes=1 << 16)
    first = next(iter(blocks), None)
    return first is not None and str(first.frame["item"][0]).strip().lower() != "item"


def _derive(engine: Engine, work: Conversion) -> None:
    """`.item` with likes and views, `.comment` and `.cinter` with the times of the pairs."""
    if not {"inter", "titled"} <= set(engine.stage.names):  # no row of a file could be read
        work.problems.settle("fail")
    if "counted" in engine.stage.names:
        twice = "SELECT _row FROM counted QUALIFY row_number() OVER (PARTITION BY item ORDER BY _row) > 1"
        engine.fault("counted", twice, "second row of a video's likes and views", ["item"])
        strange = "SELECT _row FROM counted WHERE item NOT IN (SELECT item_id FROM titled)"
        engine.fault("counted", strange, "likes and views of a video without a title", ["item"])
        engine.derive(
            "item",
            "SELECT t.*, c.likes, c.views FROM titled t LEFT JOIN counted c ON c.item = t.item_id ORDER BY t._row",
            lambda rows: rows.drop("_row"),
        )
    else:
        engine.derive("item", "SELECT * FROM titled ORDER BY _row", lambda rows: rows.drop("_row"))
    if "said" not in engine.stage.names:
        for suffix in ("comment", "cinter"):
            engine.stage.add_empty(suffix)
            engine.register(suffix)
        return
    engine.run(
        "CREATE TABLE pair AS SELECT user_id, item_id, timestamp,"
        " row_number() OVER (PARTITION BY user_id, item_id ORDER BY timestamp, _row) AS nth,"
        " count(*) OVER (PARTITION BY user_id, item_id) AS rows FROM inter"
    )
    engine.run(
        'CREATE TABLE remark AS SELECT *, "user" AS user_id, item AS item_id,'
        ' row_number() OVER (PARTITION BY "user", item ORDER BY _row) AS nth FROM said'
    )
    alone = "SELECT _row FROM remark ANTI JOIN pair USING (user_id, item_id)"
    engine.fault("said", alone, "comment whose user and video are no row of the pairs", ["user", "item"])
    engine.run(
        "CREATE TABLE placed AS"
        " SELECT 'c' || (r._row + 1) AS comment_id, r.user_id, r.item_id, p.timestamp, r.content, r._file, r._line"
        " FROM remark r JOIN pair p ON p.user_id = r.user_id AND p.item_id = r.item_id AND p.nth = least(r.nth, p.rows)"
        " ORDER BY r._row"
    )
    engine.derive("comment", "SELECT * FROM placed ORDER BY rowid")
    columns = "comment_id, user_id, item_id, timestamp, _file, _line"
    engine.derive("cinter", f"SELECT {columns} FROM placed ORDER BY rowid")


def _id(name: str, column: str | None = None) -> pl.Expr:
    """A raw column of ids under a name, without the blanks around them."""
    return pl.col(name if column is None else column).str.strip_chars().alias(name)
