"""KuaiComt's raw files to atomic files with pandas: the plain way, as a baseline for the converter's time and memory.

    python benchmarks/kuaicomt_pandas.py RAW OUT

Every file is read whole and in full. Positives are likes, collects and forwards of videos; of a repeated (user, video)
pair the earliest is kept; a caption becomes a title and tags; rows without an id, a time or the row that they refer to
are dropped. A caption without words is titled by its tags, and without these by the category. Times become seconds.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

MISSING = ["", "NA"]
FIRST, LAST = 631_152_000, 4_102_444_800  # Unix seconds: 1990 up to 2100
HASHTAG = r"[#＃]([^\s#＃]+)"


def read(path: Path, texts: Sequence[str] = ()) -> pd.DataFrame:
    """A raw file whole; comma- or tab-separated; `photo_id` is `video_id`. In `texts`, NA is a text like any other."""
    with open(path, encoding="utf-8", newline="") as handle:
        header = handle.readline().rstrip("\r\n")
    separator = "\t" if "\t" in header else ","
    others = {name: MISSING for name in header.split(separator) if name not in texts}
    frame = pd.read_csv(
        path,
        sep=separator,
        dtype=dict.fromkeys(texts, str),
        keep_default_na=False,
        na_values=others,
        low_memory=False,
    )
    return frame.rename(columns={"photo_id": "video_id"})


def with_ids(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The rows that have all the ids, these as integers."""
    return frame.dropna(subset=names).astype(dict.fromkeys(names, "int64"))


def with_time(frame: pd.DataFrame, name: str, per_second: int) -> pd.DataFrame:
    """The rows whose time is one, as `timestamp` in seconds."""
    seconds = pd.to_numeric(frame[name], errors="coerce") / per_second
    return frame.assign(timestamp=seconds)[seconds.between(FIRST, LAST, inclusive="left")]


def normalised(texts: pd.Series) -> pd.Series:
    """Texts in one line: runs of white space and control characters become one space."""
    return texts.str.replace(r"[\s\x00-\x1f\x7f-\x9f]+", " ", regex=True).str.strip()


def write(frame: pd.DataFrame, path: Path, fields: dict[str, str]) -> None:
    """The columns that `fields` maps to `name:type`, as an atomic file."""
    frame[list(fields)].rename(columns=fields).to_csv(path, sep="\t", index=False)
    print(f"{path.suffix:9} {len(frame):>10,} rows")


def convert(raw: Path, out: Path) -> None:
    """Write `.inter`, `.item`, `.cinter` and `.comment` of the data set that is named like the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    base = out / out.name

    videos = with_ids(read(raw / "video_features.csv", ["caption", "upload_dt"]), ["video_id"])
    uploaded = pd.to_datetime(videos["upload_dt"], format="%Y-%m-%d", errors="coerce").dt.tz_localize("Asia/Shanghai")
    videos["upload_time"] = (uploaded - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    videos = videos[videos["upload_time"].between(FIRST, LAST, inclusive="left")].drop_duplicates("video_id")
    tags = videos["caption"].str.findall(HASHTAG).map(lambda found: " ".join(dict.fromkeys(found)))
    title = normalised(videos["caption"].str.replace(HASHTAG, " ", regex=True))
    title = title.mask(title == "", tags)
    videos["title"] = title.mask(title == "", videos["category"].astype(str))
    videos["tags"] = normalised(tags)
    write(
        videos,
        base.with_suffix(".item"),
        {
            "video_id": "item_id:token",
            "title": "title:token_seq",
            "tags": "tags:token_seq",
            "author_id": "author_id:token",
            "category": "category:token",
            "duration": "duration:float",
            "upload_time": "upload_time:float",
        },
    )

    views = read(raw / "user_video_inter.csv")
    views = views[(views["is_like"] == 1) | (views["is_collect"] == 1) | (views["is_forward"] == 1)]
    views = with_time(with_ids(views, ["user_id", "video_id"]), "time_ms", 1000)
    views = views[views["video_id"].isin(videos["video_id"])]
    views = views.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "video_id"])
    write(
        views,
        base.with_suffix(".inter"),
        {
            "user_id": "user_id:token",
            "video_id": "item_id:token",
            "timestamp": "timestamp:float",
            "is_like": "like:float",
            "is_collect": "collect:float",
            "is_forward": "share:float",
            "is_follow": "follow:float",
            "is_comment": "comment:float",
            "play_time_ms": "play_time:float",
            "duration_ms": "duration:float",
        },
    )
    del views

    comments = with_ids(read(raw / "comment_features.csv", ["comment_content"]), ["comment_id", "video_id"])
    comments = comments[comments["video_id"].isin(videos["video_id"])].drop_duplicates("comment_id")
    comments["comment_content"] = normalised(comments["comment_content"])
    write(
        comments,
        base.with_suffix(".comment"),
        {
            "comment_id": "comment_id:token",
            "video_id": "item_id:token",
            "comment_content": "content:token_seq",
            "comment_like_cnt": "like_count:float",
            "comment_reply_out": "reply_count:float",
        },
    )

    talk = with_ids(read(raw / "user_comment_inter.csv"), ["user_id", "comment_id", "video_id"])
    talk = with_time(talk[(talk["is_like"] == 1) | (talk["is_reply"] == 1)], "time_stamp", 1)
    talk = talk.merge(comments[["comment_id", "video_id"]], on=["comment_id", "video_id"])
    talk = talk.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "comment_id"])
    write(
        talk,
        base.with_suffix(".cinter"),
        {
            "user_id": "user_id:token",
            "comment_id": "comment_id:token",
            "video_id": "item_id:token",
            "timestamp": "timestamp:float",
            "is_like": "like:float",
            "is_reply": "reply:float",
        },
    )


def main() -> int:
    """Convert and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder with the raw files")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the data set")
    options = parser.parse_args()
    started = time.perf_counter()
    convert(options.raw, options.out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.perf_counter() - started:.1f} s, peak memory {peak:,.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
