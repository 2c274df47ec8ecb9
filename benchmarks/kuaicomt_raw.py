"""SYNTHETIC raw files in the shape of the public KuaiComt data set, of any size, from a seed.

    python benchmarks/kuaicomt_raw.py OUT                  # full size: 119.7 M impressions, 16.4 M comments
    python benchmarks/kuaicomt_raw.py OUT --scale 0.01     # every count multiplied, so a pair repeats more often
    python benchmarks/kuaicomt_raw.py OUT --scale 0.01 --dirty 0.001 --separator tab --names photo

File names, fields, types and ranges are those of the data set's description; every row, id and text is made up here.
Users are active to very different degrees, videos appear day by day and fade, watching a video for longer makes a like
likelier, and most comment interactions follow minutes after their video was watched. Captions and comments hold
hashtags in several forms, stickers, emoji, quotes, separators, line breaks, control characters (no NUL: pandas cuts a
field there), and texts such as NA. `long_view` follows its definition: the video, or 18 s of a longer one, was played.

The impressions stand in the order of their days, not of their users or times. The description and the data set's
relatives differ in the user fields: `--user-fields described` (the default) has `follow_count` and `fans_count`,
`kuairand` has `follow_user_num`, `fans_user_num`, `friend_user_num` and `register_days_range`. `--names` says whether
videos are named `video_id` everywhere, `photo_id` everywhere, or, as described, `photo_id` in user_comment_inter.csv.

`--dirty F` ADDS F times as many faulty rows to each file, copies of good rows that are left as they are (`copy`) or get
an id of NA (`na_id`), a key that no file has (`unknown_key`) or a time that cannot be right (`bad_time`). A faulty row
of a feature table that still has an id has a new one, so nothing refers to it, a copy stands after its original, and
without its faults a file is byte for byte what it is with `--dirty 0`: a converter that leaves faults out and keeps the
first of what is repeated has to come to the same result.

`truth.json` counts, for the good rows alone: rows, and the positives under `like|collect|forward` and under
`long_view` with their distinct users, videos and (user, video) pairs. `repeats` is the number of positives after the
first of their pair. The pairs of `long_view` are null above 10 million impressions. `faults` holds the number of each
kind by file, and how many of those rows would be positives.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dataset_tools.files import atomic_path, write_json

FULL_SIZE = {
    "impressions": 119_696_682,
    "comments": 16_352_904,
    "comment_interactions": 1_002_672,
    "users": 34_701,
    "videos": 82_452,
}
SEPARATORS = {"comma": ",", "tab": "\t"}
ROWS_PER_BLOCK = 1 << 19
COUNT_PAIRS_BELOW = 10_000_000  # impressions; above, the pairs under long_view are not counted

SHANGHAI = timezone(timedelta(hours=8))
FIRST_DAY = datetime(2023, 9, 30, tzinfo=SHANGHAI)
START = int(FIRST_DAY.astimezone(UTC).timestamp())  # Unix seconds
DAYS, DAY = 35, 86_400  # until 3 November; seconds
LONG_VIEW_MS = 18_000.0
BY_HOUR = [9, 6, 4, 3, 2, 3, 6, 10, 13, 14, 15, 17, 23, 21, 18, 17, 17, 19, 23, 27, 31, 33, 28, 17]  # watching

FLAG_RATES = {
    "is_like": 0.03,
    "is_follow": 0.002,
    "is_comment": 0.004,
    "is_forward": 0.003,
    "is_collect": 0.006,
    "is_hate": 0.0004,
}
POSITIVE = ("is_like", "is_collect", "is_forward")
COMMENTS_OPENED = 0.134  # of all impressions
AFTER_WATCHING = 0.85  # of all comment interactions
LEAST_COMMENTS = 55  # under a video, where there are enough

BAD_MS = ["", "abc", "2023-10-01 10:00:00", "0", "-5.0", "nan", "inf", "1696141175.0", "1696141175214000.0"]
BAD_SECONDS = ["", "abc", "2023-10-01 10:00:00", "0", "-5", "nan", "inf", "1696141175214", "99999999999"]
BAD_DATES = ["abc", "2023-13-01", "2023-02-30", "20231301", "0000-00-00", "3023-10-01"]

# ---- words ----


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


CATEGORIES = words("""
    明星娱乐 美食 搞笑 游戏 音乐 舞蹈 宠物 体育 汽车 亲子 时尚 美妆 旅游 科技 三农 情感 影视 教育 健康 军事 摄影
    房产家居 法律
""")
WHO = words("""
    我家猫 邻居大爷 老板 同桌 奶奶 这个小哥 楼下阿姨 我弟 那条狗 新来的实习生 班主任 外卖员 司机师傅 我妈 小朋友
    这位选手 主播 摊主 隔壁老王 二舅 表妹 食堂师傅 健身教练 保安大叔 舍友 对门邻居 老同学 剧组 导演 歌手 钓鱼佬 村里人
    快递小哥 卖瓜的 理发师 我爸 小姐姐 队友 裁判 店长 同事 房东 教练 医生 护士 老师 爷爷 演员 乐队 厨子
