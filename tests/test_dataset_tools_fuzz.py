"""A first few inputs of the fuzzer (`benchmarks/fuzz_readers.py`), and what it found in KuaiComt and MicroLens."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import load

from dataset_tools.__main__ import main
from dataset_tools.check import check
from dataset_tools.schema import read_atomic

T0 = 1_696_132_800


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    return load("fuzz_readers")


READERS = ("csv", "tsv", "headless", "unquoted", "jsonl", "document", "gzip", "zstd", "rules", "kuaicomt", "microlens")


@pytest.mark.parametrize("name", [*READERS, "youtube", "table", "mapping", "command", "check"])  # parquet may abort
def test_the_first_inputs_find_nothing(fuzzer: ModuleType, tmp_path: Path, name: str) -> None:
    for number in range(4 if name in ("command", "check") else 25):
        assert fuzzer.run_one(name, 0, number, tmp_path) is None


def test_a_fault_is_found(fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzzer.READERS, "rules", (1, lambda rng, folder: [][rng.randrange(1)]))
    what, text = fuzzer.run_one("rules", 0, 0, tmp_path)
    assert what.startswith("IndexError: ") and "Traceback" in text


KUAICOMT = {
    "user_video_inter.csv": f"user_id,video_id,time_ms,is_like\nu1,v1,{T0}000,1\nu2,v1,{T0 + 86_400}000,1\n",
    "video_features.csv": "video_id,caption\nv1,One\n",
    "comment_features.csv": "comment_id,comment_content,video_id\nc1,Yes,v1\n",
    "user_comment_inter.csv": f"user_id,comment_id,time_stamp,photo_id,is_like,is_reply\nu1,c1,{T0},v1,1,0\n",
}
MICROLENS = {"m_pairs.csv": f"user,item,timestamp\nu1,v1,{T0}\n", "m_titles.csv": "item,title\nv1,One\n"}


def convert(folder: Path, source: str, files: dict[str, str], *options: str) -> int:
    raw = folder / "raw"
    raw.mkdir()
    for name, text in files.items():
        (raw / name).write_text(text, encoding="utf-8")
    status = main([source, str(raw), str(folder / "x"), *options])
    assert status or check(folder / "x") == []
    return status


@pytest.mark.parametrize(("bound", "left"), [("--since", ["u2"]), ("--until", ["u1"])])
def test_kuaicomt_from_one_day_on_or_up_to_one(tmp_path: Path, bound: str, left: list[str]) -> None:
    assert convert(tmp_path, "kuaicomt", KUAICOMT, "--positive", "like", bound, "2023-10-02") == 0
    assert read_atomic(tmp_path / "x" / "x.inter")["user_id"].to_list() == left


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (",user_id,age:years", "'age:years' cannot be the name of a column of .user"),
        ('user_id,"a\nb",c', r"'a\nb' cannot be the name of a column of .user"),
        ("user_id,Level,level", ".user would have the columns Level and level, which differ in case only"),
    ],
)
def test_kuaicomt_columns_of_users_that_no_header_can_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, message: str
) -> None:
    files = {**KUAICOMT, "user_features.csv": f"{header}\nu1,u1,3\nu2,u2,3\n"}
    assert convert(tmp_path, "kuaicomt", files, "--positive", "like") == 2
    assert message in capsys.readouterr().err


def test_microlens_without_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    said = {"m_comment_en.txt": "u1\tv1\tYes\n"}
    assert convert(tmp_path / "a", "microlens", {**MICROLENS, "m_titles.csv": "item,title\n"}) == 2
    assert "m_titles.csv: 1 × file without a row" in capsys.readouterr().err
    assert convert(tmp_path / "b", "microlens", {**MICROLENS, **said, "m_pairs.csv": "user,item,timestamp\n"}) == 2
    assert "m_pairs.csv: 1 × file without a row" in capsys.readouterr().err


def test_microlens_counts_that_are_no_numbers_are_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {**MICROLENS, "m_likes_and_views.txt": "v1\tNaN\t3\n"}
    assert convert(tmp_path, "microlens", files, "--on-error", "skip") == 0
    assert "m_likes_and_views.txt: 1 × malformed number in likes (line 1" in capsys.readouterr().err
    assert read_atomic(tmp_path / "x" / "x.item", ["likes", "views"]).rows() == [(None, None)]
