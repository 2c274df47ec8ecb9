"""Loading a data set: every value arrives, ids are stable, and each thing that is wrong has one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import START

from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import DataError


def _file(header: str, *rows: str) -> str:
    """Atomic-file text; columns are separated by `|` here."""
    return "".join(line.replace("|", "\t") + "\n" for line in (header, *rows))


FILES = {
    "inter": _file(
        "user_id:token|item_id:token|timestamp:float|like:float", "bob|v2|1000|1", "ann|v1|1500.25|1", "bob|v1|1500.25|"
    ),
    "item": _file(
        "item_id:token|title:token_seq|tags:token_seq|upload_time:float",
        "v1|NA|fun|1400",
        'v2|"say ""hi"""||',
        "v3|||",
    ),
    "cinter": _file(
        "user_id:token|comment_id:token|item_id:token|timestamp:float|like:float|reply:float", "cid|c2|v1|1700|1|0"
    ),
    "comment": _file(
        "comment_id:token|item_id:token|content:token_seq|user_id:token|parent_id:token|timestamp:float",
        "c1|v2|猫 \U0001f408|ann||1100",
        "c2|v1|null|zoe||",
        "c3|v1|re|bob|c2|1600",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    path.mkdir()
    for suffix, text in FILES.items():
        (path / f"tiny.{suffix}").write_text(text, encoding="utf-8")
    return path


def test_every_value_arrives_under_its_id(folder: Path):
    tables = Tables.load(folder)
    assert tables.name == "tiny"
    assert tables.items.to_list() == ["[PAD]", "v1", "v2", "v3"]
    assert tables.comments.to_list() == ["[PAD]", "c1", "c2", "c3"]
    assert tables.users.to_list() == ["[PAD]", "bob", "ann", "cid"]  # first appearance in .inter, then in .cinter
    assert tables.titles.to_list() == ["", "NA", 'say "hi"', ""]
    assert tables.contents.to_list() == ["", "猫 \U0001f408", "null", "re"]
    assert tables.tags is not None and tables.tags.to_list() == ["", "fun", "", ""]
    assert tables.inter_user.tolist() == [1, 2, 1] and tables.inter_item.tolist() == [2, 1, 1]
    assert tables.inter_time.tolist() == [1000.0, 1500.25, 1500.25]
    assert (
        tables.cinter_user.tolist() == [3]
        and tables.cinter_comment.tolist() == [2]
        and tables.cinter_item.tolist() == [1]
    )
    assert tables.comment_item.tolist() == [0, 2, 1, 1]
    assert tables.comment_user.tolist() == [0, 2, 0, 1]  # zoe has no interactions
    assert tables.comment_time.tolist() == [-np.inf, 1100, -np.inf, 1600]
    assert tables.comment_is_reply.tolist() == [False, False, False, True]
    assert tables.item_time.tolist() == [-np.inf, 1400, 1000, -np.inf]  # uploaded; first seen; neither is known


def test_a_video_seen_before_its_upload_time_was_there_when_it_was_seen():
    items = {"v": {"upload_time": START + 10}, "w": {}}
    comments = {"c": {"item_id": "w"}}
    tables = Tables.from_arrays(
        inter=[("u", "v", START)], cinter=[("u", "c", START + 3)], items=items, comments=comments
    )
    assert tables.item_time.tolist() == [-np.inf, START, START + 3]


def test_events_are_sorted_by_time_and_equal_times_stay_in_file_order(folder: Path):
    rows = [("b", "v3", 5.0), ("a", "v1", 3.0), ("a", "v2", 5.0), ("a", "v3", 3.0)]
    lines = "".join(f"{u}\t{v}\t{t}\n" for u, v, t in rows)
    (folder / "tiny.inter").write_text(f"user_id:token\titem_id:token\ttimestamp:float\n{lines}")
    tables = Tables.load(folder)
    assert tables.inter_item.tolist() == [1, 3, 3, 2]


def test_comments_are_optional_but_not_the_half_of_them(folder: Path):
    (folder / "tiny.cinter").unlink()
    assert len(Tables.load(folder).cinter_time) == 0
    (folder / "tiny.comment").unlink()
    tables = Tables.load(folder)
    assert tables.comments.to_list() == ["[PAD]"] and len(tables.comment_time) == 1
    (folder / "tiny.cinter").write_text(FILES["cinter"])
    with pytest.raises(DataError, match=r"tiny\.cinter is there but tiny\.comment is not"):
        Tables.load(folder)


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(folder: Path, tmp_path: Path):
    first = Tables.load(folder).fingerprint
    moved = tmp_path / "elsewhere" / "tiny"
    moved.parent.mkdir()
    folder.rename(moved)
    assert Tables.load(moved).fingerprint == first
    path = moved / "tiny.item"
    path.write_text(path.read_text().replace("fun", "fan"))
    assert Tables.load(moved).fingerprint != first


def test_a_linked_folder_keeps_the_name_it_is_called_by(folder: Path, tmp_path: Path):
    folder.rename(tmp_path / "v17")
    (tmp_path / "tiny").symlink_to(tmp_path / "v17")
    assert Tables.load(tmp_path / "tiny").name == "tiny"


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        ("item", None, None, r"tiny\.item is missing; a data set is a folder"),
        ("inter", None, None, r"tiny\.inter is missing"),
        ("inter", "ann\tv1", "ann\tv9", r"tiny\.inter: item_id 'v9' is not in the \.item file \(1 such rows\)"),
        ("cinter", "c2", "c9", r"tiny\.cinter: comment_id 'c9' is not in the \.comment file"),
        ("cinter", "\tv1\t", "\tv8\t", r"tiny\.cinter: item_id 'v8' is not in the \.item file"),
        ("cinter", "\tv1\t", "\tv2\t", r"comment 'c2' names video 'v2', which is not the comment's"),
        ("comment", "c1\tv2", "c1\tv7", r"tiny\.comment: item_id 'v7' is not in the \.item file"),
        ("comment", "c2\t", "c1\t", r"tiny\.comment: comment_id 'c1' occurs more than once"),
        ("item", "v2\t", "v1\t", r"tiny\.item: item_id 'v1' occurs more than once"),
        ("item", "v2\t", "[PAD]\t", r"tiny\.item: an empty item_id or one of '\[PAD\]'"),
        ("inter", "ann\t", "\t", r"tiny: an event of user ''"),
        ("inter", "1000", "", r"tiny\.inter: 1 rows have no finite timestamp"),
        ("inter", "1000", "soon", r"tiny\.inter, line 2: timestamp is 'soon'"),
        ("inter", "timestamp:float", "timestamp:token", r"column timestamp is of type token, expected float"),
        ("inter", "item_id:token", "video:token", r"tiny\.inter has no column item_id"),
        ("item", "title:token_seq", "title", r"tiny\.item, line 1: column 'title'"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, suffix: str, old: str | None, new: str | None, message: str):
    path = folder / f"tiny.{suffix}"
    if old is None or new is None:
        path.unlink()
    else:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        Tables.load(folder)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_interactions_is_an_error(folder: Path):
    (folder / "tiny.inter").write_text(FILES["inter"].splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="has no interactions"):
        Tables.load(folder)
