"""Tables by mapping: a small platform worked out by hand, every kind of file and time, and bad mappings."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from slow_conversion import convert as converted
from slow_conversion import meta_of, write_rows

from dataset_tools.__main__ import main
from dataset_tools.check import check
from dataset_tools.schema import read_atomic

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "table_mapping.yaml"
T0 = 1696132800.0  # 2023-10-01T04:00:00Z
VIEWS = """uid,vid,time_ms,is_like,is_collect,is_forward,play_ms,length_ms
u1,v1,1696132800500,1,0,0,100,1000
u1,v2,1696132900000,0,0,0,950,1000
u2,v1,1696132700000,0,0,0,10,1000
u2,v2,1696132600000,0,1,0,,1000
"""
VIDEOS = """vid,caption,topics,author,length_s,upload_date
v1,"a ""b"",
c",#x y #z,a1,10,2023-10-01

v2,two,,a2,2.5,2023-09-30
"""
LIKES = '{"user": "u1", "comment": "c1", "video": "v1", "at": "2023-10-01T12:00:00+08:00", "kind": "like"}\n'
COMMENTS = (
    '{"id": "c1", "video": "v1", "text": "NA \\ud800", "author": {"id": "u2"}, "likes": 3}\n'
    '{"id": "c2", "video": "v2", "text": "", "author": null, "likes": null}\n'
)


def logs(folder: Path) -> Path:
    folder.mkdir()
    for name, text in {
        "views.csv": VIEWS,
        "videos.csv": VIDEOS,
        "likes.jsonl": LIKES,
        "comments.jsonl": COMMENTS,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_worked_example(tmp_path: Path) -> None:
    out = tmp_path / "x"
    assert main(["table", str(logs(tmp_path / "logs")), str(out), "--mapping", str(EXAMPLE)]) == 0
    assert check(out) == []
    assert read_atomic(out / "x.inter").rows() == [
        ("u2", "v2", T0 - 200, 0.0, 1.0, 0.0, None),
        ("u1", "v1", T0 + 0.5, 1.0, 0.0, 0.0, 0.1),
        ("u1", "v2", T0 + 100, 0.0, 0.0, 0.0, pytest.approx(0.95)),
    ]
    assert read_atomic(out / "x.item").rows() == [
        ("v1", 'a "b", c', "x_y z", "a1", 10.0, T0 - 12 * 3600),
        ("v2", "two", "", "a2", 2.5, T0 - 36 * 3600),
    ]
    assert read_atomic(out / "x.cinter").rows() == [("u1", "c1", "v1", T0, 1.0, 0.0)]
    assert read_atomic(out / "x.comment").rows() == [("c1", "v1", "NA \ufffd", "u2", 3.0), ("c2", "v2", "", "", None)]
    assert '"rows_of_inter_not_positive": 1' in (out / "x.meta.json").read_text()


def test_a_thousand_rows_in_two_files_counted_by_hand(tmp_path: Path) -> None:
    """Row k: user k % 17, video k % 23, liked if k is a multiple of 5, shared if of 11; times in no order."""
    at = [int(T0) + 60 * (389 * k % 1000) for k in range(1000)]
    logs = tmp_path / "logs"
    for part, rows in enumerate((range(600), range(600, 1000))):
        header = ("uid", "vid", "ms", "like", "share", "seconds")
        events = [(k % 17, k % 23, at[k] * 1000 + k, int(k % 5 == 0), int(k % 11 == 0), k / 4) for k in rows]
        write_rows(logs / f"day-{part}.csv", [header, *events])
    videos = [{"id": v, "name": f"n{v}\n", "topics": ["a b", f"t{v % 3}"], "by": {"id": v % 5}} for v in range(30)]
    (logs / "videos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in videos))
    write_rows(logs / "said.tsv", [("vid", "text"), *((k % 30, f"x\t{k}") for k in range(1000))], "\t")
    write_rows(logs / "liked.csv", [("uid", "c", "vid", "t"), *((k % 19, k + 1, k % 30, at[k]) for k in range(1000))])
    user, video = {"column": "uid", "prefix": "u"}, {"column": "vid", "prefix": "v"}
    mapping = {
        "inter": {
            "file": "day-*.csv",
            "where": "like = 1 OR share = 1 AND seconds >= 100",
            "columns": {
                "user_id": user,
                "item_id": video,
                "timestamp": {"column": "ms", "time": "ms"},
                "like": "like",
                "minutes": {"expr": "seconds / 60"},
                "mark": {"row": "r"},
            },
        },
        "item": {
            "file": "videos.jsonl",
            "columns": {
                "item_id": {"column": "id", "prefix": "v"}, "title": "name", "tags": "topics", "author_id": "by.id"
            },
        },
        "comment": {
            "file": "said.tsv",
            "separator": "\t",
            "columns": {"comment_id": {"row": "c"}, "item_id": video, "content": "text"},
        },
        "cinter": {
            "file": "liked.csv",
            "columns": {
                "user_id": user,
                "comment_id": {"column": "c", "prefix": "c"},
                "item_id": video,
                "timestamp": "t",
                "like": {"value": 1},
            },
        },
    }  # fmt: skip
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    got = converted("table", logs, tmp_path / "x", "--mapping", str(tmp_path / "map.yaml"))
    assert check(tmp_path / "x") == []
    # Multiples of 5: 200; of 11 from 400 on (seconds >= 100): 54, of which 11 are multiples of 55.
    positives = [k for k in range(1000) if k % 5 == 0 or (k % 11 == 0 and k >= 400)]
    assert len(positives) == 200 + 54 - 11
    by_time = sorted(positives, key=lambda k: at[k])
    first = {(k % 17, k % 23): k for k in reversed(by_time)}
    kept = [k for k in by_time if first[k % 17, k % 23] == k]
    assert got["inter"][0] == tuple(
        ["user_id:token", "item_id:token", "timestamp:float", "like:float", "minutes:float", "mark:token"]
    )
    assert [(*row[:4], float(row[4]), row[5]) for row in got["inter"][1:]] == [
        (
            f"u{k % 17}",
            f"v{k % 23}",
            repr((at[k] * 1000 + k) / 1000),
            str(int(k % 5 == 0)),
            pytest.approx(k / 240),
            f"r{k + 1}",
        )
        for k in kept
    ]
    assert got["item"][1:] == [(f"v{v}", f"n{v}", f"a_b t{v % 3}", str(v % 5)) for v in range(30)]
    assert got["comment"][1:] == [(f"c{k + 1}", f"v{k % 30}", f"x {k}") for k in range(1000)]
    assert got["cinter"][1:] == [
        (f"u{k % 19}", f"c{k + 1}", f"v{k % 30}", str(at[k]), "1") for k in sorted(range(1000), key=lambda k: at[k])
    ]
    assert meta_of(tmp_path / "x")["notes"] == {
        "rows_of_inter_read": 1000,
        "rows_of_inter_not_positive": 1000 - len(positives),
        "rows_of_item_read": 30,
        "rows_of_comment_read": 1000,
        "rows_of_cinter_read": 1000,
    }


def convert(folder: Path, inter: str, spec: dict[str, Any], name: str = "i.csv") -> list[tuple[Any, ...]]:
    """The rows of `.inter` made from one file by one section; the item is called v."""
    folder.mkdir(exist_ok=True)
    if inter:
        (folder / name).write_text(inter)
    (folder / "item.csv").write_text("id,title\nv,Title\n")
    item = {"file": "item.csv", "columns": {"item_id": "id", "title": "title"}}
    (folder / "map.yaml").write_text(yaml.safe_dump({"inter": {"file": name, **spec}, "item": item}))
    status = main(["table", str(folder), str(folder / "x"), "--mapping", str(folder / "map.yaml")])
    return read_atomic(folder / "x" / "x.inter").rows() if status == 0 else []


PLAIN = {"user_id": "u", "item_id": "i", "timestamp": "t"}


@pytest.mark.parametrize(
    ("time", "raw", "expected"),
    [
        (None, "1696132800", T0),
        ("s", "1696132800.25", T0 + 0.25),
        ("ms", "1696132800250", T0 + 0.25),
        ("us", "1696132800250000", T0 + 0.25),
        ("ms", "1234567890123", 1234567890.123),
        ("iso", "2009-02-13T23:31:30.123Z", 1234567890.123),
        ("iso", "2023-10-01T04:00:00.25Z", T0 + 0.25),
        ("iso", "2023-10-01 06:00:00+02:00", T0),
        ("iso", "2023-10-01 04:00", T0),
        ("iso", "2023-10-01", T0 - 4 * 3600),
        ("%d.%m.%Y %H:%M", "01.10.2023 04:00", T0),
        ("%Y%m%d", "20231001", T0 - 4 * 3600),
    ],
)
def test_times(tmp_path: Path, time: str | None, raw: str, expected: float) -> None:
    stamp = "t" if time is None else {"column": "t", "time": time}
    rows = convert(tmp_path / "r", f"u,i,t\na,v,{raw}\n", {"columns": {**PLAIN, "timestamp": stamp}})
    assert rows == [("a", "v", expected)]


def test_a_time_zone_moves_local_times_only(tmp_path: Path) -> None:
    stamp = {"column": "t", "time": "iso", "zone": "Asia/Shanghai"}
    text = "u,i,t\na,v,2023-10-01T12:00:00\nb,v,2023-10-01T04:00:00Z\n"
    assert [row[2] for row in convert(tmp_path / "r", text, {"columns": {**PLAIN, "timestamp": stamp}})] == [T0, T0]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("like = 1", "ac"),
        ("like", "ac"),
        ("NOT like = 1", "b"),  # an empty flag is neither liked nor not
        ("like = 1 AND play >= 0.9 * length", "a"),
        ("CAST(u AS TEXT) IN ('b', 'd')", "bd"),
        ("topic LIKE '%ame%' OR topic IS NULL", "ac"),
        ("coalesce(like, 0) = 0", "bd"),
    ],
)
def test_positive_rules(tmp_path: Path, where: str, kept: str) -> None:
    text = "u,i,t,like,play,length,topic\na,v,1696132800,1,9,10,game\nb,v,1696132801,0,1,10,x\nc,v,1696132802,1,1,10,\n"
    text += "d,v,1696132803,,9,10,y\n"
    rows = convert(tmp_path / "r", text, {"columns": PLAIN, "where": where})
    assert "".join(row[0] for row in rows) == kept


def test_every_kind_of_file_gives_the_same(tmp_path: Path) -> None:
    expected = [("007", "v", T0), ("NA", "v", T0 + 1)]
    prefixed = [(f"u{user}", *rest) for user, *rest in expected]
    spec = {"columns": {**PLAIN, "user_id": {"column": "u", "prefix": "u"}}}
    rows = [{"u": user, "i": item, "t": int(at)} for user, item, at in expected]
    text = "u,i,t\n" + "".join(f"{user},{item},{int(at)}\n" for user, item, at in expected)
    for number, (name, content) in enumerate(
        {
            "a.csv": text,
            "b.tsv": text.replace(",", "\t"),
            "c.txt": text.replace(",", "|"),
            "d.csv": text.replace("\n", "\r\n"),
        }.items()
    ):
        assert convert(tmp_path / str(number), content, spec, name) == prefixed
    folder = tmp_path / "more"
    folder.mkdir()
    pl.DataFrame(rows).write_parquet(folder / "p.parquet")
    pl.DataFrame(rows).write_ndjson(folder / "p.jsonl")
    (folder / "p.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("p.parquet", "p.jsonl", "p.csv.gz"):
        assert convert(folder, "", spec, name) == prefixed
    header = {**spec, "header": ["u", "i", "t"]}
    assert convert(tmp_path / "headless", text.partition("\n")[2], header) == prefixed
    quotes = {**spec, "quoted": False}
    assert convert(tmp_path / "quotes", 'u,i,t\n"x,v,1696132800\n', quotes) == [('u"x', "v", T0)]


def test_constants_row_numbers_and_typed_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"u": [7, 8], "i": ["v", "v"], "t": ["2023-10-01T04:00:00", "2023-10-01T04:00:01"]})
    folder = tmp_path / "r"
    folder.mkdir()
    frame.with_columns(pl.col("t").str.to_datetime(time_zone="UTC")).write_parquet(folder / "p.parquet")
    columns = {**PLAIN, "timestamp": {"column": "t", "time": "iso"}, "like": {"value": 1}, "mark": {"row": "r"}}
    rows = convert(folder, "", {"columns": {**columns, "twice": {"expr": "2 * u"}}}, "p.parquet")
    assert rows == [("7", "v", T0, 1.0, "r1", 14.0), ("8", "v", T0 + 1, 1.0, "r2", 16.0)]


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("", {"columns": PLAIN}, "i.csv does not exist"),
        ("u,i\n", {"columns": PLAIN}, "i.csv has no column t; it has u, i"),
        (
            "u,i,t\na,v,1696132800\nb,v\n",
            {"columns": PLAIN},
            "1 × row of the wrong width (is the file cut short, a quote not doubled?) (line 3: 2 fields, 3 expected)",
        ),
        (
            'u,i,t\na,v,1696132800\n"b,v,5\n',
            {"columns": PLAIN},
            "i.csv: 1 × quote that is never closed (is the file cut",
        ),
        ("u,i,t\na,v,1696132800,5\n", {"columns": PLAIN}, "(line 2: 4 fields, 3 expected)"),
        (
            'u,i,t\n"a\nb",v,x\nc,v,y\n',
            {"columns": PLAIN},
            "i.csv: 2 × malformed number in .inter (line 2: timestamp='x'; line 4: ",
        ),
        ("u,i,t\na,v,1\n", {"columns": PLAIN, "where": "u ="}, "inter: where: 'u =' is not an SQL expression"),
        ("u,i,t\na,v,1\n", {"columns": PLAIN, "where": "w = 1"}, "i.csv has no column w; it has u, i, t"),
        (
            "u,i,t\na,v,1\n",
            {"columns": PLAIN, "where": "u = 1"},
            "inter: where: 'u = 1' cannot be evaluated: cannot compare string",
        ),
        ("u,i,t\na,v,1\n", {"columns": PLAIN, "where": "read_csv('x')"}, "unsupported function 'read_csv'"),
        (
            "u,i,t\na,v,1\nb,v,3\n",
            {"columns": PLAIN, "where": "t > avg(t)"},
            "where: 't > avg(t)' needs more than one row at a time",
        ),
        ("u,i,t\na,v,1\n", {"columns": PLAIN, "were": "u"}, "inter: unknown were; accepted are file, separator"),
        ("u,i,t\na,v,1\n", {"columns": {"user_id": "u", "item_id": "i"}}, "inter: columns lacks timestamp"),
        (
            "u,i,t\na,v,1\n",
            {"columns": {**PLAIN, "like": {"colum": "u"}}},
            "inter: like: give a raw column's name, or a map",
        ),
        (
            "u,i,t\na,v,1\n",
            {"columns": {**PLAIN, "timestamp": {"column": "t", "time": "days"}}},
            "time is 'days'; give s, ms,",
        ),
        (
            "u,i,t\na,v,1\n",
            {"columns": {**PLAIN, "timestamp": {"column": "t", "time": "iso", "zone": "Mars"}}},
            "zone 'Mars'",
        ),
    ],
)
def test_bad_tables_and_mappings_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, spec: dict[str, Any], message: str
) -> None:
    assert convert(tmp_path / "r", text, spec) == []
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r" / "x").exists()


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "i.csv").write_bytes(b"u,i,t\na,v,1696132800\nb\xe9,v,1696132800\n")
    assert convert(folder, "", {"columns": PLAIN}) == []
    assert (
        "i.csv: 1 × bytes that are not UTF-8 (line 3: invalid continuation byte at byte 1)" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inter: [", "is not YAML"),
        ("inter: {}", "needs the sections inter and item"),
        ("inter: {}\nitem: {}", "inter needs a file and columns"),
        ("inter: {file: a, columns: {}, separator: ab}\nitem: {}", "separator is 'ab'; give one character"),
        ("inter: {file: a, columns: {}, header: ab}\nitem: {}", "header is 'ab'; give a list"),
        ("inter: {file: a, columns: {}, where: true}\nitem: {}", "where an SQL expression"),
        (
            "inter: {file: a, columns: {user_id: u, item_id: i, timestamp: {value: 2023-01-01}}}\nitem: {}",
            "inter: timestamp: value (datetime.date(2023, 1, 1)) must be a text or a number",
        ),
        ("inter: {}\nitem: {}\nvideo: {}", "section: unknown video; accepted are inter, item, user, cinter, comment"),
    ],
)
def test_a_bad_mapping_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    assert main(["table", str(tmp_path), str(tmp_path / "x"), "--mapping", str(tmp_path / "map.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_lists_of_one_are_values_and_longer_ones_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"columns": {**PLAIN, "timestamp": {"column": "t", "time": "ms"}, "more": "m"}}
    lines = (
        '{"u": ["a"], "i": "v", "t": [1696132800000], "m": ["x", ["y"]]}\n{"u": "b", "i": "v", "t": 1696132801000}\n'
    )
    assert convert(tmp_path / "one", lines, spec, "i.jsonl") == [("a", "v", T0, 'x ["y"]'), ("b", "v", T0 + 1, "")]
    lines += '{"u": ["a", "b"], "i": "v", "t": 1}\n{"u": "a", "i": "v", "t": []}\n'
    assert convert(tmp_path / "two", lines, spec, "i.jsonl") == []
    message = capsys.readouterr().err
    assert "i.jsonl: 1 × list where one value is expected in .inter (line 3: user_id=['a', 'b'])" in message
    assert "i.jsonl: 1 × malformed number in .inter (line 4: timestamp=None)" in message


def test_types_of_parquet_that_mean_nothing_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    frame = pl.DataFrame({"u": [b"a"], "i": ["v"], "t": [T0], "s": [{"x": 1}], "l": [[["x"]]]})
    frame.write_parquet(folder / "p.parquet")
    assert convert(folder, "", {"columns": PLAIN}, "p.parquet") == [("a", "v", T0)]
    shutil.rmtree(folder / "x")
    for name in ("s", "l"):
        for spec in (name, {"column": name, "time": "ms"}, {"column": name, "prefix": "p"}):
            assert convert(folder, "", {"columns": {**PLAIN, "like": spec}}, "p.parquet") == []
            assert "inter: like is of the type" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a:b", "x\ty", "x\ny", 'x"y', "_row", "_file", "", " ", "x "])
def test_names_that_no_header_can_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert convert(tmp_path / "r", f"u,i,t\na,v,{T0}\n", {"columns": {**PLAIN, name: "u"}}) == []
    assert f"{name!r} cannot be a field" in capsys.readouterr().err


def test_names_that_sql_cannot_tell_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, more in enumerate(({"USER_ID": "u"}, {"mine": "u", "Mine": "u"})):
        assert convert(tmp_path / str(number), f"u,i,t\na,v,{T0}\n", {"columns": {**PLAIN, **more}}) == []
        assert f"{list(more)[number]} differs from another field in upper and lower case" in capsys.readouterr().err


def test_patterns_from_the_root_and_bad_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    convert(folder, f"u,i,t\na,v,{T0}\n", {"columns": PLAIN})
    shutil.rmtree(folder / "x")
    assert convert(folder, "", {"columns": PLAIN, "file": str(folder / "i*.csv")}) == []
    assert "item.csv has no column i, t, u" in capsys.readouterr().err
    assert convert(folder, "", {"columns": PLAIN, "file": str(folder / "i.*")}) == [("a", "v", T0)]
    assert convert(folder, "", {"columns": PLAIN, "file": "**/i.csv"}) == [("a", "v", T0)]
    assert convert(folder, "", {"columns": PLAIN, "file": "i\0/*.csv"}) == []
    assert "is no pattern for files: embedded null byte" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["inter: 2023-13-45", "inter: !!int x", "inter: !!timestamp x", "inter: " + "[" * 5000, "inter: !!bool x"]
)
def test_yaml_at_which_its_reader_stumbles(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    assert main(["table", str(tmp_path), str(tmp_path / "x"), "--mapping", str(tmp_path / "map.yaml")]) == 2
    assert "is not YAML" in capsys.readouterr().err


def test_the_warehouse_example(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    raw = tmp_path / "export"
    stamp = int(T0) * 1000
    for day in ("2024-03-01", "2024-03-02"):
        views = {"uid": [1, 2], "vid": [7, 8], "ts": [stamp, stamp + 5000], "is_like": [1, 0], "is_collect": [0, 0]}
        frame = pl.DataFrame({**views, "is_share": [0, 0], "watch_ms": [1500, 10]})
        (raw / "views" / f"dt={day}").mkdir(parents=True)
        frame.with_columns(
            ts=pl.col("ts") + 9000 * (day > "2024-03-01"), is_share=pl.lit(int(day > "2024-03-01"))
        ).write_parquet(raw / "views" / f"dt={day}" / "part-00000.parquet")
    for name in ("videos", "comments", "comment_actions/dt=2024-02-29", "comment_actions/dt=2024-03-01"):
        (raw / name).mkdir(parents=True)
    pack = zstandard.ZstdCompressor().compress
    for number, line in enumerate(('7|5" disk|a;b|3|2000|2024-01-01 08:00:00', "8|NA||3||2024-01-02 08:00:00")):
        text = f"vid|title|topics|creator|duration_ms|created\n{line}\n"
        (raw / "videos" / f"part-0000{number}.csv.zst").write_bytes(pack(text.encode()))
    for day, line in (("2024-02-29", f"1,5,7,{int(T0)},like"), ("2024-03-01", f"2,5,7,{int(T0) + 1},report")):
        path = raw / "comment_actions" / f"dt={day}" / "000000_0.csv.gz"
        path.write_bytes(gzip.compress(f"{line}\n".encode()))
    said = b'{"cid": 5, "vid": 7, "body": "yes", "author": {"uid": 2}, "stats": {"likes": 4}}\n'
    (raw / "comments" / "2024-03.jsonl.zst").write_bytes(pack(said))
    mapping = EXAMPLE.with_name("warehouse_mapping.yaml")
    assert main(["table", str(raw), str(tmp_path / "x"), "--mapping", str(mapping), "--repeat", "all"]) == 0
    assert check(tmp_path / "x") == []
    inter = read_atomic(tmp_path / "x" / "x.inter", ["user_id", "item_id", "timestamp", "play_time"]).rows()
    assert inter == [("u1", "v7", T0, 1.5), ("u1", "v7", T0 + 9, 1.5), ("u2", "v8", T0 + 14, 0.01)]
    items = read_atomic(tmp_path / "x" / "x.item").rows()
    assert items == [
        ("v7", '5" disk', "a b", "u3", 2.0, 1704067200.0),
        ("v8", "NA", "", "u3", None, 1704153600.0),
    ]
    assert read_atomic(tmp_path / "x" / "x.cinter").rows() == [("u1", "c5", "v7", T0, 1.0, 0.0)]
    assert read_atomic(tmp_path / "x" / "x.comment").rows() == [("c5", "v7", "yes", "u2", 4.0)]


def test_fields_of_ones_own_may_be_split_and_are_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"columns": {**PLAIN, "words": {"column": "w", "split": ";"}, "ratio": {"expr": "a / b"}}}
    text = f"u,i,t,w,a,b\na,v,{T0},x;y z,1,2\n"
    assert convert(tmp_path / "one", text, spec) == [("a", "v", T0, 0.5, "x y_z")]
    assert check(tmp_path / "one" / "x") == []
    assert convert(tmp_path / "two", f"{text}a,v,{T0 + 1},,1,0\nb,v,{T0 + 1},,,0\n", spec) == []
    assert "i.csv: 1 × malformed number in .inter (line 3: ratio=inf)" in capsys.readouterr().err
    for name, more in (
        ("user_id", {"column": "u"}),
        ("like", {"column": "a"}),
        ("mine", {"column": "w", "prefix": "p"}),
    ):
        assert convert(tmp_path / name, text, {"columns": {**PLAIN, name: {**more, "split": ";"}}}) == []
        assert f"inter: {name} is one value; split makes a list" in capsys.readouterr().err


@pytest.mark.parametrize("inside", ["lr=0.1", "dt=2024-03-01", "like=3", "run [1]", "a[bc]*"])
def test_what_folders_are_called_changes_nothing(inside: str, tmp_path: Path) -> None:
    plain, odd = tmp_path / "plain" / "x", tmp_path / inside / "x"
    raw = logs(tmp_path / "logs")
    for out, work in ((plain, tmp_path), (odd, odd.parent)):
        work.mkdir(exist_ok=True)
        assert main(["table", str(raw), str(out), "--mapping", str(EXAMPLE), "--temp", str(work)]) == 0
    files = [path for path in sorted(plain.iterdir()) if path.suffix != ".json"]
    assert all((odd / path.name).read_bytes() == path.read_bytes() for path in files) and len(files) == 5
    assert main(["describe", str(odd)]) == 0


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_ids_in_expressions_stay_as_they_are(form: str, tmp_path: Path) -> None:
    users, videos = ["1723456789012345678", "1723456789012345679", "1723456789012345678"], ["007", "7", "0"]
    (tmp_path / "raw").mkdir()
    rows = [(u, v, str(1700000000 + n), "5") for n, (u, v) in enumerate(zip(users, videos, strict=True))]
    file = tmp_path / "raw" / f"views.{form}"
    if form == "csv":
        write_rows(file, [("u", "v", "t", "ms"), *rows])
    else:
        file.write_text("".join(json.dumps(dict(zip(("u", "v", "t", "ms"), row, strict=True))) + "\n" for row in rows))
    mapping = {
        "inter": {
            "file": file.name,
            "where": "CAST(u AS BIGINT) > 1723456789012345000 AND ms >= 5",
            "columns": {"user_id": {"expr": "u"}, "item_id": {"expr": "u || '_' || v"}, "timestamp": "t"},
        },
        "item": {"file": file.name, "columns": {"item_id": {"expr": "u || '_' || v"}, "title": "v"}},
    }
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping))
    assert main(["table", str(file.parent), str(tmp_path / "x"), "--mapping", str(tmp_path / "map.yaml")]) == 0
    found = read_atomic(tmp_path / "x" / "x.inter").select("user_id", "item_id").rows()
    assert found == [(u, f"{u}_{v}") for u, v in zip(users, videos, strict=True)]


def test_large_whole_numbers_are_numbers_and_told_texts_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, (one, two) = 1700000000, ("9007199254740993", "9007199254740992")  # as floats one and the same
    rows = [(one, "v", f"{start}000000001", "01", one), (two, "w", f"{start + 60}000000000", "11", "0.5")]
    write_rows(tmp_path / "raw" / "views.csv", [("u", "v", "ns", "month", "mixed"), *rows])
    mapping: dict[str, Any] = {
        "inter": {
            "file": "views.csv",
            "where": f"u >= {two} AND mixed <> '{two}'",
            "columns": {"user_id": {"expr": "u"}, "item_id": "v", "timestamp": {"expr": "ns / 1000000000"}},
        },
        "item": {"file": "views.csv", "columns": {"item_id": "v", "title": "v"}},
    }

    def convert(name: str) -> int:
        (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping))
        return main(["table", str(tmp_path / "raw"), str(tmp_path / name), "--mapping", str(tmp_path / "map.yaml")])

    expected = [(one, "v", float(start)), (two, "w", start + 60.0)]
    for expression in ("ns / 1000000000", "ns * 0.000000001"):
        mapping["inter"]["columns"]["timestamp"] = {"expr": expression}
        assert convert("x") == 0
        found = read_atomic(tmp_path / "x" / "x.inter").select("user_id", "item_id", "timestamp").rows()
        assert [(user, item, float(time)) for user, item, time in found] == expected
    mapping["inter"]["where"] = "month >= 3"
    assert convert("y") != 0
    assert "month holds text: CAST(month AS DOUBLE) makes numbers of it" in capsys.readouterr().err
    mapping["inter"]["where"] = "CAST(month AS DOUBLE) >= 3"
    assert convert("y") == 0
    assert read_atomic(tmp_path / "y" / "y.inter").height == 1
