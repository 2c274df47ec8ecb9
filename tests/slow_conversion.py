"""The contract of `lsvcr-data` once more in plain Python, for tests: csv, dicts and sorted; sound raw files only."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from dataset_tools.__main__ import main
from dataset_tools.text import LOST_IDS

Row = dict[str, Any]
Tables = dict[str, list[tuple[str, ...]]]  # the files of a data set as text, the header first
SHANGHAI = timezone(timedelta(hours=8))
PAPER = "like,collect,forward"


def normal(text: str) -> str:
    """Control characters and runs of white space as one space, ends stripped."""
    plain = "".join(" " if char.isspace() or unicodedata.category(char) == "Cc" else char for char in text)
    return re.sub(" +", " ", plain).strip(" ")


def joined_tags(tags: Iterable[str]) -> str:
    """Distinct tags that are not empty; a blank inside one is `_`."""
    return " ".join(dict.fromkeys(tag for tag in (normal(tag).replace(" ", "_") for tag in tags) if tag))


def title_and_tags(caption: str, category: str) -> tuple[str, str]:
    """What a caption is split into: character by character, a hashtag lasts until a blank or the next mark."""
    words, tags, at = "", [], 0
    while at < len(caption):
        end = at + 1
        if caption[at] in "#＃":
            while end < len(caption) and caption[end] not in "#＃" and not is_blank(caption[end]):
                end += 1
        if end > at + 1:
            tags.append(caption[at + 1 : end])
            words += " "
        else:
            words += caption[at]
        at = end
    return normal(words) or normal(" ".join(tags)) or normal(category), joined_tags([*tags, category])


def given(text: str) -> str:
    """An id that may be missing: what RecBole's reader takes for missing is."""
    return "" if text.strip() in LOST_IDS else text


def is_blank(char: str) -> bool:
    """White space as Unicode has it; Python counts four control characters too."""
    return char.isspace() and char not in "\x1c\x1d\x1e\x1f"


