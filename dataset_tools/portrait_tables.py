"""The atomic files of a data set as DuckDB tables on disk, with ids as numbers, for counting what is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from tqdm import tqdm

from dataset_tools.errors import DataToolError
from dataset_tools.schema import ATOMIC_FILES, SUFFIXES, TIME_RANGE, read_atomic, read_fields, read_header

MEMORY_GB = 1.5
_TEXTS_PER_BLOCK = 20_000
_ADVICE = "find such rows with `lsvcr-data check`"
_COLUMNS = {
    "inter": ("user_id", "item_id", "timestamp"),
    "item": ("item_id", "title"),
    "cinter": ("user_id", "comment_id", "item_id", "timestamp"),
    "comment": ("comment_id", "item_id", "content", "parent_id", "timestamp"),
}
# What a column of text becomes in a table.
_VALUES = {
    "timestamp": "number_of(timestamp) AS t",
    "content": "hash(content) AS text, length(content) AS length",
    "parent_id": "parent_id <> '' AS reply",
}
# A text as `schema.parse_float` takes it, but NaN where it is no finite number.
_NUMBER_OF = """
CREATE MACRO number_of(x) AS CASE
    WHEN x = '' THEN NULL
    WHEN regexp_matches(x, '[_\\s]') THEN 'nan'::DOUBLE
    WHEN isfinite(TRY_CAST(x AS DOUBLE)) THEN TRY_CAST(x AS DOUBLE)
    ELSE 'nan'::DOUBLE END