""")
DID = words("""
    又 终于 竟然 天天 每次都 从来不 昨晚 突然 偷偷 认真地 一口气 差点 居然 慢慢 当场 连夜 笑着 边走边 第一次 又双叒
    悄悄 早就 果然 反正 还是 不小心 三天两头 大半夜 一个人 跟我一起
""")
WHAT = words("""
    学会了做红烧肉 把车开进了菜地 唱完了整首歌 拆了我的快递 钓上来一条大鱼 考了全班第一 在雨里跳舞 修好了旧收音机
    睡着了 买了十斤橘子 讲了个冷笑话 找到了丢的钥匙 上了热门 剪坏了刘海 种出了大西瓜 追上了公交车 赢了比赛
    忘了带身份证 做了一桌菜 爬上了屋顶 跟狗吵架 学外语 练字 包饺子 骑车去海边 看日出 挤地铁 抢红包 打翻了酱油
    养了一只鹅 把作业写完了 减肥 熬夜追剧 画了一幅画 拍到了流星 卖光了包子 弹了一首老歌 说漏了嘴 搬了新家 换了发型
    背错了书包 煮了一锅粥 认错了人 上班迟到 给大家拜年 讲起小时候 修水管 学骑马 回老家 喂鸽子
""")
TAGS = words("""
    张睿 李晟 花非花雾非雾 快手新星 日常 搞笑 美食教程 家常菜 萌宠 猫咪 狗狗 旅行 周末去哪儿 国庆 中秋节
    秋天的第一杯奶茶 翻唱 广场舞 篮球 足球 英雄联盟 王者荣耀 手工 穿搭 口红 健身 减脂餐 育儿 农村生活 丰收 钓鱼
    汽车测评 电影解说 追剧 古风 摄影 夕阳 海边 正能量 感动 情侣 毕业季 打工人 上班族 学习打卡 历史 科普 冷知识 vlog
    DIY ootd 2023 4K 快手小剧场
""")
STICKERS = words("""
    [捂脸] [笑哭] [赞] [666] [狗头] [玫瑰] [流泪] [奸笑] [爱心] [呲牙][呲牙][呲牙] [吃瓜] [抱拳] [鼓掌] [疑问]
""")
EMOJI = words("""
    😂 👍👍 ❤️ 🌹🌹🌹 😭 🔥 👨‍👩‍👧 🇨🇳 🤔 ✌🏻 🐶 1️⃣
""")
PLAIN = words("""
    ！ 。 了 吧 呢 哈哈哈 太真实了 真不错 我也是 学到了 羡慕了 好想去 绝了 有点意思 说得对 怎么做到的 支持一下 求教程
    笑死我了 前排围观 路过 顶一个 同款 破防了 太有才了 看了三遍 收藏了 加油 辛苦了 不容易 厉害 感动哭了 必须点赞
    来晚了 谁懂啊 ok nice 666
""")
QUOTES = [",真的,不骗你", "，真的", ", no way", "，他说“好”", ',他说"好的"', '"', '（"引号"）', "'单引号'", ";分号"]
BREAKS = ["\n第二行", "\n\n隔一行再说", "\r\n换行符不同", "\r老式换行", "\\n不是换行", "\t制表符", "\x85下一行"]
CONTROLS = ["\x07响铃", "\x0b", "\x1b[0m", "\u200b", "\u200f右到左", "\u3000全角空格", "  ", "\ufeff"]
SYMBOLS = ["<b>粗</b>", "&amp;", "%s", "¯\\_(ツ)_/¯"]
WHOLE = (  # texts that stand alone, with their weights
    [("", 12), ("NA", 1), ("null", 1), ("None", 1), ("nan", 1), ("N/A", 1), (" ", 1), ("\n", 1), ("#", 1)]
    + [
        (text, 5)
        for text in ("哈哈哈哈", "👍", "[赞]", "666", "来了", "支持", "[捂脸]", "沙发", "🌹", "好", "？", "。。。")
    ]
)
WHOLE_SHARE = 0.06

# ---- fields ----

IMPRESSION_FIELDS = words("""
    user_id video_id p_hourmin time_ms is_click is_like is_follow is_comment is_forward is_collect is_hate long_view
    play_time_ms duration_ms profile_stay_time comment_stay_time