def records(path: Path, separator: str = ",", names: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The rows of a CSV file by column; a file without header is not quoted."""
    content = path.read_bytes().decode()
    if names:
        return [dict(zip(names, line.split(separator), strict=True)) for line in content.split("\n")[:-1]]
    return list(csv.DictReader(io.StringIO(content, newline=""), delimiter=separator))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By time; `sorted` keeps the source's order where times are equal."""
    return sorted(rows, key=lambda row: row["timestamp"])


def without_repeats(rows: Iterable[Row]) -> list[Row]:
    """The first row of each pair of user and video."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for row in in_order(rows):
        if (row["user_id"], row["item_id"]) not in seen:
            seen.add((row["user_id"], row["item_id"]))
            kept.append(row)
    return kept


def k_core(tables: dict[str, list[Row]], least_user: int, least_item: int) -> dict[str, list[Row]]:
    """What stays of a data set when users and videos with few interactions go, again and again."""
    core = tables["inter"]
    while True:
        users, items = Counter(row["user_id"] for row in core), Counter(row["item_id"] for row in core)
        kept = [r for r in core if users[r["user_id"]] >= least_user and items[r["item_id"]] >= least_item]
        if len(kept) == len(core):
            break
        core = kept
    users_lost = {row["user_id"] for row in tables["inter"]} - {row["user_id"] for row in core}
    watched = {row["item_id"] for row in tables["inter"]}
    talked_about = {row["item_id"] for row in tables["cinter"]}
    items_lost = {
        item
        for item in (row["item_id"] for row in tables["item"])
        if item not in {row["item_id"] for row in core}
        and (item in watched or (least_item > 0 and item not in talked_about))
    }
    for row in tables["comment"]:  # the text stays, its author does not
        if row.get("user_id") in users_lost:
            row["user_id"] = ""
    return {
        "inter": core,
        **{
            suffix: [
                row
                for row in rows
                if row.get("item_id") not in items_lost
                and (suffix == "comment" or row.get("user_id") not in users_lost)
            ]
            for suffix, rows in tables.items()
            if suffix != "inter"
        },
    }


def number(text: str) -> float | None:
    return float(text) if text.strip() else None


def kuaicomt(
    raw: Path,
    separator: str = ",",
    ending: str = ".csv",
    unit: float = 1e3,
    cunit: float = 1.0,
    positive: Callable[[dict[str, str]], bool] | None = None,
) -> dict[str, list[Row]]:
    """The rows of every atomic file of a KuaiComt folder, those of `.inter` with repeats and in no order yet."""

    def read(name: str) -> list[dict[str, str]]:
        path = raw / f"{name}{ending}"
        return records(path, separator) if path.exists() else []

    def video(row: dict[str, str]) -> str:
        return row.get("video_id") or row["photo_id"]

    def some(row: dict[str, str], names: Mapping[str, str], size: float = 1) -> Row:
        return {ours: n if (n := number(row[theirs])) is None else n / size for ours, theirs in names.items()
                if theirs in row}  # fmt: skip

    flags = {"like": "is_like", "collect": "is_collect", "share": "is_forward", "follow": "is_follow"}
    flags |= {"comment": "is_comment"}
    positive = positive or (lambda row: any(float(row[f"is_{name}"]) for name in PAPER.split(",")))
    tables: dict[str, list[Row]] = {"inter": [], "item": [], "cinter": [], "comment": []}
    for row in filter(positive, read("user_video_inter")):
        time = {"timestamp": float(row.get("time_ms") or row["time_stamp"]) / unit}
        lengths = some(row, {"play_time": "play_time_ms", "duration": "duration_ms"}, 1e3)
        tables["inter"].append(
            {"user_id": row["user_id"], "item_id": video(row), **time, **some(row, flags), **lengths}
        )
    for row in read("video_features"):
        row |= {name: given(row[name]) for name in ("author_id", "category") if name in row}
        title, tags = title_and_tags(row["caption"], row.get("category", ""))
        made: Row = {"item_id": video(row), "title": title, "tags": tags}
        made |= {name: row[name] for name in ("author_id", "category") if name in row}
        made |= some(row, {"duration": "duration"}, 1e3)
        if "upload_dt" in row:
            day = row["upload_dt"]
            made["upload_time"] = datetime.fromisoformat(day).replace(tzinfo=SHANGHAI).timestamp() if day else None
        made |= {name: row[name] for name in ("video_type",) if name in row}
        tables["item"].append(made)
    for row in read("comment_features"):
        made = {"comment_id": row["comment_id"], "item_id": video(row), "content": normal(row["comment_content"])}
        counts = {"like_count": "comment_like_cnt", "reply_count": "comment_reply_out"}
        tables["comment"].append(made | some(row, counts))
    for row in read("user_comment_inter"):
        made = {"user_id": row["user_id"], "comment_id": row["comment_id"], "item_id": video(row)}
        made |= {"timestamp": float(row.get("time_stamp") or row["time_ms"]) / cunit}
        made |= some(row, {"like": "is_like", "reply": "is_reply"})
        if made["like"] or made["reply"]:
            tables["cinter"].append(made)
    if (raw / f"user_features{ending}").exists():
        tables["user"] = [
            {name: number(value) if re.fullmatch(".*_(num|count|days)", name) else value for name, value in row.items()}
            for row in read("user_features")
        ]
    return tables


def microlens(raw: Path, unit: float = 1e3, headless: bool = False) -> dict[str, list[Row]]:
    """The same of a MicroLens folder."""
    tables: dict[str, list[Row]] = {"cinter": [], "comment": []}
    pairs = records(next(raw.glob("*_pairs.csv")))
    tables["inter"] = [
        {"user_id": row["user"], "item_id": row["item"], "timestamp": float(row["timestamp"]) / unit} for row in pairs
    ]
    content = next(raw.glob("*_title*.csv")).read_bytes().decode()
    titles = list(csv.reader(io.StringIO(content, newline="")))[0 if headless else 1 :]
    tables["item"] = [{"item_id": item, "title": normal(title)} for item, title in titles]
    for path in raw.glob("*_likes_and_views.txt"):
        counted = {row["item"]: row for row in records(path, "\t", ["item", "likes", "views"])}
        for row in tables["item"]:
            of_it = counted.get(row["item_id"], {"likes": "", "views": ""})
            row |= {name: number(of_it[name]) for name in ("likes", "views")}
    for path in raw.glob("*_comment_en.txt"):
        times: dict[tuple[str, str], list[float]] = {}
        for row in in_order(tables["inter"]):
            times.setdefault((row["user_id"], row["item_id"]), []).append(row["timestamp"])
        said: Counter[tuple[str, str]] = Counter()
        for place, row in enumerate(records(path, "\t", ["user", "item", "content"]), start=1):
            pair = row["user"], row["item"]
            time = times[pair][min(said[pair], len(times[pair]) - 1)]
            said[pair] += 1
            event = {"user_id": row["user"], "comment_id": f"c{place}", "item_id": row["item"], "timestamp": time}
            tables["cinter"].append(event)
            written = {"comment_id": f"c{place}", "item_id": row["item"], "content": normal(row["content"])}
            tables["comment"].append(written | {"user_id": row["user"], "timestamp": time})
    return tables


TOKENS = {"user_id", "item_id", "comment_id", "author_id", "category", "parent_id"}
SEQUENCES = {"title", "tags", "content"}
NEEDED = {
    "inter": ["user_id", "item_id", "timestamp"],
    "item": ["item_id", "title"],
    "user": ["user_id"],
    "cinter": ["user_id", "comment_id", "item_id", "timestamp"],
    "comment": ["comment_id", "item_id", "content"],
}


def as_text(tables: dict[str, list[Row]], *, repeat: str = "first", core: tuple[int, int] = (0, 0)) -> Tables:
    """The atomic files of some rows: header and fields as they stand in the file."""
    tables = {**tables, "inter": (without_repeats if repeat == "first" else in_order)(tables["inter"])}
    tables["cinter"] = in_order(tables["cinter"])
    if max(core) > 0:
        tables = k_core(tables, *core)
    return {suffix: _lines(rows, NEEDED[suffix]) for suffix, rows in tables.items()}


def _lines(rows: list[Row], needed: list[str]) -> list[tuple[str, ...]]:
    names = list(rows[0]) if rows else needed
    columns, header = [], []
    for name in names:
        values = [row[name] for row in rows]
        is_number = name not in TOKENS | SEQUENCES and not any(isinstance(value, str) for value in values)
        header.append(f"{name}:{'float' if is_number else 'token_seq' if name in SEQUENCES else 'token'}")
        if is_number:
            whole = all(value is None or value == int(value) for value in values)
            values = ["" if v is None else str(int(v)) if whole else repr(float(v)) for v in values]
        columns.append([str(value) for value in values])
    return [tuple(header), *zip(*columns, strict=True)]


def written(folder: Path) -> Tables:
    """The atomic files of a folder, taken apart by the csv module."""
    tables = {}
    for path in folder.iterdir():
        if path.suffix not in (".json", ".yaml"):
            text = path.read_bytes().decode()
            assert text.endswith("\n") and "\r" not in text
            tables[path.suffix[1:]] = [
                tuple(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
            ]
    return tables


def same(got: Tables, expected: Tables) -> bool:
    """Whether two data sets agree, columns in any order; `assert` shows the first difference."""
    assert set(got) == set(expected)
    for suffix, (header, *rows) in expected.items():
        order = sorted(range(len(header)), key=lambda at: header[at])
        theirs = sorted(range(len(got[suffix][0])), key=lambda at: got[suffix][0][at])
        assert [got[suffix][0][at] for at in theirs] == [header[at] for at in order], suffix
        assert len(got[suffix]) == len(rows) + 1, suffix
        for mine, wanted in zip(got[suffix][1:], rows, strict=True):
            assert [mine[at] for at in theirs] == [wanted[at] for at in order], suffix
    return True


def meta_of(folder: Path) -> dict[str, Any]:
    """The meta file."""
    return dict(json.loads((folder / f"{folder.name}.meta.json").read_text(encoding="utf-8")))


def convert(source: str, raw: Path, out: Path, *options: str) -> Tables:
    """Convert, which must succeed; the files written."""
    assert main([source, str(raw), str(out), *options]) == 0
    return written(out)


def write_rows(path: Path, rows: Sequence[Sequence[Any]], separator: str = ",") -> bytes:
    """A CSV file of rows, the header first; gives its bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content
