"""What needs the whole of a data set, beyond memory: keys, repeated pairs, k-core, order. DuckDB over a stage's parts.

Rows that go are kept as a set of their numbers; no table is rewritten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import polars as pl

from dataset_tools.database import connect
from dataset_tools.problems import SHOWN, Problems
from dataset_tools.schema import ATOMIC_FILES, SUFFIXES
from dataset_tools.stage import Stage

MEMORY_GB = 2.0
_ROWS_PER_BLOCK = 200_000
_POLARS = {"VARCHAR": pl.String, "DOUBLE": pl.Float64, "VARCHAR[]": pl.List(pl.String), "DOUBLE[]": pl.List(pl.Float64)}


class Engine:
    """The staged tables without the rows that were dropped: `inter`, `item` … in SQL, each with `_file`, `_line`, and
    `_row`, its place in the source.

    Args:
        stage: what was read. memory: gigabytes that DuckDB may take before it uses the disk.
    """

    def __init__(self, stage: Stage, *, memory: float = MEMORY_GB) -> None:
        self.stage = stage
        self.problems: Problems = stage.problems
        self._alone = threading.Lock()
        database = stage.folder / "engine.db"
        for path in (database, database.with_name("engine.db.wal")):  # of a run that was stopped
            path.unlink(missing_ok=True)
        self._sql = connect(str(database), memory=memory, spill=stage.folder / "spill")
        self.run("CREATE TABLE anonymous (_row BIGINT)")  # comments whose author is dropped
        self._hidden: set[tuple[str, str]] = set()
        for name in stage.names:
            self.register(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sql.close()

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a statement, from any thread. (Given parameters, DuckDB would import pandas.)"""
        with self._alone:
            return self._sql.execute(sql).fetchall()

    def number(self, sql: str) -> int:
        """The one number that a statement gives."""
        return int(self.run(sql)[0][0] or 0)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The atomic files that there are."""
        return tuple(suffix for suffix in SUFFIXES if suffix in self.stage.names)

    def frames(self, sql: str) -> Iterator[pl.DataFrame]:
        """The rows of a query, in its order, block by block; one block without a row if there is none."""
        file = self.stage.folder / "query.parquet"
        self.run(f"COPY ({sql}) TO '{_quoted(str(file))}' (FORMAT parquet, COMPRESSION lz4)")
        rows = pl.scan_parquet(file, glob=False)
        height = rows.select(pl.len()).collect().item()
        for first in range(0, max(height, 1), _ROWS_PER_BLOCK):
            yield rows.slice(first, _ROWS_PER_BLOCK).collect()
        file.unlink()

    def derive(self, suffix: str, sql: str, change: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> None:
        """Stage the rows of a query, `_file` and `_line` among them, as rows of an atomic file, each block after
        `change`."""
        for rows in self.frames(sql):
            self.stage.add(suffix, change(rows))
        self.register(suffix)

    def hide(self, suffix: str, name: str) -> None:
        """Leave a column out of what is written."""
        self._hidden.add((suffix, name))

    def register(self, suffix: str) -> None:
        """Make a staged table known to SQL."""
        self.run(f"CREATE OR REPLACE TABLE gone_{suffix} (_row BIGINT)")
        self.run(f"CREATE OR REPLACE VIEW raw_{suffix} AS SELECT * FROM {self._scan(suffix, 'part')}")
        self.run(
            f"CREATE OR REPLACE VIEW {suffix} AS SELECT * FROM raw_{suffix}"
            f" WHERE _row NOT IN (SELECT _row FROM gone_{suffix})"
        )
        key = ATOMIC_FILES[suffix].key if suffix in ATOMIC_FILES else None
        if key:
            dropped = (
                f"UNION ALL SELECT id FROM {self._scan(suffix, 'dropped')}"
                if self.stage.parts(suffix, "dropped")
                else ""
            )
            self.run(f"CREATE OR REPLACE VIEW known_{suffix} AS SELECT {key} AS id FROM raw_{suffix} {dropped}")

    def _scan(self, name: str, what: str) -> str:
        files = ", ".join(f"'{_quoted(str(path))}'" for path in self.stage.parts(name, what))
        return f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)"

    # ------------------------------------------------------------------ faults between rows

    def check_keys(self, suffixes: Sequence[str] = SUFFIXES) -> None:
        """Later rows with a key that an earlier one has go, as faults."""
        for suffix in suffixes:
            key = ATOMIC_FILES[suffix].key
            if not key or suffix not in self.suffixes:
                continue
            if self.number(f"SELECT count(*) - count(DISTINCT {key}) FROM {suffix}"):
                later = f"SELECT _row FROM {suffix} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY _row) > 1"
                self.fault(suffix, later, f"duplicated {key} in .{suffix}", [key])

    def check_references(self, suffixes: Sequence[str] = ("comment", "cinter", "inter"), *, cascades: bool) -> None:
        """Rows go, as faults, that refer to a video, comment or user that is not there or to a comment of another
        video. `cascades`: whether rows go, and count, because the row that they refer to went."""
        for suffix in (suffix for suffix in suffixes if suffix in self.suffixes):
            for name, field in ATOMIC_FILES[suffix].fields.items():
                target = field.refers_to
                if target not in self.suffixes or name not in self._columns(suffix):
                    continue
                given = f"SELECT _row, {name} AS id FROM {suffix} WHERE coalesce({name}, '') <> ''"
                lost = f"SELECT _row FROM ({given}) WHERE id NOT IN (SELECT id FROM known_{target})"
                self.fault(suffix, lost, f"{name} in .{suffix} that .{target} does not have", [name])
                key = ATOMIC_FILES[str(target)].key
                lost = f"SELECT _row FROM ({given}) WHERE id NOT IN (SELECT {key} FROM {target})"
                kind = f"row of .{suffix} whose {name} was dropped"
                while cascades and self.fault(suffix, lost, kind, [name]) and target == suffix:
                    continue  # once, but for a comment whose parent's parent was dropped
        if "cinter" in suffixes and {"comment", "cinter"} <= set(self.suffixes):
            other = "SELECT c._row FROM cinter c JOIN comment o USING (comment_id) WHERE c.item_id <> o.item_id"
            kind = "item_id in .cinter that is not its comment's"
            self.fault("cinter", other, kind, ["comment_id", "item_id"])

    def fault(self, suffix: str, sql: str, kind: str, shown: list[str]) -> int:
        """Record the rows of `suffix` that a query gives, and let them go; returns how many there are."""
        self.run(f"CREATE OR REPLACE TEMP TABLE bad AS {sql}")
        total = self.number("SELECT count(*) FROM bad")
        if total:
            rows = f"FROM raw_{suffix} WHERE _row IN (SELECT _row FROM bad)"
            counts = dict(self.run(f"SELECT _file, count(*) {rows} GROUP BY _file ORDER BY _file"))
            first = (
                f"SELECT _file, _line, {', '.join(shown)} {rows}"
                f" QUALIFY row_number() OVER (PARTITION BY _file ORDER BY _row) <= {SHOWN} ORDER BY _row"
            )
            names = ["_file", "_line", *shown]
            self.problems.add_counted(
                kind, counts, pl.DataFrame(self.run(first), schema=names, orient="row", infer_schema_length=None), shown
            )
            self.drop(suffix, "SELECT _row FROM bad")
        return total

    def drop(self, suffix: str, sql: str) -> None:
        """Let the rows of `suffix` go whose `_row` a query gives."""
        self.run(f"INSERT INTO gone_{suffix} {sql}")

    # ------------------------------------------------------------------ choices of the user

    def number_events(self) -> None:
        """Table `event`: the rows of `.inter` in the order of (timestamp, source), users and videos as numbers."""
        for name in ("user", "item"):
            self.run(f"CREATE TABLE number_of_{name} AS SELECT {name}_id AS id FROM inter GROUP BY ALL")
        self.run(
            "CREATE TABLE event AS SELECT u.rowid AS u, i.rowid AS i, _row FROM inter"
            " JOIN number_of_user u ON user_id = u.id JOIN number_of_item i ON item_id = i.id ORDER BY timestamp, _row"
        )

    def drop_repeats(self) -> None:
        """The first row, by (timestamp, source order), of every (user, video) pair stays."""
        self.run("CREATE TABLE first AS SELECT min(rowid) AS place FROM event GROUP BY u, i")
        self.drop("inter", "SELECT _row FROM event WHERE rowid NOT IN (SELECT place FROM first)")
        self.run("CREATE TABLE once AS SELECT u, i, _row FROM event WHERE rowid IN (SELECT place FROM first)")
        self.run("DROP TABLE event")
        self.run("ALTER TABLE once RENAME TO event")
        self.run("DROP TABLE first")

    def k_core(self, min_user: int, min_item: int) -> dict[str, int]:
        """Drop users and videos with too few rows of `.inter` until none is left; counts rounds and what went.

        What is dropped leaves every file. A video that has comment interactions only, and a user who has them only, are
        not counted and stay; a video with no interaction of either kind is dropped when `min_item` is above 0. A
        comment whose author is dropped stays as the video's text, without its author.
        """
        if min_user <= 1 and min_item <= 0:
            return {}
        rounds, size = 0, self.number("SELECT count(*) FROM event")
        core = "event"
        while True:
            kept = core
            for name, least in (("u", min_user), ("i", min_item)):
                if least > 1:
                    enough = f"SELECT {name} FROM {kept} GROUP BY {name} HAVING count(*) >= {least}"
                    self.run(
                        f"CREATE OR REPLACE TEMP TABLE next_{name} AS SELECT * FROM {kept} WHERE {name} IN ({enough})"
                    )
                    kept = f"next_{name}"
            left = self.number(f"SELECT count(*) FROM {kept}")
            if left == size:
                break
            size, rounds, former, core = left, rounds + 1, core, f"core_{rounds + 1}"
            self.run(f"CREATE TABLE {core} AS SELECT * FROM {kept}")
            if former != "event":
                self.run(f"DROP TABLE {former}")
        self.run(f"CREATE TEMP TABLE core_user AS SELECT DISTINCT u FROM {core}")
        self.run(f"CREATE TEMP TABLE core_item AS SELECT DISTINCT i FROM {core}")
        self.run("CREATE TABLE lost_user AS SELECT id FROM number_of_user WHERE rowid NOT IN (SELECT u FROM core_user)")
        others = "cinter" if min_item > 0 else "item"
        self.run(
            "CREATE TABLE lost_item AS SELECT item_id AS id FROM item"
            " WHERE item_id NOT IN (SELECT id FROM number_of_item WHERE rowid IN (SELECT i FROM core_item))"
            f" AND item_id NOT IN (SELECT item_id FROM {others} WHERE item_id NOT IN (SELECT id FROM number_of_item))"
        )
        self.drop("inter", f"SELECT _row FROM event WHERE _row NOT IN (SELECT _row FROM {core})")
        for suffix in ("item", "cinter", "comment"):
            self.drop(suffix, f"SELECT _row FROM {suffix} WHERE item_id IN (SELECT id FROM lost_item)")
        for suffix in ("user", "cinter"):
            if suffix in self.suffixes:
                self.drop(suffix, f"SELECT _row FROM {suffix} WHERE user_id IN (SELECT id FROM lost_user)")
        if "user_id" in self._columns("comment"):
            self.run("INSERT INTO anonymous SELECT _row FROM comment WHERE user_id IN (SELECT id FROM lost_user)")
        lost = [self.number(f"SELECT count(*) FROM lost_{name}") for name in ("user", "item")]
        return {"rounds": rounds, "users_dropped": lost[0], "videos_dropped": lost[1]}

    # ------------------------------------------------------------------ what is written

    def table(self, suffix: str) -> StoredTable:
        """The rows of an atomic file as they are to stand in it: `.inter` and `.cinter` by time."""
        return StoredTable(self, suffix)

    def _columns(self, suffix: str) -> dict[str, str]:
        return {name: kind for name, kind, *_ in self.run(f"DESCRIBE raw_{suffix}")}


class StoredTable:
    """The rows of one atomic file that stayed (a `writer.Table`)."""

    def __init__(self, engine: Engine, suffix: str) -> None:
        self.engine, self.suffix = engine, suffix

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Columns and their Polars types."""
        columns = self.engine._columns(self.suffix)
        hidden = {name for suffix, name in self.engine._hidden if suffix == self.suffix}
        return {name: _POLARS[kind] for name, kind in columns.items() if name[0] != "_" and name not in hidden}

    @cached_property
    def height(self) -> int:
        """Rows."""
        return self.engine.number(f"SELECT count(*) FROM {self.suffix}")

    @cached_property
    def normal(self) -> frozenset[str]:
        """The text columns that the contract knows: the stage has normalised them."""
        known = ATOMIC_FILES[self.suffix].fields
        return frozenset(name for name, dtype in self.schema.items() if name in known and dtype == pl.String)

    @cached_property
    def whole(self) -> frozenset[str]:
        """Numeric columns that hold whole numbers below 2^53 only."""
        names = [name for name, dtype in self.schema.items() if dtype == pl.Float64]
        if not names:
            return frozenset()
        tests = ", ".join(f"bool_and({_name(n)} = round({_name(n)}) AND abs({_name(n)}) < 2 ** 53)" for n in names)
        (found,) = self.engine.run(f"SELECT {tests} FROM {self.suffix}")
        return frozenset(name for name, good in zip(names, found, strict=True) if good is not False)

    def n_unique(self, name: str) -> int:
        """How many different values a column has."""
        return self.engine.number(f"SELECT count(DISTINCT {_name(name)}) FROM {self.suffix}")

    def bounds(self, name: str) -> tuple[float | None, float | None]:
        """The least and the greatest value of a column."""
        ((low, high),) = self.engine.run(f"SELECT min({_name(name)}), max({_name(name)}) FROM {self.suffix}")
        return low, high

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows, block by block."""
        if self.suffix in ("inter", "cinter"):
            columns = ", ".join(_name(name) for name in self.schema)
            yield from self.engine.frames(f"SELECT {columns} FROM {self.suffix} ORDER BY timestamp, _row")
            return
        for part in self.engine.stage.parts(self.suffix):
            yield from self._completed(pl.read_parquet(part, glob=False)).iter_slices(_ROWS_PER_BLOCK)

    def _completed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of a part that stayed, with every column of the table."""
        if rows.height:
            gone = self._numbers(f"gone_{self.suffix}", rows)
            rows = rows.filter(~pl.col("_row").is_in(gone.implode()))
        if rows.height and self.suffix == "comment" and "user_id" in rows.columns:
            hidden = self._numbers("anonymous", rows)
            author = pl.when(pl.col("_row").is_in(hidden.implode())).then(pl.lit("")).otherwise("user_id")
            rows = rows.with_columns(author.alias("user_id"))
        missing = [pl.lit(None, dtype).alias(name) for name, dtype in self.schema.items() if name not in rows.columns]
        return rows.with_columns(missing).select(list(self.schema))

    def _numbers(self, table: str, rows: pl.DataFrame) -> pl.Series:
        first, last = int(rows["_row"][0]), int(rows["_row"][-1])
        found = self.engine.run(f"SELECT _row FROM {table} WHERE _row BETWEEN {first} AND {last}")
        return pl.Series([row for (row,) in found], dtype=pl.Int64)


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return text.replace("'", "''")