""")
COMMENT_INTER_FIELDS = ["user_id", "comment_id", "time_stamp", "photo_id", "is_like", "is_reply"]
VIDEO_FIELDS = ["video_id", "author_id", "video_type", "upload_dt", "caption", "duration", "category"]
COMMENT_FIELDS = words("comment_id comment_content video_id comment_like_cnt comment_reply_out show_comment_cnt_td")
ONE_HOT = [2, 7, 55, 1686, 6, 10, 3, 53, 392, 7, 5, 7, 2, 2, 2, 2, 2, 2, 2, 2, 5]  # values of onehot_feat0 … 20
USER_FIELDS = {
    "described": words("""
        user_id user_active_degree is_live_author produce_video_num follow_count follow_user_num_range fans_count
        fans_user_num_range friend_user_num_range register_days
    """),
    "kuairand": words("""
        user_id user_active_degree is_live_author produce_video_num follow_user_num follow_user_num_range
        fans_user_num fans_user_num_range friend_user_num friend_user_num_range register_days register_days_range
    """),
}
# Upper bounds, which belong to their range, and the ranges' names.
FOLLOW = ([0, 10, 50, 100, 150, 250, 500], words("0 (0,10] (10,50] (50,100] (100,150] (150,250] (250,500] 500+"))
FANS = ([0, 9, 99, 999, 4_999, 9_999], words("0 [1,10) [10,100) [100,1k) [1k,5k) [5k,1w) [1w,10w)"))
FRIENDS = ([0, 4, 29, 59, 119, 249], words("0 [1,5) [5,30) [30,60) [60,120) [120,250) 250+"))
REGISTERED = ([14, 30, 60, 90, 180, 365, 730], words("-14 15-30 31-60 61-90 91-180 181-365 366-730 730+"))


@dataclass(frozen=True)
class Sizes:
    """How many good rows each file gets."""

    impressions: int
    comments: int
    comment_interactions: int
    users: int
    videos: int

    def scaled(self, scale: float) -> Sizes:
        """Every count times `scale`, at least 1."""
        return Sizes(*(max(round(getattr(self, one.name) * scale), 1) for one in fields(self)))


@dataclass(frozen=True)
class Options:
    """What to generate and how to write it."""

    sizes: Sizes
    seed: int = 1
    separator: str = "comma"
    names: str = "mixed"
    user_fields: str = "described"
    dirty: float = 0.0

    def column(self, name: str) -> str:
        """A documented field's name under `names`."""
        if self.names == "mixed" or name not in ("video_id", "photo_id"):
            return name
        return f"{self.names}_id"


# ---- numbers ----


