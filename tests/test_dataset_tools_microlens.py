"""MicroLens: a thousand pairs by rules that can be counted by hand, against a slow conversion; variants and faults."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from slow_conversion import Tables, as_text, convert, meta_of, microlens, same, write_rows, written

from dataset_tools.__main__ import main
from dataset_tools.check import check

pytestmark = pytest.mark.usefixtures("quick")

T0 = 1_583_000_000  # Unix seconds
USERS, VIDEOS, WATCHED = 31, 45, 40
TITLES = ["Mom's cake, part 1", 'the "best" one', "NA", "two\nlines", "评论 😀", "x", "tab\tin", "a  b"]
TEXTS = ["so good", 'he said "hi', "NA", "", "评论 😀", "a  b", "#1", "l'été, ici"]


def pair(i: int) -> tuple[int, int, int]:
    """User i % 31, video i % 40, so a pair comes again after 1240 rows; rows 900 to 999 repeat the pairs of 0 to 99."""
    j = i if i < 900 else i - 900
    return 100 + j % USERS, 1 + j % WATCHED, T0 + 60 * (387 * i % 1000)


def said(k: int) -> tuple[int, int, str]:
    """Comment k is about pair k % 950: pairs 0 to 99 get theirs from four places, up to four of them."""
    user, item, _ = pair(k % 950)
    return user, item, f"{TEXTS[k % len(TEXTS)]}{k % 3 or ''}"


def put(
    folder: Path,
    *,
    comments: bool = True,
    headless: bool = False,
    counts: bool = True,
    unit: int = 1000,
) -> Path:
    """A thousand pairs, 45 titles, a thousand comments, likes and views of the even videos."""
    pairs = [(user, item, unit * at) for user, item, at in map(pair, range(1000))]
    write_rows(folder / "MicroLens-1k_pairs.csv", [("user", "item", "timestamp"), *pairs])
    titles = [(1 + v, TITLES[v % len(TITLES)]) for v in range(VIDEOS)]
    name = "MicroLens-1k_title_en.csv" if headless else "MicroLens-1k_titles.csv"
    write_rows(folder / name, titles if headless else [("item", "title"), *titles])
    if comments:
        lines = ["\t".join(map(str, said(k))) + "\n" for k in range(1000)]
        (folder / "MicroLens-1k_comment_en.txt").write_text("".join(lines), encoding="utf-8")
    if counts:
        lines = [f"{v}\t{v * v}\t{1000 * v}\n" for v in range(2, VIDEOS + 1, 2)]
        (folder / "MicroLens-1k_likes_and_views.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("microlens") / "raw")


@pytest.fixture(scope="module")
def expected(raw: Path) -> Tables:
    return as_text(microlens(raw))


def test_a_thousand_pairs_counted_by_hand(tmp_path: Path, raw: Path, expected: Tables) -> None:
    assert same(convert("microlens", raw, tmp_path / "x"), expected)
    assert check(tmp_path / "x") == []
    meta = meta_of(tmp_path / "x")
    # 900 pairs (31 * 40 = 1240 would be the first repetition), of which the last hundred rows repeat a hundred.
    assert meta["rows"] == {"inter": 900, "item": VIDEOS, "cinter": 1000, "comment": 1000}
    assert meta["users"] == {"inter": USERS, "cinter": USERS} and meta["videos"] == {
        "inter": WATCHED,
        "cinter": WATCHED,
    }
    assert meta["time_range"] == [T0, T0 + 60 * 999] and meta["notes"] == {}
    every = convert("microlens", raw, tmp_path / "y", "--repeat", "all")
    assert same(every, as_text(microlens(raw), repeat="all")) and len(every["inter"]) == 1001


def test_the_times_of_several_comments(tmp_path: Path, raw: Path) -> None:
    got = convert("microlens", raw, tmp_path / "x")
    times = {row[1]: int(row[3]) for row in got["cinter"][1:]}
    # Pair 7 stands in rows 7 and 907; comments 7, 907 and 957 (of pair 7 again, after 950) are about it.
    first, second = sorted((T0 + 60 * (387 * 7 % 1000), T0 + 60 * (387 * 907 % 1000)))
    assert [times[f"c{k + 1}"] for k in (7, 907, 957)] == [first, second, second]
    # Pair 200 stands in row 200 alone, comment 200 is about it.
    assert times["c201"] == T0 + 60 * (387 * 200 % 1000)
    about = Counter((said(k)[:2]) for k in range(1000))
    assert about[pair(7)[:2]] == 3 and about[pair(200)[:2]] == 1


@pytest.mark.parametrize("core", [(10, 23), (30, 0), (0, 23)])
def test_a_k_core_hides_the_authors_that_it_drops(tmp_path: Path, raw: Path, core: tuple[int, int]) -> None:
    options = ["--min-user-inter", str(core[0]), "--min-item-inter", str(core[1])]
    got, wanted = convert("microlens", raw, tmp_path / "x", *options), as_text(microlens(raw), core=core)
    assert same(got, wanted) and 20 < len(wanted["inter"]) < 901


VARIANTS: dict[str, dict[str, Any]] = {
    "no comments": {"comments": False},
    "no header": {"headless": True},
    "no counts": {"counts": False},
    "seconds": {"unit": 1},
    "pairs and titles only": {"comments": False, "counts": False, "headless": True},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(tmp_path: Path, name: str) -> None:
    way = VARIANTS[name]
    raw = put(tmp_path / "raw", **way)
    tables = microlens(raw, unit=float(way.get("unit", 1000)), headless=way.get("headless", False))
    got = convert("microlens", raw, tmp_path / "x")
    assert same(got, as_text(tables)) and check(tmp_path / "x") == []
    assert len(got["inter"]) == 901 and len(got["comment"]) == (1001 if way.get("comments", True) else 1)


COUNTS, PAIRS = "_likes_and_views.txt", "_pairs.csv"
WIDTH = "row of the wrong width (is the file cut short, a quote not doubled?)"
LINES: dict[str, tuple[str, str, str]] = {  # the end of a file's name, a line more, the message
    "no pair": ("_comment_en.txt", "100\t999\thm\n", "comment whose user and video are no row of the pairs"),
    "video unknown": (PAIRS, "100,999,1583000000000\n", "item_id in .inter that .item does not have"),
    "user": (PAIRS, "NA,1,1583000000000\n", "user_id that is empty or read as missing (NA, null …) in .inter"),
    "time": (PAIRS, "100,1,now\n", "malformed number in .inter"),
    "seconds": (PAIRS, "100,1,1583000000\n", "timestamp outside 1990–2100 in .inter"),
    "title twice": ("_titles.csv", "1,again\n", "duplicated item_id in .item"),
    "no title": ("_titles.csv", "99, \n", "empty title in .item"),
    "counts twice": (COUNTS, "2\t5\t5\n", "second row of a video's likes and views"),
    "counts unknown": (COUNTS, "999\t5\t5\n", "likes and views of a video without a title"),
    "likes": (COUNTS, "1\tmany\t5\n", "malformed number in likes"),
    "views": (COUNTS, "1\t5\tinf\n", "malformed number in views"),
    "width": ("_comment_en.txt", "100\t1\n", WIDTH),
}


@pytest.mark.parametrize("name", LINES)
def test_every_fault_is_fatal_or_dropped(
    tmp_path: Path, expected: Tables, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    ending, line, kind = LINES[name]
    raw = put(tmp_path / "raw")
    path = next(raw.glob(f"*{ending}"))
    content = path.read_bytes() + line.encode()
    path.write_bytes(content)
    place = content.count(b"\n")
    assert main(["microlens", str(raw), str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert f"{path.name}: 1 × {kind} (line {place:,}: " in said and "lsvcr-data microlens: 1 fault " in said
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    got = convert("microlens", raw, tmp_path / "x", "--on-error", "skip")
    assert meta_of(tmp_path / "x")["dropped"] == {kind: 1}
    assert same(got, expected)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("MicroLens-1k_pairs.csv", None, "raw has no file that ends in _pairs.csv"),
        ("MicroLens-1k_titles.csv", None, "raw has no file that ends in _titles.csv or _title_en.csv or _title.csv"),
        ("Other_pairs.csv", "", "MicroLens-1k_pairs.csv and Other_pairs.csv; keep the files of one MicroLens in it"),
        ("Other_title_en.csv", "", "MicroLens-1k_titles.csv and Other_title_en.csv; keep the files of one"),
        ("MicroLens-1k_pairs.csv", "", "MicroLens-1k_pairs.csv is empty"),
        ("MicroLens-1k_pairs.csv", "user,item,timestamp\n", "_pairs.csv: 1 × file without a row"),
        (
            "MicroLens-1k_pairs.csv",
            "user,item,time\n1,1,5\n",
            "_pairs.csv has no column timestamp; it has user, item, ",
        ),
        ("MicroLens-1k_titles.csv", "item,title\n", "_titles.csv: 1 × file without a row"),
        ("MicroLens-1k_titles.csv", "item\n1\n", "_titles.csv has the column item only; expected are item and title"),
        ("MicroLens-1k_comment_en.txt", "", "MicroLens-1k_comment_en.txt is empty"),
        ("MicroLens-1k_likes_and_views.txt", "", "MicroLens-1k_likes_and_views.txt is empty"),
    ],
)
def test_bad_files_are_one_message_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, message: str
) -> None:
    raw = put(tmp_path / "raw")
    if text is None:
        (raw / name).unlink()
    else:
        (raw / name).write_text(text)
    assert main(["microlens", str(raw), str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsvcr-data microlens: ") and message in said
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_title_may_be_its_own_number(tmp_path: Path) -> None:
    (raw := tmp_path / "raw").mkdir()
    (raw / "m_pairs.csv").write_text("user,item,timestamp\na,1,1583000000\n")
    (raw / "m_title_en.csv").write_text("1,1\n2,Two\n")
    assert main(["microlens", str(raw), str(tmp_path / "x")]) == 0
    assert written(tmp_path / "x")["item"][1:] == [("1", "1"), ("2", "Two")]


def test_comments_that_are_all_of_no_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw := tmp_path / "raw").mkdir()
    (raw / "m_pairs.csv").write_text("user,item,timestamp\nu,1,1583000000\n")
    (raw / "m_titles.csv").write_text("item,title\n1,One\n2,Two\n")
    (raw / "m_comment_en.txt").write_text("u\t2\tlost\n")
    assert main(["microlens", str(raw), str(tmp_path / "x"), "--on-error", "skip"]) == 0
    assert "1 × comment whose user and video are no row of the pairs" in capsys.readouterr().err
    made = written(tmp_path / "x")
    assert len(made["inter"]) == 2 and len(made["comment"]) == len(made["cinter"]) == 1 and not check(tmp_path / "x")