"""


def find_files(folder: Path) -> dict[str, Path]:
    """The atomic files of a data set by suffix; `DataToolError` if it is none or one is missing or cut short.

    `.cinter` and `.comment` may be missing together, if the meta file does not name them.
    """
    if not folder.is_dir():
        raise DataToolError(f"{folder} is not a folder; give the folder of a data set")
    name = folder.resolve().name
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in SUFFIXES}
    files = {suffix: path for suffix, path in paths.items() if path.is_file()}
    needed = {"inter", "item", *(suffix for suffix in read_meta(folder)["rows"] if suffix in paths)}
    needed |= {"cinter", "comment"} & set(files) and {"cinter", "comment"}
    for suffix in (suffix for suffix in SUFFIXES if suffix in needed and suffix not in files):
        raise DataToolError(
            f"{paths[suffix]} is missing; a data set is a folder <name> with <name>.inter, .item and, for comments,"
            " .cinter and .comment (make one with `lsvcr-data --help`)"
        )
    for path in files.values():
        read_header(path)
        with open(path, "rb") as handle:
            handle.seek(-1, os.SEEK_END)
            if handle.read(1) != b"\n":
                raise DataToolError(f"{path}: the last line has no line break; is the file cut short?")
    return files


def read_meta(folder: Path) -> dict[str, Any]:
    """What the meta file says, with `rows` by suffix; nothing where there is no file that can be read."""
    try:
        meta = json.loads((folder / f"{folder.resolve().name}.meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        meta = None
    meta = meta if isinstance(meta, dict) else {}
    rows = meta.get("rows")
    return {**meta, "rows": rows if isinstance(rows, dict) else {}}


class AtomicTables:
    """A data set folder in SQL. `u`, `i`, `c` number the users, videos and comments, `t` is the time in Unix seconds.

    `person` (user_id); `item` (item_id, title); `comment` (comment_id, i, reply, text: a hash, length, t or NULL);
    `inter` (u, i, t); `cinter` (u, c, i, t), each (user, comment, time) once. What they hold is what
    `schema.read_atomic` reads.

    Args:
        sql: an empty database. files: from `find_files`. work: a folder for what does not fit into memory.

    Raises:
        DataToolError: a malformed file, a duplicated id, one that leads nowhere, a time that is none.
    """

    def __init__(self, sql: duckdb.DuckDBPyConnection, files: dict[str, Path], work: Path) -> None:
        self._sql, self._files = sql, files
        self._contents = work / "comment.parquet"
        self.run(_NUMBER_OF)
        self.rows = {suffix: self._read(suffix) for suffix in tqdm(files, desc="reading", disable=None)}
        self._number_ids()

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return self._sql.execute(statement, parameters).fetchall()

    def counts(self, statement: str, *parameters: object) -> tuple[int, ...]:
        """The one row of whole numbers that a statement gives, nulls as 0."""
        return tuple(int(value or 0) for value in self.run(statement, *parameters)[0])

    def number(self, statement: str, *parameters: object) -> int:
        """The one whole number that a statement gives."""
        return self.counts(statement, *parameters)[0]

    def texts(self, suffix: str) -> Iterator[pl.Series]:
        """All titles (`item`) or contents (`comment`), block by block."""
        if suffix not in self._files:
            return
        path = self._contents
        if suffix == "item":
            path = path.with_name("title.parquet")
            self.run(f"COPY (SELECT title FROM item) TO {_literal(path)} (FORMAT parquet, COMPRESSION lz4)")
        texts = pl.scan_parquet(path, glob=False).select("title" if suffix == "item" else "content")
        for first in range(0, self.rows[suffix], _TEXTS_PER_BLOCK):
            yield texts.slice(first, _TEXTS_PER_BLOCK).collect().to_series()

    # ------------------------------------------------------------------ reading

    def _read(self, suffix: str) -> int:
        """Make the table `raw_<suffix>`, ids as they stand in the file; returns its rows."""
        path = self._files[suffix]
        header = read_header(path)
        try:
            if suffix == "user":  # nothing in it counts
                self.run(f"CREATE TABLE raw_user AS SELECT c0 FROM {_scan(path, len(header))}")
            else:
                self._make_table(suffix, path, list(header))
        except duckdb.Error as error:
            read_fields(path, list(header)[:1])  # says which line is bad
            raise DataToolError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
        height = self.number(f"SELECT count(*) FROM raw_{suffix}")
        if height + 1 != _count_lines(path):
            read_fields(path, list(header)[:1])
            raise DataToolError(f"{path} has lines that are no rows; {_ADVICE}")
        return height

    def _make_table(self, suffix: str, path: Path, header: list[str]) -> None:
        names, fields = _COLUMNS[suffix], ATOMIC_FILES[suffix].fields
        lacking = [name for name in names if name not in header and fields[name].required]
        if lacking:
            raise DataToolError(f"{path} has no column {', '.join(lacking)}; it has {', '.join(header)}")
        texts = [f"coalesce(c{header.index(name)}, '')" if name in header else "''" for name in names]
        selected = ", ".join(f"{text} AS {name}" for text, name in zip(texts, names, strict=True))
        rows = f"(SELECT {selected} FROM {_scan(path, len(header))})"
        if suffix == "comment":  # its texts are read a second time, by `texts`
            self.run(f"COPY {rows} TO {_literal(self._contents)} (FORMAT parquet, COMPRESSION lz4)")
            rows = f"read_parquet({_literal(self._contents)}, hive_partitioning = false)"
        columns = ", ".join(_VALUES.get(name, name) for name in names)
        self.run(f"CREATE TABLE raw_{suffix} AS SELECT {columns} FROM {rows}")
        for name in (name for name in names if fields[name].required and fields[name].type == "token"):
            self._refuse(suffix, f"SELECT count(*) FROM raw_{suffix} WHERE {name} = ''", f"have no {name}")
        if "timestamp" in names:
            self._check_times(suffix)

    def _check_times(self, suffix: str) -> None:
        if self.number(f"SELECT count(*) FROM raw_{suffix} WHERE isnan(t)"):
            read_atomic(self._files[suffix], ["timestamp"])  # says which line is bad
        low, high = TIME_RANGE
        outside = f"SELECT count(*) FROM raw_{suffix} WHERE NOT (t >= {low} AND t < {high})"
        self._refuse(suffix, outside, "have a timestamp outside 1990–2100 (seconds are expected, no milliseconds)")
        if ATOMIC_FILES[suffix].fields["timestamp"].required:
            self._refuse(suffix, f"SELECT count(*) FROM raw_{suffix} WHERE t IS NULL", "have no timestamp")

    # ------------------------------------------------------------------ ids as numbers

    def _number_ids(self) -> None:
        comments = "comment" in self._files
        if not comments:
            self.run("CREATE TABLE raw_cinter (user_id VARCHAR, comment_id VARCHAR, item_id VARCHAR, t DOUBLE)")
            self.run(
                "CREATE TABLE raw_comment"
                " (comment_id VARCHAR, item_id VARCHAR, text UBIGINT, length BIGINT, reply BOOLEAN, t DOUBLE)"
            )
        self.run("CREATE TABLE person AS SELECT user_id FROM raw_inter UNION SELECT user_id FROM raw_cinter")
        self.run("ALTER TABLE raw_item RENAME TO item")
        self.run(
            "CREATE TABLE comment AS SELECT comment_id, i.rowid::INTEGER AS i, reply, text, length, t"
            " FROM raw_comment LEFT JOIN item i USING (item_id)"
        )
        self.run(
            "CREATE TABLE inter AS SELECT u.rowid::INTEGER AS u, i.rowid::INTEGER AS i, t"
            " FROM raw_inter JOIN person u USING (user_id) LEFT JOIN item i USING (item_id)"
        )
        self.run(
            "CREATE TABLE cinter AS"
            " SELECT DISTINCT u.rowid::INTEGER AS u, c.rowid::INTEGER AS c, c.i AS i, e.t AS t, i.rowid AS named"
            " FROM raw_cinter e JOIN person u USING (user_id) LEFT JOIN comment c USING (comment_id)"
            " LEFT JOIN item i ON i.item_id = e.item_id"
        )
        for suffix in ("item", "comment") if comments else ("item",):
            key = ATOMIC_FILES[suffix].key
            repeated = f"SELECT count(*) - count(DISTINCT {key}) FROM {suffix}"
            self._refuse(suffix, repeated, f"repeat the {key} of another one")
        lost = "name a video that .item does not have"
        self._refuse("inter", "SELECT count(*) FROM inter WHERE i IS NULL", lost)
        if comments:
            self._refuse("comment", "SELECT count(*) FROM comment WHERE i IS NULL", lost)
            lost = "name a comment that .comment does not have"
            self._refuse("cinter", "SELECT count(*) FROM cinter WHERE c IS NULL", lost)
            stray = "SELECT count(*) FROM cinter WHERE named IS DISTINCT FROM i"
            self._refuse("cinter", stray, "name another video than their comment does")
        self.run("ALTER TABLE cinter DROP named")
        for suffix in ("inter", "cinter", "comment"):
            self.run(f"DROP TABLE raw_{suffix}")

    def _refuse(self, suffix: str, count: str, what: str) -> None:
        """Raise if a query counts any rows of which `what` holds."""
        if rows := self.number(count):
            raise DataToolError(f"{self._files[suffix]}: {rows:,} {'row' if rows == 1 else 'rows'}: {what}; {_ADVICE}")


def _scan(path: Path, width: int) -> str:
    """The rows of an atomic file as texts `c0`, `c1` …, null where empty, in SQL."""
    columns = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(width))
    return (
        f"read_csv({_literal(path)}, auto_detect = false, columns = {{{columns}}}, delim = '\t', quote = '\"',"
        " escape = '\"', header = true, strict_mode = true, null_padding = false, comment = '')"
    )


def _literal(path: Path) -> str:
    text = str(path).replace("'", "''")
    return f"'{text}'"


def _count_lines(path: Path) -> int:
    lines = 0
    with open(path, "rb") as handle:
        while block := handle.read(1 << 24):
            lines += block.count(b"\n")
    return lines