class Ids:
    """Numbers 0, 1, 2 … as distinct ids from `low` up, neither dense nor in order; `prime` bounds them."""

    def __init__(self, rng: np.random.Generator, low: int, prime: int) -> None:
        self.low, self.prime = low, prime
        self.factor, self.shift = int(rng.integers(prime // 3, prime // 2)), int(rng.integers(prime))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """The ids int64 of numbers below 3 × 10^7 (more would overflow)."""
        return self.low + (numbers.astype(np.int64) * self.factor + self.shift) % self.prime


def lookup(weights: np.ndarray, size: int) -> np.ndarray:
    """A table in which number i stands about `weights[i] × size` times (once at least if it weighs anything).

    An entry drawn uniformly is a draw by weight.
    """
    times = np.rint(weights / weights.sum() * size).astype(np.int64)
    return np.repeat(np.arange(len(weights), dtype=np.int32), np.where(weights > 0, np.maximum(times, 1), 0))


def draw(table: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` draws from a `lookup` table, with replacement."""
    return table[rng.integers(0, len(table), count, dtype=np.int32)]


def shares(weights: np.ndarray, total: int) -> np.ndarray:
    """`total` split into whole parts in proportion to `weights`."""
    return np.diff(np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64), prepend=0)


def flags(chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 or 1 (int8), each with its chance of a 1."""
    return (rng.random(len(chance), dtype=np.float32) < chance).astype(np.int8)


def bins(values: np.ndarray, ranges: tuple[list[int], list[str]]) -> pl.Series:
    """The name of the range that each value falls into."""
    return pl.Series(ranges[1]).gather(np.searchsorted(ranges[0], values))


# ---- the invented world ----


class World:
    """Users, videos and comments as numbers: everything that more than one file depends on.

    Comments are numbered video by video; those of video v are `first_comment[v]` up to `first_comment[v + 1]`.
    """

    def __init__(self, sizes: Sizes, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.sizes = sizes
        self.user_ids = Ids(rng, 100_000, 2**32 - 5)
        self.video_ids = Ids(rng, 50_000_000_000, 2**36 - 5)
        self.comment_ids = Ids(rng, 400_000_000_000, 2**38 - 45)
        self.users = self.user_ids(np.arange(sizes.users))
        self.videos = self.video_ids(np.arange(sizes.videos))

        activity = rng.lognormal(0, 1.1, sizes.users)
        self.user_table = lookup(activity, 1 << 20)
        self.minute_table = lookup(np.repeat(np.array(BY_HOUR, dtype=float), 60), 1 << 15)
        warmth = np.minimum(rng.lognormal(0, 1.0, sizes.users), 12)
        self.warmth = (warmth / np.average(warmth, weights=activity)).astype(np.float32)
        self.patience = rng.lognormal(0, 0.35, sizes.users).astype(np.float32)
        self.talk = rng.lognormal(0, 1.2, sizes.users)

        self.popularity = rng.permutation(1 / (np.arange(sizes.videos) + 200.0) ** 0.8)
        before = rng.random(sizes.videos) < 0.45
        uploaded = np.where(before, -rng.geometric(0.03, sizes.videos), rng.integers(0, DAYS, sizes.videos))
        uploaded[0] = min(uploaded[0], 0)  # the first day has something to show
        self.uploaded = uploaded  # days after the first
        duration = np.clip(rng.lognormal(10.1, 0.9, sizes.videos), 3_000, 900_000)
        self.duration = np.rint(duration / 33.3) * 33.0  # ms

        talked_about = self.popularity * rng.lognormal(0, 0.6, sizes.videos)
        least = min(LEAST_COMMENTS, sizes.comments // (2 * sizes.videos))
        counts = least + shares(talked_about, sizes.comments - least * sizes.videos)
        self.first_comment = np.concatenate([[0], np.cumsum(counts)])

    def show_table(self, day: int) -> np.ndarray:
        """The videos to draw from on a day: uploaded by then, the recent ones more often."""
        age = day - self.uploaded
        weights = np.where(age >= 0, self.popularity * (0.05 + np.exp(-np.maximum(age, 0) / 9.0)), 0)
        return lookup(weights, min(1 << 21, 64 * self.sizes.videos))

    def video_of_comment(self, comments: np.ndarray) -> np.ndarray:
        """The video's number of each comment's."""
        return np.searchsorted(self.first_comment, comments, side="right") - 1


# ---- faults and counts ----


@dataclass(frozen=True)
class Harm:
    """A kind of fault: ONE of the columns gets one of its values; the column `new_id` gets an id of its own."""

    replace: Mapping[str, Sequence[str]] = field(default_factory=dict)
    new_id: str | None = None


class Faults:
    """Adds faulty rows to blocks of files and counts them; draws from a generator of its own."""

    def __init__(self, share: float, seed: int, world: World) -> None:
        self.share, self.rng, self.world = share, np.random.default_rng([seed, 9]), world
        self.counts: dict[str, dict[str, int]] = {}
        self.positives: dict[str, dict[str, int]] = {}
        self.owed: dict[str, float] = {}
        sizes = world.sizes
        self.makers = {"video_id": (world.video_ids, sizes.videos), "comment_id": (world.comment_ids, sizes.comments)}
        self.made = dict.fromkeys(self.makers, 1000)  # the first thousand are for `unknown`

    def unknown(self, column: str) -> list[str]:
        """Ids of the right form that no feature table holds."""
        ids, known = self.makers[column]
        return ids(np.arange(known, known + 1000)).astype(str).tolist()

    def _new(self, column: str, count: int) -> pl.Series:
        ids, known = self.makers[column]
        start = known + self.made[column]
        self.made[column] += count
        return pl.Series(ids(np.arange(start, start + count)).astype(str).tolist(), dtype=pl.String)

    def plant(
        self, file: str, block: pl.DataFrame, harms: Mapping[str, Harm], marks: Mapping[str, np.ndarray] | None = None
    ) -> pl.DataFrame:
        """The block with its share of faulty rows at random places after their originals.

        `marks` are sets of rows to count by, and half of the faults are copies of rows of the first set.
        """
        counts = self.counts.setdefault(file, dict.fromkeys(harms, 0))
        due = self.owed.get(file, 0.0) + self.share * block.height
        number = int(due)
        self.owed[file] = due - number
        if not number:
            return block
        rows = self.rng.integers(0, block.height, number)
        kinds = np.sort(self.rng.integers(0, len(harms), number))
        marked = np.flatnonzero(next(iter(marks.values()))) if marks else np.array([], dtype=np.int64)
        if len(marked):
            rows = np.where(self.rng.random(number) < 0.5, self.rng.choice(marked, number), rows)
        parts = [block.with_columns(pl.all().cast(pl.String))]
        for place, (kind, harm) in enumerate(harms.items()):
            chosen = rows[kinds == place]
            counts[kind] += len(chosen)
            for name, mark in (marks or {}).items():
                by_kind = self.positives.setdefault(name, dict.fromkeys(harms, 0))
                by_kind[kind] += int(mark[chosen].sum())
            parts.append(self._harmed(parts[0][chosen], harm))
        keys = np.concatenate([np.arange(block.height), self.rng.integers(rows, block.height)])
        return pl.concat(parts)[np.argsort(keys, kind="stable")]

    def _harmed(self, rows: pl.DataFrame, harm: Harm) -> pl.DataFrame:
        which = self.rng.integers(0, max(len(harm.replace), 1), rows.height)
        for place, (column, values) in enumerate(harm.replace.items()):
            bad = pl.Series(values, dtype=pl.String).gather(self.rng.integers(0, len(values), rows.height))
            rows = rows.with_columns(
                pl.when(pl.Series(which == place)).then(bad.replace("", None)).otherwise(pl.col(column)).alias(column)
            )
        return rows.with_columns(self._new(harm.new_id, rows.height).alias(harm.new_id)) if harm.new_id else rows


class Positives:
    """Counts the positives of one rule block by block."""

    def __init__(self, sizes: Sizes, *, count_pairs: bool) -> None:
        self.rows = 0
        self.users, self.videos = np.zeros(sizes.users, dtype=bool), np.zeros(sizes.videos, dtype=bool)
        self.pairs: list[np.ndarray] | None = [] if count_pairs else None

    def add(self, users: np.ndarray, videos: np.ndarray) -> None:
        """Positives by the numbers of their users and videos."""
        self.rows += len(users)
        self.users[users] = True
        self.videos[videos] = True
        if self.pairs is not None:
            self.pairs.append(users.astype(np.int64) * len(self.videos) + videos)

    def summary(self) -> dict[str, int | None]:
        """Rows, distinct users, videos and pairs, and rows after the first of their pair."""
        pairs = None if self.pairs is None else len(np.unique(np.concatenate([np.array([], np.int64), *self.pairs])))
        return {
            "rows": self.rows,
            "users": int(self.users.sum()),
            "videos": int(self.videos.sum()),
            "pairs": pairs,
            "repeats": None if pairs is None else self.rows - pairs,
        }


# ---- files ----


class Generator:
    """Writes the files; each draws from a generator of its own, so that none depends on how another is made."""

    def __init__(self, out: Path, options: Options) -> None:
        self.out, self.options, self.sizes = out, options, options.sizes
        self.world = World(options.sizes, options.seed)
        self.faults = Faults(options.dirty, options.seed, self.world)
        self.positives = {
            "like|collect|forward": Positives(self.sizes, count_pairs=True),
            "long_view": Positives(self.sizes, count_pairs=self.sizes.impressions <= COUNT_PAIRS_BELOW),
        }
        none = np.array([], dtype=np.int64)
        self.watched = [
            (none, none, none)
        ]  # users, videos, Unix seconds of watching that a comment interaction follows
        self.comment_truth: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.rows: dict[str, int] = {}

    def run(self) -> dict[str, Any]:
        """Write every file; returns the truth."""
        self._write("user_features", self._user_blocks())
        self._write("video_features", self._video_blocks())
        self._write("user_video_inter", self._impression_blocks())
        self._write("user_comment_inter", self._comment_interaction_blocks())
        self._write("comment_features", self._comment_blocks())
        good = {
            "user_features": self.sizes.users,
            "video_features": self.sizes.videos,
            "user_video_inter": self.sizes.impressions,
            "user_comment_inter": self.sizes.comment_interactions,
            "comment_features": self.sizes.comments,
        }
        truth = {
            "note": "SYNTHETIC data in the shape of KuaiComt (benchmarks/kuaicomt_raw.py): no real user or text",
            "seed": self.options.seed,
            "separator": self.options.separator,
            "names": self.options.names,
            "user_fields": self.options.user_fields,
            "dirty": self.options.dirty,
            "rows": self.rows,
            "good_rows": good,
            "positives": {name: found.summary() for name, found in self.positives.items()},
            "comment_interactions": self.comment_truth,
            "faults": self.faults.counts,
            "faults_among_positives": self.faults.positives,
        }
        write_json(self.out / "truth.json", truth)
        return truth

    def _write(self, name: str, blocks: Iterator[pl.DataFrame]) -> None:
        started, rows = time.perf_counter(), 0
        with atomic_path(self.out / f"{name}.csv") as temporary, open(temporary, "wb") as handle:
            for block in blocks:
                renamed = block.rename(self.options.column)
                renamed.write_csv(
                    handle, include_header=not rows, separator=SEPARATORS[self.options.separator], batch_size=1 << 14
                )
                rows += block.height
        self.rows[name] = rows
        self.seconds[name] = time.perf_counter() - started

    def _user_blocks(self) -> Iterator[pl.DataFrame]:
        rng, count = np.random.default_rng([self.options.seed, 1]), self.sizes.users
        follows = np.floor(rng.lognormal(5, 1.3, count) * (rng.random(count) > 0.02)).astype(np.int64)
        fans = np.minimum(np.floor(rng.lognormal(3.6, 1.8, count) * (rng.random(count) > 0.03)), 99_999).astype(int)
        friends = np.minimum(np.floor(np.minimum(follows, fans) * rng.random(count)), 5_000).astype(np.int64)
        days = np.clip(np.floor(rng.gamma(3, 450, count)), 1, 4_200).astype(np.int64)
        degrees = pl.Series(["full_active", "high_active", "middle_active", "UNKNOWN"])
        columns = {
            "user_id": self.world.users,
            "user_active_degree": degrees.gather(draw(lookup(np.array([60.0, 28, 10, 2]), 1000), count, rng)),
            "is_live_author": flags(np.full(count, 0.06), rng),
            "produce_video_num": np.minimum(rng.geometric(0.25, count) - 1, 400),
            "follow_count": follows,
            "follow_user_num": follows,
            "follow_user_num_range": bins(follows, FOLLOW),
            "fans_count": fans,
            "fans_user_num": fans,
            "fans_user_num_range": bins(fans, FANS),
            "friend_user_num": friends,
            "friend_user_num_range": bins(friends, FRIENDS),
            "register_days": days,
            "register_days_range": bins(days, REGISTERED),
        }
        wanted = {name: columns[name] for name in USER_FIELDS[self.options.user_fields]}
        wanted |= {f"onehot_feat{place}": rng.integers(0, values, count) for place, values in enumerate(ONE_HOT)}
        frame = pl.DataFrame(wanted)[rng.permutation(count)]
        yield self.faults.plant("user_features", frame, {"copy": Harm(), "na_id": Harm({"user_id": ["NA"]})})

    def _video_blocks(self) -> Iterator[pl.DataFrame]:
        rng, count, world = np.random.default_rng([self.options.seed, 2]), self.sizes.videos, self.world
        authors = Ids(rng, 100_000, 2**32 - 5)(draw(lookup(rng.lognormal(0, 1, count // 3 + 1), 1 << 18), count, rng))
        dates = [str((FIRST_DAY + timedelta(days=int(day))).date()) for day in world.uploaded]
        category = rng.permutation(len(CATEGORIES))[np.minimum(rng.geometric(0.1, count) - 1, len(CATEGORIES) - 1)]
        frame = pl.DataFrame(
            {
                "video_id": world.videos,
                "author_id": authors,
                "video_type": pl.Series(["NORMAL", "AD"]).gather(flags(np.full(count, 0.015), rng)),
                "upload_dt": dates,
                "caption": pl.Series(captions(count, rng), dtype=pl.String).replace("", None),
                "duration": world.duration,
                "category": pl.Series(CATEGORIES).gather(category),
            }
        )[rng.permutation(count)]
        harms = {
            "copy": Harm(),
            "na_id": Harm({"video_id": ["NA"]}),
            "bad_time": Harm({"upload_dt": BAD_DATES}, new_id="video_id"),
        }
        yield self.faults.plant("video_features", frame.select(VIDEO_FIELDS), harms)

    def _impression_blocks(self) -> Iterator[pl.DataFrame]:
        rng = np.random.default_rng([self.options.seed, 3])
        harms = {
            "copy": Harm(),
            "na_id": Harm({"user_id": ["NA"], "video_id": ["NA"]}),
            "unknown_key": Harm({"video_id": self.faults.unknown("video_id")}),
            "bad_time": Harm({"time_ms": BAD_MS}),
        }
        weekdays = np.array([1.25 if (FIRST_DAY + timedelta(days=day)).weekday() > 4 else 1.0 for day in range(DAYS)])
        wanted, done, taken = round(self.sizes.comment_interactions * AFTER_WATCHING), 0, 0
        for day, rows in enumerate(shares(weekdays * rng.uniform(0.9, 1.1, DAYS), self.sizes.impressions).tolist()):
            videos = self.world.show_table(day) if rows else np.array([])
            for start in range(0, rows, ROWS_PER_BLOCK):
                columns, users, shown = self._impressions(day, min(ROWS_PER_BLOCK, rows - start), videos, rng)
                done += len(users)
                taken += self._comment_on(columns, users, shown, wanted * done // self.sizes.impressions - taken, rng)
                marks = {
                    "like|collect|forward": np.logical_or.reduce([columns[name] == 1 for name in POSITIVE]),
                    "long_view": columns["long_view"] == 1,
                }
                for name, mark in marks.items():
                    self.positives[name].add(users[mark], shown[mark])
                frame = pl.DataFrame({name: columns[name] for name in IMPRESSION_FIELDS})
                yield self.faults.plant("user_video_inter", frame, harms, marks)

    def _impressions(
        self, day: int, count: int, table: np.ndarray, rng: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Columns of one block of a day, and the numbers of its users and videos."""
        world = self.world
        users, videos = draw(world.user_table, count, rng), draw(table, count, rng)
        again = rng.integers(0, count, count // 200)  # what a user has seen comes up once more
        videos[again], users[again] = videos[again[::-1]], users[again[::-1]]

        minute = draw(world.minute_table, count, rng)
        moment = minute * 60_000 + rng.integers(0, 60_000, count, dtype=np.int32)
        duration = world.duration[videos]
        enough = np.minimum(duration, LONG_VIEW_MS)
        played = rng.standard_exponential(count, dtype=np.float32) * world.patience[users] * 0.78 * enough
        played = np.floor(np.minimum(played, 3 * duration))
        long_view = played >= enough
        # About 27 % of the views are long, so the factors are 1 on average.
        chance = world.warmth[users] * np.where(long_view, np.float32(2.2), np.float32(0.56))
        opened = rng.random(count, dtype=np.float32) < COMMENTS_OPENED * np.where(long_view, 2.0, 0.63)
        columns: dict[str, np.ndarray] = {
            "user_id": world.users[users],
            "video_id": world.videos[videos],
            "p_hourmin": (minute // 60 * 100).astype(np.int16),
            "time_ms": (START + day * DAY) * 1000.0 + moment,
            "is_click": flags(np.where(long_view, np.float32(0.9), np.float32(0.3)), rng),
            **{name: flags(chance * np.float32(rate), rng) for name, rate in FLAG_RATES.items()},
            "long_view": long_view.astype(np.int8),
            "play_time_ms": played,
            "duration_ms": duration,
            "profile_stay_time": stay(rng.random(count, dtype=np.float32) < 0.02, 8.5, rng),
            "comment_stay_time": stay(opened, 9.0, rng),
        }
        return columns, users, videos

    def _comment_on(
        self,
        columns: Mapping[str, np.ndarray],
        users: np.ndarray,
        videos: np.ndarray,
        count: int,
        rng: np.random.Generator,
    ) -> int:
        """Choose impressions that a comment interaction follows upon, where comments were opened; how many."""
        opened = np.flatnonzero(columns["comment_stay_time"])
        if not len(opened) or not count:
            return 0
        candidates = rng.choice(opened, 3 * count)
        inclined = np.cumsum(self.world.talk[users[candidates]])
        chosen = candidates[np.searchsorted(inclined, rng.random(count) * inclined[-1], side="right")]
        self.watched.append((users[chosen], videos[chosen], columns["time_ms"][chosen] // 1000))
        return count

    def _comment_interaction_blocks(self) -> Iterator[pl.DataFrame]:
        rng, world, total = np.random.default_rng([self.options.seed, 4]), self.world, self.sizes.comment_interactions
        counts = np.diff(world.first_comment)
        users, videos, times = (np.concatenate(column) for column in zip(*self.watched, strict=True))
        self.watched.clear()
        others = total - len(users)
        users = np.concatenate([users, draw(world.user_table, others, rng)]).astype(np.int64)
        elsewhere = world.video_of_comment(rng.integers(0, self.sizes.comments, others))
        earliest = START + np.maximum(world.uploaded[elsewhere], 0) * DAY
        videos = np.concatenate([videos, elsewhere]).astype(np.int64)
        times = np.concatenate([times, earliest + rng.random(others) * (START + DAYS * DAY - earliest)])

        silent = counts[videos] == 0  # a small set may have videos without comments
        videos[silent] = world.video_of_comment(rng.integers(0, self.sizes.comments, int(silent.sum())))
        comments = world.first_comment[videos] + np.floor(counts[videos] * rng.random(total) ** 3).astype(np.int64)
        stamps = np.minimum(times + 3 + rng.exponential(60, total), START + DAYS * DAY - 1).astype(np.int64)
        kind = draw(lookup(np.array([80.0, 14, 6]), 100), total, rng)  # like, reply, both
        frame = pl.DataFrame(
            {
                "user_id": world.users[users],
                "comment_id": world.comment_ids(comments),
                "time_stamp": stamps,
                "photo_id": world.videos[videos],
                "is_like": (kind != 1).astype(np.int8),
                "is_reply": (kind != 0).astype(np.int8),
            }
        )[rng.permutation(total)]
        self.comment_truth = {
            "rows": total,
            "users": len(np.unique(users)),
            "comments": len(np.unique(comments)),
            "videos": len(np.unique(videos)),
            "pairs": len(np.unique(users * self.sizes.comments + comments)),
        }
        harms = {
            "copy": Harm(),
            "na_id": Harm({"user_id": ["NA"], "comment_id": ["NA"], "photo_id": ["NA"]}),
            "unknown_key": Harm(
                {"comment_id": self.faults.unknown("comment_id"), "photo_id": self.faults.unknown("video_id")}
            ),
            "bad_time": Harm({"time_stamp": BAD_SECONDS}),
        }
        yield self.faults.plant("user_comment_inter", frame.select(COMMENT_INTER_FIELDS), harms)

    def _comment_blocks(self) -> Iterator[pl.DataFrame]:
        rng, world, total = np.random.default_rng([self.options.seed, 5]), self.world, self.sizes.comments
        factor, shift = int(rng.integers(1, total + 1)), int(rng.integers(total))
        while math.gcd(factor, total) != 1:
            factor += 1
        write = CommentWriter()
        harms = {
            "copy": Harm(),
            "na_id": Harm({"comment_id": ["NA"]}),
            "unknown_key": Harm({"video_id": self.faults.unknown("video_id")}, new_id="comment_id"),
        }
        for start in range(0, total, ROWS_PER_BLOCK):
            rows = np.arange(start, min(start + ROWS_PER_BLOCK, total))
            comments = (rows * factor + shift) % total  # every comment once, in no order
            videos = world.video_of_comment(comments)
            first, after = world.first_comment[videos], world.first_comment[videos + 1]
            place = (comments - first + 0.5) / (after - first)  # among its video's comments, the liked ones first
            likes = np.floor(rng.lognormal(0.3, 1.2, len(rows)) * (place**-0.6 - 0.8)).astype(np.int64)
            frame = pl.DataFrame(
                {
                    "comment_id": world.comment_ids(comments),
                    "comment_content": write(len(rows), rng),
                    "video_id": world.videos[videos],
                    "comment_like_cnt": likes,
                    "comment_reply_out": np.floor(likes * rng.exponential(0.06, len(rows))).astype(np.int64),
                    "show_comment_cnt_td": likes * 5 + rng.geometric(0.04, len(rows)),
                }
            )
            yield self.faults.plant("comment_features", frame.select(COMMENT_FIELDS), harms)


def stay(stayed: np.ndarray, log_mean: float, rng: np.random.Generator) -> np.ndarray:
    """Milliseconds (int64) of a stay, 0 where there was none."""
    time_ms = np.zeros(len(stayed), dtype=np.int64)
    time_ms[stayed] = np.ceil(rng.lognormal(log_mean, 1.0, int(stayed.sum())))
    return time_ms


def captions(count: int, rng: np.random.Generator) -> list[str]:
    """Captions of videos: a sentence and hashtags, either of which may be missing."""
    sentences, tails = rng.integers(0, [len(WHO), len(DID), len(WHAT)], (count, 3)), tail_pool()
    tail = draw(tails[1], count, rng)
    many = np.minimum(rng.geometric(0.35, count) - 1, 8)
    chosen = iter(np.minimum(rng.geometric(0.04, int(many.sum())) - 1, len(TAGS) - 1).tolist())
    between = iter(draw(lookup(np.array([45.0, 30, 20, 5]), 100), int(many.sum()), rng).tolist())
    form, number = rng.random((count, 3)), rng.integers(1, 500, count)
    texts = []
    for row, (who, did, what) in enumerate(sentences.tolist()):
        mark = "＃" if form[row, 1] < 0.03 else "#"
        tags = "".join(f"{mark}{TAGS[next(chosen)]}{('', ' ', '  ', '　')[next(between)]}" for _ in range(many[row]))
        body = f"{WHO[who]}{DID[did]}{WHAT[what]}{tails[0][tail[row]]}"
        if form[row, 2] < 0.05:
            body += f"@快手用户{number[row]} "
        if form[row, 0] < 0.03:
            body, tags = "", tags if form[row, 1] < 0.6 else ""
        elif form[row, 0] < 0.034:
            body, tags = ("NA", "null", "None", "nan")[number[row] % 4], ""
        texts.append(tags + body if form[row, 2] > 0.97 else body + tags)
    return texts


def tail_pool() -> tuple[list[str], np.ndarray]:
    """What may follow a sentence, and a table to draw it from: plain words mostly, now and then something odd."""
    tails, weights = [], []
    for group, share in ((["", *PLAIN], 66), (STICKERS, 18), (EMOJI, 10), (QUOTES + BREAKS + CONTROLS + SYMBOLS, 6)):
        tails += group
        weights += [share / len(group)] * len(group)
    return tails, lookup(np.array(weights), 1 << 16)


class CommentWriter:
    """Comment texts from pools: a sentence, an end, often a number; some are one of a few texts that stand alone."""

    def __init__(self) -> None:
        self.sentences = pl.Series([who + did + what for who in WHO for did in DID for what in WHAT])
        self.short = pl.Series([*WHAT, *PLAIN, *(who + did for who in WHO for did in DID)])
        tails, self.tail_table = tail_pool()
        self.tails = pl.Series(tails)
        self.numbers = pl.Series(["", *(f"{number}" for number in range(2, 5000)), *(f"@用户{n}" for n in range(2000))])
        self.whole = pl.Series([text for text, _ in WHOLE], dtype=pl.String)
        self.whole_table = lookup(np.array([weight for _, weight in WHOLE], dtype=float), 1 << 12)

    def __call__(self, count: int, rng: np.random.Generator) -> pl.Series:
        """`count` texts; one that is empty is null."""
        brief = rng.random(count, dtype=np.float32) < 0.35
        sentence = rng.integers(0, len(self.sentences), count, dtype=np.int32)
        number = np.where(rng.random(count, dtype=np.float32) < 0.4, 0, rng.integers(0, len(self.numbers), count))
        alone = rng.random(count, dtype=np.float32) < WHOLE_SHARE
        pieces = pl.DataFrame(
            {
                "long": self.sentences.gather(sentence),
                "short": self.short.gather(sentence % len(self.short)),
                "tail": self.tails.gather(draw(self.tail_table, count, rng)),
                "number": self.numbers.gather(number),
                "whole": self.whole.gather(draw(self.whole_table, count, rng)),
                "brief": brief,
                "alone": alone,
            }
        )
        start = pl.when("brief").then("short").otherwise("long")
        text = pl.when("alone").then("whole").otherwise(pl.concat_str(start, "tail", "number"))
        return pieces.select(pl.when(text != "").then(text)).to_series()


# ---- command ----


def generate(out: Path, options: Options) -> Generator:
    """Write the raw files, `truth.json` and a note into `out`; the returned object holds seconds and rows by file."""
    out.mkdir(parents=True, exist_ok=True)
    generator = Generator(out, options)
    truth = generator.run()
    with atomic_path(out / "SYNTHETIC.txt") as temporary:
        temporary.write_text(f"{truth['note']}\n", encoding="utf-8")
    return generator


def parsed(arguments: Sequence[str] | None) -> tuple[Path, Options]:
    """The folder and the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    for name, size in FULL_SIZE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size, metavar="N", help=f"default {size}")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for all the counts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--separator", choices=list(SEPARATORS), default="comma")
    parser.add_argument("--names", choices=["mixed", "video", "photo"], default="mixed", help="video_id or photo_id")
    parser.add_argument("--user-fields", choices=list(USER_FIELDS), default="described")
    parser.add_argument("--dirty", type=float, default=0.0, metavar="F", help="faulty rows added, per good row")
    given = parser.parse_args(arguments)
    if min(getattr(given, name) for name in FULL_SIZE) < 1 or given.scale <= 0 or not 0 <= given.dirty <= 1:
        parser.error("counts must be at least 1, --scale above 0, --dirty within 0 and 1")
    sizes = Sizes(**{name: getattr(given, name) for name in FULL_SIZE}).scaled(given.scale)
    if max(sizes.comments, sizes.videos, sizes.users) > 25_000_000:
        parser.error("at most 25 million users, videos and comments")
    return given.out, Options(sizes, given.seed, given.separator, given.names, given.user_fields, given.dirty)


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate and say how fast."""
    out, options = parsed(arguments)
    generator = generate(out, options)
    for name, rows in generator.rows.items():
        seconds, size = generator.seconds[name], (out / f"{name}.csv").stat().st_size
        print(f"{name:18} {rows:>11,} rows  {size / 1e6:>9,.1f} MB  {seconds:>7.1f} s  {rows / seconds:>11,.0f} rows/s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
