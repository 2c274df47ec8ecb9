"""Atomic files: what is written comes back, whatever the text; what is broken is named with file and line."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataset_tools import writer
from dataset_tools.check import check
from dataset_tools.errors import DataToolError
from dataset_tools.schema import read_atomic
from dataset_tools.text import LOST_IDS, replace_surrogates
from dataset_tools.writer import write_dataset

ANY_TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from('\t\n\r\0" \u2028\u00a0,;'))


def tiny(**replaced: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The tables of a sound data set of two videos and two comments."""
    tables = {
        "inter": pl.DataFrame({"user_id": ["a", "b"], "item_id": ["1", "2"], "timestamp": [1.5e9, 1.6e9]}),
        "item": pl.DataFrame({"item_id": ["1", "2"], "title": ["One", "Two"]}),
        "cinter": pl.DataFrame({"user_id": ["a"], "comment_id": ["c"], "item_id": ["1"], "timestamp": [1.5e9]}),
        "comment": pl.DataFrame({"comment_id": ["c", "d"], "item_id": ["1", "1"], "content": ["first", "second"]}),
    }
    return {**tables, **replaced}


def slow_normalise(text: str) -> str:
    """The rule of the format, character by character."""
    text = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    out = ""
    for c in text:
        blank = c.isspace() or ord(c) < 32 or 127 <= ord(c) < 160
        out += " " if blank and not out.endswith(" ") else "" if blank else c
    return out.strip(" ")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=8))
@example(
    texts=['"', '""', 'a "b" c', "NA", "null", "None", "nan", "#N/A", "", " ", "\ufeff", "\u200d\u200f", "#x", "\ud800"]
)
@example(texts=["e\u0301", "\U0001f468\u200d\U0001f469", "a\x1cb\x85c\u2029d\u3000e"])
def test_any_text_comes_back_exactly(tmp_path: Path, texts: list[str]) -> None:
    content = [replace_surrogates(text) for text in texts]
    ids = [f"c{i}" for i in range(len(texts))]
    comment = pl.DataFrame({"comment_id": ids, "item_id": ["1"] * len(texts), "content": content})
    cinter = tiny()["cinter"].with_columns(comment_id=pl.lit("c0"))
    write_dataset(tmp_path / "x", tiny(comment=comment, cinter=cinter), meta={})
    back = read_atomic(tmp_path / "x" / "x.comment")
    assert back["content"].to_list() == [slow_normalise(text) for text in texts]
    assert back["comment_id"].to_list() == ids
    assert check(tmp_path / "x") == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_number_comes_back_exactly(tmp_path: Path, numbers: list[float | None]) -> None:
    ids = [str(i) for i in range(len(numbers))]
    item = pl.DataFrame({"item_id": ids, "title": ids, "score": pl.Series(numbers, dtype=pl.Float64)})
    write_dataset(tmp_path / "x", tiny(item=item), meta={})
    assert read_atomic(tmp_path / "x" / "x.item")["score"].to_list() == numbers


def test_columns_are_typed_selected_and_ordered(tmp_path: Path) -> None:
    item = pl.DataFrame({"title": ["t"], "more": [True], "item_id": ["1"], "vector": [[1.5, 2.0]], "_line": [7]})
    write_dataset(tmp_path / "x", tiny(item=item), meta={})
    path = tmp_path / "x" / "x.item"
    assert path.read_text().splitlines()[0] == "item_id:token\ttitle:token_seq\tmore:float\tvector:float_seq"
    frame = read_atomic(path, ["more", "item_id"])
    assert frame.columns == ["more", "item_id"] and frame.rows() == [(1.0, "1")]
    assert read_atomic(path)["vector"].to_list() == ["1.5 2.0"]
    with pytest.raises(DataToolError, match="no column colour; it has item_id, title"):
        read_atomic(path, ["colour"])


