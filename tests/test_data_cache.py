"""The cache of a data set: the same tables with and without it, never stale, and never in the way."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from factories import DAY, START

from dataset_tools.check import check
from dataset_tools.sample import generate
from dataset_tools.writer import check_target
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data import cache, tables
from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import DataError

NAME = "cached"


def _write(folder: Path, *, extra: str = "", comments: bool = True) -> Path:
    """A small data set; `extra` is put at the end of a comment."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "inter": ["user_id:token\titem_id:token\ttimestamp:float"],
        "item": ["item_id:token\ttitle:token_seq\ttags:token_seq\tupload_time:float"],
        "cinter": ["user_id:token\tcomment_id:token\titem_id:token\ttimestamp:float"],
        "comment": ["comment_id:token\titem_id:token\tcontent:token_seq\tuser_id:token\tparent_id:token"],
    }
    rows["item"] += [f"v{v}\t标题 {v}\t{'fun' if v % 2 else ''}\t{START if v % 3 else ''}" for v in range(6)]
    rows["inter"] += [f"u{n % 5}\tv{n % 6}\t{START + n * DAY / 4}" for n in range(60)]
    rows["comment"] += [
        f"c{c}\tv{c % 6}\ttext {c}{extra}\tu{c % 7}\t{f'c{c - 6}' if c > 20 else ''}" for c in range(30)
    ]
    rows["cinter"] += [f"u{n % 4}\tc{n % 25}\tv{n % 25 % 6}\t{START + n * DAY / 3}" for n in range(40)]
    rows["cinter"].append(rows["cinter"][-1])  # repeated
    for suffix, lines in rows.items():
        if comments or suffix in ("inter", "item"):
            (folder / f"{folder.name}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def assert_equal(found: Tables, expected: Tables) -> None:
    """Every field, bit by bit."""
    for name in Tables.__dataclass_fields__:
        left, right = getattr(found, name), getattr(expected, name)
        if isinstance(right, pl.Series):
            assert left.equals(right, check_dtypes=True, check_names=True), name
        elif isinstance(right, np.ndarray):
            assert left.dtype == right.dtype and left.shape == right.shape, name
            assert np.array_equal(left, right), name
        else:
            assert left == right, name
    for layout in ("timeline", "pool"):
        left, right = vars(getattr(found, layout)), vars(getattr(expected, layout))
        assert left.keys() == right.keys()
        for name in right:
            assert left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]), (layout, name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "SMALLEST", 0)
    monkeypatch.setattr(cache, "_SETTLED_NS", -(10**18))  # a record counts at once; one test has the real value
    return _write(tmp_path / NAME)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every time that the atomic files are read."""
    calls: list[str] = []
    read = tables._from_files
    monkeypatch.setattr(tables, "_from_files", lambda *args, **kwargs: calls.append("read") or read(*args, **kwargs))
    return calls


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    names: list[str] = []
    real = cache.sha256_file
    monkeypatch.setattr(cache, "sha256_file", lambda path: names.append(path.name) or real(path))
    return names


def _manifest(folder: Path) -> Path:
    return folder / f"{folder.name}.cache" / "manifest.json"


def _columns(folder: Path) -> Path:
    return next((folder / f"{folder.name}.cache").glob("columns-*"))


def _in_place(path: Path, old: str, new: str) -> None:
    """Change a file without changing its size, inode and time of modification."""
    assert len(old.encode()) == len(new.encode())
    before = path.stat()
    text = path.read_bytes()
    assert old.encode() in text
    with open(path, "r+b") as handle:
        handle.write(text.replace(old.encode(), new.encode(), 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("comments", [True, False])
def test_the_tables_are_the_same_and_are_read_once(folder: Path, parsed: list[str], hashed: list[str], comments: bool):
    if not comments:
        shutil.rmtree(folder)
        _write(folder, comments=False)
    expected = Tables.load(folder, cache=False)
    parsed.clear(), hashed.clear()
    assert_equal(Tables.load(folder), expected)
    assert parsed == ["read"] and len(hashed) == (4 if comments else 2)
    assert_equal(Tables.load(folder), expected)
    assert parsed == ["read"] and len(hashed) == (4 if comments else 2)


def test_everything_built_from_them_is_the_same(folder: Path):
    plain, kept = (Tables.load(folder, cache=on) for on in (False, True))
    one, two = (JointData(found, split={"time": [0.6, 0.8]}, max_videos=5, max_records=5) for found in (plain, kept))
    for kind in ("video", "comment"):
        rows = one.rows(kind, 0)
        for field, value in vars(one.gather(kind, rows, training=True, rng=np.random.default_rng(1))).items():
            again = two.gather(kind, rows, training=True, rng=np.random.default_rng(1))
            assert np.array_equal(getattr(again, field), value), (kind, field)


def test_comments_are_read_when_they_are_asked_for_and_the_rest_is_mapped(folder: Path):
    Tables.load(folder)
    found = Tables.load(folder)
    assert "contents" not in vars(found) and "comments" not in vars(found)
    assert found.n_comments == 31 and "comments" not in vars(found)
    assert not found.comment_item.flags.writeable and not found.comment_item.flags.owndata
    assert found.item_time.flags.writeable
    shutil.rmtree(folder)  # what is open stays readable
    assert found.contents[1] == "text 0" and found.contents is found.contents
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = found.colour


def test_nothing_is_sorted_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    Tables.load(folder)
    found = Tables.load(folder)
    for layout in (tables.Timeline, tables.Pool):
        monkeypatch.setattr(layout, "of", lambda *_: pytest.fail("the cache holds it"))
    assert JointData(found, split={"time": [0.6, 0.8]}).tables.timeline is found.timeline
    for array in (*vars(found.timeline).values(), *vars(found.pool).values()):
        assert not array.flags.writeable and not array.flags.owndata


def test_copies_do_without_it(folder: Path):
    Tables.load(folder)
    found = Tables.load(folder)
    assert copy.deepcopy(found) is found  # nobody can change it
    copied = pickle.loads(pickle.dumps(found))  # noqa: S301
    shutil.rmtree(folder)
    assert type(copied) is Tables
    assert_equal(copied, found)


def test_repeated_rows_are_told_each_time(folder: Path, caplog: pytest.LogCaptureFixture):
    for _ in range(3):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Tables.load(folder)
        assert "1 rows repeat user, comment and time" in caplog.text


def test_a_changed_file_is_read_again(folder: Path, parsed: list[str]):
    first = Tables.load(folder)
    _write(folder, extra=" more")
    second = Tables.load(folder)
    assert second.contents[1] == "text 0 more" and second.fingerprint != first.fingerprint
    assert len(list(_manifest(folder).parent.glob("columns-*"))) == 1  # the old ones are gone
    assert first.contents[1] == "text 0"
    (folder / f"{NAME}.cinter").unlink()
    assert not len(Tables.load(folder).cinter_time)
    assert parsed == ["read"] * 3


def test_a_change_that_keeps_size_inode_and_modification_time_is_noticed(folder: Path, parsed: list[str]):
    Tables.load(folder)
    time.sleep(0.05)  # longer than a tick of the file system's clock
    _in_place(folder / f"{NAME}.comment", "text 0", "teXt 0")
    assert Tables.load(folder).contents[1] == "teXt 0"
    assert parsed == ["read", "read"]


def test_a_record_made_right_after_a_change_is_not_trusted(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "_SETTLED_NS", 300_000_000)
    Tables.load(folder), Tables.load(folder)
    assert len(hashed) == 8  # the files could change again at the same tick
    time.sleep(0.4)
    Tables.load(folder), Tables.load(folder)
    assert len(hashed) == 12


def test_a_touched_or_copied_data_set_is_hashed_once_and_not_read_again(
    folder: Path, tmp_path: Path, parsed: list[str], hashed: list[str]
):
    expected = Tables.load(folder)
    os.utime(folder / f"{NAME}.comment")
    Tables.load(folder), Tables.load(folder)
    assert parsed == ["read"] and len(hashed) == 8
    copy = tmp_path / "copy" / NAME
    shutil.copytree(folder, copy)
    found, again = Tables.load(copy), Tables.load(copy)
    assert parsed == ["read"] and len(hashed) == 12
    assert found.fingerprint == expected.fingerprint and again.folder == copy


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _foreign(path: Path) -> None:
    path.write_text('["not", "ours"]')


def _other_format(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))


def _other_schema(path: Path) -> None:
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "schema": {**manifest["schema"], "inter_user": "int64"}}))


def _without_titles(path: Path) -> None:
    manifest = json.loads(path.read_text())
    del manifest["lengths"]["titles"]
    path.write_text(json.dumps(manifest))


def _endless(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "recorded_ns": float("inf")}))


def _elsewhere(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "folder": "../.."}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("contents.arrow", _cut),
        ("titles.arrow", _cut),
        ("inter_item.npy", _cut),
        ("inter_item.npy", Path.unlink),
        ("inter_item.npy", lambda path: path.write_bytes(b"")),
        ("users.arrow", _foreign),
        ("manifest.json", _cut),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("manifest.json", _foreign),
        ("manifest.json", _other_format),
        ("manifest.json", _other_schema),
        ("manifest.json", _elsewhere),
        ("manifest.json", _without_titles),
        ("manifest.json", _endless),
    ],
)
def test_whatever_is_wrong_with_it_it_is_made_anew(
    folder: Path, parsed: list[str], caplog: pytest.LogCaptureFixture, file: str, damage
):
    Tables.load(folder)
    expected = Tables.load(folder, cache=False)
    parsed.clear()
    damage(_manifest(folder) if file == "manifest.json" else _columns(folder) / file)
    with caplog.at_level(logging.INFO):
        assert_equal(Tables.load(folder), expected)
    assert caplog.text.count("is not used and made anew") == 1
    assert_equal(Tables.load(folder), expected)
    assert parsed == ["read"]


@pytest.mark.parametrize("byte", range(0, 1200, 150))
def test_no_byte_of_a_text_can_be_wrong(folder: Path, parsed: list[str], byte: int):
    """Polars aborts the process over some of them, so that no file is given to it which is not what was written."""
    Tables.load(folder)
    expected = Tables.load(folder, cache=False)
    parsed.clear()
    path = _columns(folder) / "titles.arrow"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[byte % len(content)] ^= 0xFF
    _looking_untouched(path, bytes(content), before)
    assert_equal(Tables.load(folder), expected)
    assert parsed == ["read"]


def _looking_untouched(path: Path, content: bytes, before: os.stat_result) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("file", ["titles.arrow", "inter_item.npy"])
def test_a_damaged_column_that_looks_untouched_is_no_error(folder: Path, parsed: list[str], file: str):
    Tables.load(folder)
    expected = Tables.load(folder, cache=False)
    parsed.clear()
    path = _columns(folder) / file
    before = path.stat()
    _looking_untouched(path, bytes(before.st_size), before)
    assert_equal(Tables.load(folder), expected)
    assert parsed == ["read"]


def test_texts_damaged_between_opening_and_reading_have_a_message(folder: Path):
    Tables.load(folder)
    found = Tables.load(folder)
    path = _columns(folder) / "contents.arrow"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=rf"{NAME}\.cache was damaged while it was in use"):
        _ = found.contents


def test_where_nothing_can_be_written_there_is_no_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    expected = Tables.load(folder, cache=False)
    before = sorted(folder.iterdir())
    mkdir = Path.mkdir

    def refuse(path: Path, *args: object, **options: object) -> None:
        if path.name == f"{NAME}.cache":
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with caplog.at_level(logging.INFO):
        assert_equal(Tables.load(folder), expected)
    assert caplog.text.count("cannot be written (Permission denied)") == 1
    assert [record.levelname for record in caplog.records if record.name == cache.__name__] == ["WARNING"]
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_has_no_cache(folder: Path):
    folder.chmod(0o555)
    try:
        assert_equal(Tables.load(folder), Tables.load(folder, cache=False))
        assert not _manifest(folder).parent.exists()
    finally:
        folder.chmod(0o755)


def test_a_file_in_its_place_is_left_alone(folder: Path, caplog: pytest.LogCaptureFixture):
    place = folder / f"{NAME}.cache"
    place.write_text("somebody's")
    expected = Tables.load(folder, cache=False)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert_equal(Tables.load(folder), expected)
    (said,) = [record.getMessage() for record in caplog.records if record.name == cache.__name__]
    assert said.startswith(f"{place} cannot be written (a file has its name)") and "data_cache: False" in said
    assert place.read_text() == "somebody's"


def test_a_full_disk_leaves_no_half_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(path: Path, column: object) -> None:
        path.write_bytes(b"half")
        if path.name == "contents.arrow":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write_column", full)
    with caplog.at_level(logging.INFO):
        assert_equal(Tables.load(folder), Tables.load(folder, cache=False))
    assert "cannot be written (No space left on device)" in caplog.text
    assert [path.name for path in _manifest(folder).parent.iterdir()] == [".lock"]


def test_an_old_one_makes_room_for_the_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    Tables.load(folder)
    orphan = _manifest(folder).with_name("columns-of-a-killed-process")
    orphan.mkdir()
    _write(folder, extra=" more")
    write = cache._write_column

    def count(path: Path, column: cache.Column) -> str:
        assert list(path.parents[1].glob("columns-*")) == [path.parent] and not _manifest(folder).exists()
        return write(path, column)

    monkeypatch.setattr(cache, "_write_column", count)
    Tables.load(folder)
    assert len(list(_manifest(folder).parent.glob("columns-*"))) == 1 and _manifest(folder).is_file()


def test_files_that_change_while_they_are_read_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read = tables._from_files

    def slow(*args: object, **options: object) -> tuple[Tables, int]:
        found = read(*args, **options)
        _write(folder, extra=" later")
        return found

    monkeypatch.setattr(tables, "_from_files", slow)
    assert Tables.load(folder).contents[1] == "text 0"
    assert not _manifest(folder).exists()
    monkeypatch.setattr(tables, "_from_files", read)
    assert Tables.load(folder).contents[1] == "text 0 later"


def test_processes_at_once_do_not_disturb_one_another(folder: Path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from recbole_lsvcr.data import cache\n"
        "from recbole_lsvcr.data.tables import Tables\n"
        "cache.SMALLEST = 0\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.01)\n"
        "for _ in range(5):\n"
        "    found = Tables.load(sys.argv[1])\n"
        "    print(found.fingerprint, found.contents.hash().sum(), int(found.inter_item.sum()))\n"
    )
    go = folder.parent / "go"
    command = [sys.executable, "-c", program, str(folder), str(go)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    go.touch()
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    expected = Tables.load(folder, cache=False)
    line = f"{expected.fingerprint} {expected.contents.hash().sum()} {int(expected.inter_item.sum())}\n"
    assert answers == [line * 5] * 3
    assert len(list(_manifest(folder).parent.glob("columns-*"))) == 1


def test_the_tools_do_not_mind_it_and_replacing_the_data_removes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "SMALLEST", 0)
    folder = tmp_path / "lsvcr-sample"
    generate(folder)
    Tables.load(folder)
    assert _manifest(folder).is_file()
    assert check(folder) == []
    check_target(folder, overwrite=False)  # a data set still, and replaceable
    generate(folder)
    assert not _manifest(folder).exists()


@pytest.mark.parametrize("on", [True, False])
def test_a_file_that_cannot_be_read_has_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch, on: bool):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "sha256_file", refuse)
    with pytest.raises(DataError, match=rf"cannot read .*{NAME}\.inter: Permission denied"):
        Tables.load(folder, cache=on)


def test_small_data_have_no_cache_and_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = _write(tmp_path / NAME)
    Tables.load(folder)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    Tables.load(folder, cache=False)
    assert not (folder / f"{NAME}.cache").exists()


def _dataset(folder: Path, **settings: object) -> JointDataset:
    overrides = {"dataset": folder.name, "data_path": str(folder.parent), "MAX_ITEM_LIST_LENGTH": 5}
    return JointDataset(load_config(None, {**overrides, "eval_args": {"split": {"time": [0.6, 0.8]}}, **settings}))


def test_the_setting_data_cache_decides(folder: Path):
    place = folder / f"{NAME}.cache"
    plain = _dataset(folder, data_cache=False)
    assert not place.exists()
    kept = [_dataset(folder) for _ in range(2)][1]
    assert place.is_dir() and not kept.joint.tables.inter_item.flags.owndata
    assert_equal(kept.joint.tables, plain.joint.tables)
    for one, two in zip(plain.build(), kept.build(), strict=True):
        batches = one[np.arange(len(one))], two[np.arange(len(two))]
        assert batches[0].columns == batches[1].columns and len(one) == len(two) > 0
        for field in batches[0].columns:
            assert torch.equal(batches[0][field], batches[1][field]), field


def test_the_joint_data_of_another_data_set_are_not_taken(folder: Path, tmp_path: Path):
    other = _write(tmp_path / "other", extra=" of another")
    first = _dataset(folder)
    settings = {"dataset": "other", "data_path": str(tmp_path), "MAX_ITEM_LIST_LENGTH": 5}
    config = load_config(None, {**settings, "eval_args": {"split": {"time": [0.6, 0.8]}}})
    assert JointDataset(config, first.joint).joint.tables.folder == other
    assert JointDataset(first.config, first.joint).joint.tables is first.joint.tables
