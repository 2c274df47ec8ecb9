"""The steps that every source shares: rules of rows and keys, repeated pairs, k-core, order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_tools.check import check
from dataset_tools.convert import Options, conversion
from dataset_tools.engine import Engine
from dataset_tools.errors import DataToolError
from dataset_tools.schema import read_atomic
from dataset_tools.stage import Stage


def placed(rows: dict[str, Any]) -> pl.DataFrame:
    height = len(next(iter(rows.values())))
    return pl.DataFrame({**rows, "_file": [0] * height, "_line": list(range(1, height + 1))})


def raw() -> dict[str, pl.DataFrame]:
    """Two users, three videos, two comments; numbers as text, as raw logs have them."""
    times = ["1500000300", "1500000100", "1500000200"]
    return {
        "inter": placed({"user_id": ["a", "a", "b"], "item_id": ["1", "1", "2"], "timestamp": times}),
        "item": placed({"item_id": ["1", "2", "3"], "title": ["One", "Two", "Three"]}),
        "cinter": placed({"user_id": ["b"], "comment_id": ["c"], "item_id": ["1"], "timestamp": ["1500000400"]}),
        "comment": placed({"comment_id": ["c", "d"], "item_id": ["1", "3"], "content": ["first", ""]}),
    }


def run(tables: dict[str, pl.DataFrame], folder: Path, **options: object) -> dict[str, pl.DataFrame]:
    chosen = Options(**options)  # type: ignore[arg-type]
    with conversion(folder, source="test", files=[], options=chosen, source_options={}) as work:
        work.problems.open_file("raw.csv")
        for suffix, rows in tables.items():
            for block in rows.iter_slices(2):
                work.stage.add(suffix, block)
        work.finish()
    assert check(folder) == []
    return {suffix: read_atomic(folder / f"{folder.name}.{suffix}") for suffix in tables}


def test_rows_are_in_the_order_of_time_and_the_first_of_a_pair_stays(tmp_path: Path) -> None:
    assert run(raw(), tmp_path / "x")["inter"].rows() == [("a", "1", 1500000100.0), ("b", "2", 1500000200.0)]
    every = run(raw(), tmp_path / "y", repeat="all")["inter"]
    assert every["timestamp"].to_list() == [1500000100.0, 1500000200.0, 1500000300.0]


def test_equal_times_keep_the_order_of_the_source(tmp_path: Path) -> None:
    rows = {"user_id": list("aabb"), "item_id": list("1221"), "timestamp": ["1500000000"] * 4, "n": [1, 2, 3, 4]}
    tables = {**raw(), "inter": placed({name: [*values, values[0]] for name, values in rows.items()})}
    assert run(tables, tmp_path / "x")["inter"]["n"].to_list() == [1.0, 2.0, 3.0, 4.0]


def replace(suffix: str, column: str, value: object) -> dict[str, pl.DataFrame]:
    """The raw tables with another value in the first row of a column."""
    tables = raw()
    values = tables[suffix][column].to_list()
    tables[suffix] = tables[suffix].with_columns(pl.Series(column, [value, *values[1:]]))
    return tables


FAULTS = [
    ("inter", "timestamp", "soon", "malformed number in .inter (line 1: timestamp='soon')"),
    ("inter", "timestamp", "", "malformed number in .inter"),
    ("inter", "timestamp", "inf", "malformed number in .inter"),
    ("inter", "timestamp", "1500000300000", "timestamp in milli- or microseconds, seconds expected, in .inter"),
    ("inter", "timestamp", "1500000300000000", "timestamp in milli- or microseconds, seconds expected, in .inter"),
    ("inter", "timestamp", "600000000", "timestamp outside 1990–2100 in .inter"),
    ("inter", "timestamp", "4102444800", "timestamp outside 1990–2100 in .inter"),
    ("inter", "user_id", "NA", "user_id that is empty or read as missing (NA, null …) in .inter"),
    ("inter", "user_id", " ", "user_id that is empty or read as missing (NA, null …) in .inter"),
    ("inter", "user_id", "a\tb", "user_id that is empty or read as missing (NA, null …) in .inter"),
    ("inter", "user_id", "[PAD]", "user_id that is empty or read as missing (NA, null …) in .inter"),
    ("inter", "item_id", "9", "item_id in .inter that .item does not have (line 1: item_id='9')"),
    ("item", "title", "\n\0", "empty title in .item (line 1: item_id='1')"),
    ("item", "item_id", "3", "duplicated item_id in .item (line 3: item_id='3')"),
    ("cinter", "comment_id", "e", "comment_id in .cinter that .comment does not have"),
    ("cinter", "item_id", "2", "item_id in .cinter that is not its comment's (line 1: comment_id='c' item_id='2')"),
    ("comment", "item_id", "9", "item_id in .comment that .item does not have"),
    ("comment", "comment_id", "d", "duplicated comment_id in .comment (line 2: comment_id='d')"),
]


@pytest.mark.parametrize(("suffix", "column", "value", "message"), FAULTS)
def test_every_fault_is_fatal_or_dropped(tmp_path: Path, suffix: str, column: str, value: str, message: str) -> None:
    with pytest.raises(DataToolError) as caught:
        run(replace(suffix, column, value), tmp_path / "x")
    assert f"raw.csv: 1 × {message}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    run(replace(suffix, column, value), tmp_path / "x", on_error="skip")  # `check` finds nothing left
    dropped = json.loads((tmp_path / "x" / "x.meta.json").read_text())["dropped"]
    assert dropped[message.partition(" (line")[0]] == 1


def test_all_faults_are_listed_with_their_totals(tmp_path: Path) -> None:
    tables = raw()
    tables["inter"] = tables["inter"].with_columns(timestamp=pl.lit("x"))
    tables["item"] = tables["item"].with_columns(title=pl.lit(" "))
    with pytest.raises(DataToolError) as caught:
        run(tables, tmp_path / "x")
    assert {violation.kind: violation.count for violation in caught.value.violations} == {
        "malformed number in .inter": 3,
        "empty title in .item": 3,
    }
    assert "line 1: timestamp='x'; line 2" in str(caught.value)


def test_one_fault_is_one_violation(tmp_path: Path) -> None:
    for suffix, column, value in (("comment", "timestamp", "x"), ("item", "upload_time", "x"), ("item", "title", "")):
        tables = raw()
        values = {"timestamp": ["1500000000"] * 2, "upload_time": ["1500000000"] * 3, "title": ["One", "Two", "Three"]}
        tables[suffix] = tables[suffix].with_columns(pl.Series(column, [value, *values[column][1:]]))
        with pytest.raises(DataToolError) as caught:
            run(tables, tmp_path / "x")
        assert [violation.count for violation in caught.value.violations] == [1]


def test_what_refers_to_a_dropped_row_goes_too_and_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parents = ["", "", "d", "e", "c"]
    comment = {"comment_id": list("cdefg"), "item_id": list("13331"), "content": list("vwxyz"), "parent_id": parents}
    tables = {**replace("item", "title", ""), "comment": placed(comment)}
    written = run(tables, tmp_path / "x", on_error="skip")
    assert written["inter"]["item_id"].to_list() == ["2"] and written["cinter"].is_empty()
    assert written["comment"]["comment_id"].to_list() == ["d", "e", "f"]
    assert "2 × row of .inter whose item_id was dropped" in capsys.readouterr().err
    tables["comment"] = tables["comment"].with_columns(item_id=pl.Series(list("19331")))
    written = run(tables, tmp_path / "y", on_error="skip")
    assert written["comment"].is_empty()  # d goes, then its reply e, then e's reply f


def slow_core(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> list[tuple[int, int]]:
    while True:
        users = [user for user, _ in pairs]
        items = [item for _, item in pairs]
        kept = [(u, i) for u, i in pairs if users.count(u) >= min_user and items.count(i) >= min_item]
        if kept == pairs:
            return pairs
        pairs = kept


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=PAIRS, touched=PAIRS, min_user=st.integers(0, 4), min_item=st.integers(0, 4))
def test_k_core_leaves_no_trace_of_what_it_drops(
    tmp_path: Path, pairs: list[tuple[int, int]], touched: list[tuple[int, int]], min_user: int, min_item: int
) -> None:
    ids, times = [str(i) for i in range(8)], [str(1_500_000_000 + i) for i in range(40)]

    def events(rows: list[tuple[int, int]]) -> dict[str, list[str]]:
        return {
            "user_id": [str(u) for u, _ in rows],
            "item_id": [str(i) for _, i in rows],
            "timestamp": times[: len(rows)],
        }

    tables = {
        "inter": events(pairs),
        "item": {"item_id": ids, "title": ids},
        "user": {"user_id": ids},
        "cinter": {**events(touched), "comment_id": [str(i) for _, i in touched]},
        "comment": {"comment_id": ids, "item_id": ids, "content": ids, "user_id": ids[::-1]},
    }
    with Stage(tmp_path / "work", {}) as stage:
        stage.problems.open_file("raw.csv")
        for suffix, rows in tables.items():
            stage.add(suffix, pl.DataFrame(placed(rows), schema_overrides=dict.fromkeys(rows, pl.String)))
        with Engine(stage) as engine:
            engine.number_events()
            engine.k_core(min_user, min_item)
            core = {
                suffix: [row for part in engine.table(suffix).frames() for row in part.rows(named=True)]
                for suffix in tables
            }
    expected = slow_core(pairs, min_user, min_item)

    def left(suffix: str) -> list[tuple[int, int]]:
        return [(int(row["user_id"] or -1), int(row["item_id"])) for row in core[suffix]]

    assert left("inter") == expected
    off = min_user <= 1 and min_item <= 0
    lost_users = set() if off else {u for u, _ in pairs} - {u for u, _ in expected}
    watched, in_core = {i for _, i in pairs}, {i for _, i in expected}
    only_comments = {i for _, i in touched} - watched
    stay = in_core | (only_comments if min_item > 0 else set(range(8)) - watched)
    lost_items = set() if off else set(range(8)) - stay
    assert {int(row["item_id"]) for row in core["item"]} == set(range(8)) - lost_items
    assert {int(row["user_id"]) for row in core["user"]} == set(range(8)) - lost_users
    kept = [(u, i) for u, i in touched if u not in lost_users and i not in lost_items]
    assert left("cinter") == kept
    comments = [(-1 if 7 - i in lost_users else 7 - i, i) for i in range(8) if i not in lost_items]
    assert left("comment") == comments