HEADER = b"item_id:token\ttitle:token_seq\tduration:float\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"item_id\ttitle:token_seq\n", "line 1: column 'item_id'"),
        (b"item_id:token\titem_id:token\n", "line 1: column 'item_id:token'"),
        (b"item_id:text\n", "line 1: column 'item_id:text'"),
        (b"\xff\n", "line 1: not UTF-8"),
        (HEADER + b"1\tone\t1\n2\ttwo\n", "line 3: 2 fields, the header has 3"),
        (HEADER + b"1\tone\n2\ttwo\t2\t2\n", "line 2: 2 fields, the header has 3"),
        (HEADER + b'1\t"one\t1\n2\ttwo\t2\n', "line 2: a quote is not closed"),
        (HEADER + b'1\t"o"ne"\t1\n2\ttwo\t2\n', "line 2: a quote is not closed"),
        (HEADER + b'1\t"two\nlines"\t1\n', "line 2: a quote is not closed"),
        (HEADER + b"1\tone\t1\n2\t\xe9\t2\n", "line 3: not UTF-8"),
        (HEADER + b"1\tone\t1\n2\ttwo\tmany\n3\t3\tinf\n", "line 3: duration is 'many', .* [(]2 such values[)]"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.item"
    path.write_bytes(content)
    with pytest.raises(DataToolError, match=message) as caught:
        read_atomic(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataToolError, match=r"cannot read .*x.item: No such file"):
        read_atomic(tmp_path / "x.item")


def test_a_missing_column_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataToolError, match="item needs the column title"):
        write_dataset(tmp_path / "x", tiny(item=pl.DataFrame({"item_id": ["1"]})), meta={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_nothing_is_left_behind_and_the_old_data_set_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    folder = tmp_path / "x"
    write_dataset(folder, tiny(), meta={"source": "old"})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(writer, "write_json", fail)
    with pytest.raises((DataToolError, KeyboardInterrupt)) as caught:
        write_dataset(folder, tiny(), meta={"source": "new"})
    if isinstance(failure, OSError):
        assert str(caught.value) == f"cannot write {folder}: No space left on device; nothing was written"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_data_set_replaces_an_older_one_but_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_dataset(folder, tiny(), meta={}, extra={"stale.txt": Path.touch})
    for name in ("x.html", "x.kg", "x.link"):  # called like the data set, and the user's all the same
        (folder / name).write_text("mine")
    write_dataset(folder, tiny(), meta={})
    assert not (folder / "x.stale.txt").exists()
    assert all((folder / name).read_text() == "mine" for name in ("x.html", "x.kg", "x.link"))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataToolError, match=re.escape("not a data set (notes.txt …)")):
        write_dataset(folder, tiny(), meta={})
    write_dataset(folder, tiny(), meta={}, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert check(folder) == [] and list(tmp_path.iterdir()) == [folder]
    with pytest.raises(DataToolError, match="is a file"):
        write_dataset(folder / "notes.txt", tiny(), meta={}, overwrite=True)


def test_lost_ids_are_those_that_pandas_takes_for_missing() -> None:
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert set(parsers.STR_NA_VALUES) - {""} == LOST_IDS - {"[PAD]"}


def test_stock_recbole_loads_a_folder_and_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("recbole.config")
    data = pytest.importorskip("recbole.data")
    utils = pytest.importorskip("recbole.utils")
    titles = ['say "hi"', "007 #1 's", "日本語 \u200f→ 👩‍👩‍👧", "a\tb\nc", '"', "plain"]
    items = [f"v{i}" for i in range(6)]
    item = pl.DataFrame({"item_id": items, "title": titles, "tags": [["x y", "z"], ["x"], [], [], [], []]})
    rows = [(f"u{u}", items[(u + i) % 6], 1.6e9 + 1e5 * i + u) for i in range(5) for u in range(8)]
    inter = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    cinter = pl.DataFrame({"user_id": ["u0"], "comment_id": ["c"], "item_id": ["v1"], "timestamp": [1.6e9]})
    comment = pl.DataFrame({"comment_id": ["c"], "item_id": ["v1"], "content": ["null"]})
    write_dataset(tmp_path / "x", {"inter": inter, "item": item, "cinter": cinter, "comment": comment}, meta={})
    monkeypatch.setattr("sys.argv", ["test"])
    settings = config.Config(
        model="SASRec",
        dataset="x",
        config_file_list=[str(tmp_path / "x" / "x.yaml")],
        config_dict={"data_path": str(tmp_path), "use_gpu": False, "train_batch_size": 8},
    )
    dataset = data.create_dataset(settings)
    words = dataset.field2id_token["title"]
    loaded = {
        dataset.field2id_token["item_id"][row]: " ".join(words[i] for i in dataset.item_feat["title"][row] if i)
        for row in range(1, dataset.item_num)
    }
    assert loaded == dict(zip(items, [slow_normalise(title) for title in titles], strict=True))
    train, _, _ = data.data_preparation(settings, dataset)
    model = utils.get_model("SASRec")(settings, train.dataset)
    assert model.calculate_loss(next(iter(train))).isfinite()
