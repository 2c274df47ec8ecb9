"""`lsvcr-sample`: a SYNTHETIC data set drawn from a stated model, for tests and the quick start.

Quality on it shows that the parts work and nothing about the method. The model, in the order of drawing
(`oracle.py` holds the latent state and the probabilities):

1. VIDEOS. Each has a topic (of 16), an angle (of 8: money, humour, science …), a language (60 % English, else
   Spanish) and a log-normal appeal. 90 % are older than the first event, by up to a year; 10 % are uploaded in the
   last fifth of the time line. The title is one of the angle's patterns about one of the topic's nouns; tags name
   the topic (90 %) and the angle (30 %).
2. COMMENTS. Videos get them by appeal. A comment has its video's angle (50 %) or any one, a log-normal appeal and a
   posting time (early in the video's life mostly); it speaks of its video's noun with a phrase of its angle, 85 %
   in the video's language.
3. USERS. Lasting topics (sparse Dirichlet), a main angle, a second one, a language. A quarter never touches
   comments; 15 % join later than the first week.
4. SESSIONS over 42 days, at most one in each quarter of a day, in the evening mostly. Each has ONE topic: half of
   them from the user's lasting topics, half from the two neighbours of the last session's topic. So order matters.
5. VIDEO INTERACTIONS. Each session draws some videos (2.5 on average), minutes apart, never one that the user has
   watched, with `SampleOracle.video_weights`: (browsing + lasting topics + session's topic) × angle × language ×
   freshness × appeal.
6. COMMENT INTERACTIONS. Users who touch comments do so (a) after a watched video now and then, and (b) at the END
   of a session under a video about the topic of their NEXT session, which they need not have watched: the next turn
   of their taste shows only there. They choose among the comments posted by then with
   `SampleOracle.comment_weights`: by THEIR angle and by appeal.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dataset_tools.errors import DataToolError
from dataset_tools.oracle import SampleOracle
from dataset_tools.sample_words import ANGLE_NAMES, ANGLES, EMOJI, TOPICS, nouns, sentences, topic_names
from dataset_tools.writer import check_target, write_dataset

HELP = "the synthetic data set lsvcr-sample, generated from a seed"
EXAMPLE = "lsvcr-data sample dataset/lsvcr-sample"
START, DAYS, DAY = 1_709_251_200, 42, 86_400  # 2024-03-01 UTC
SLOTS_PER_DAY, SLOT_WEIGHTS = 4, np.array([0.3, 0.6, 1.0, 1.6])  # night, morning, afternoon, evening
LATE_SHARE, LATE_FROM = 0.10, 0.80
MEAN_SESSIONS, MOST_SESSIONS, MOST_VIDEOS = 12, 40, 8
TOUCHES_COMMENTS, LEADS, COMMENTS_ON_WATCHED = 0.75, 0.85, 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data sample`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; its name becomes the data set's name")
    for name, default in (("seed", 2024), ("users", 2000), ("videos", 1000), ("comments", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that holds other files too")


def run(args: argparse.Namespace) -> int:
    """Generate as parsed arguments say."""
    generate(
        args.out,
        seed=args.seed,
        users=args.users,
        videos=args.videos,
        comments=args.comments,
        overwrite=args.overwrite,
    )
    return 0


@dataclass(frozen=True)
class Sessions:
    """Sessions sorted by (user, start)."""

    user: np.ndarray  # int [S]
    number: np.ndarray  # int [S] 0, 1, … within the user
    start: np.ndarray  # int [S] Unix seconds
    topic: np.ndarray  # int [S]
    videos: np.ndarray  # int [S] how many videos are watched


def generate(
    folder: Path,
    *,
    seed: int = 2024,
    users: int = 2000,
    videos: int = 1000,
    comments: int = 10_000,
    overwrite: bool = False,
) -> None:
    """Draw the data set and its oracle and write them to `folder`; the same arguments give the same bytes.

    `users` >= 2, `videos` >= 20, `comments` >= `videos` and `seed` >= 0, else `DataToolError`; so for a folder that may
    not be replaced.
    """
    if users < 2 or videos < 20 or comments < videos or seed < 0:
        raise DataToolError(
            f"{users=}, {videos=}, {comments=}, {seed=}: need users >= 2, videos >= 20, comments >= videos, seed >= 0"
        )
    check_target(Path(folder), overwrite=overwrite)
    rng = np.random.default_rng(seed)
    catalogue = _draw_catalogue(rng, users, videos, comments)
    people = _draw_users(rng, users)
    sessions = _draw_sessions(rng, people["user_topics"])
    empty = np.zeros(0)
    oracle = SampleOracle(
        **catalogue,
        **people,
        session_offsets=np.searchsorted(sessions.user, np.arange(users + 1)),
        session_start=sessions.start.astype(np.float64),
        session_topic=sessions.topic,
        inter_offsets=np.zeros(users + 1, np.int64),
        inter_item=empty.astype(np.int64),
        inter_time=empty,
    )
    inter = _draw_video_interactions(rng, oracle, sessions)
    cinter = _draw_comment_interactions(rng, oracle, sessions, inter)
    oracle = _remember(oracle, inter)
    write_dataset(
        Path(folder),
        _tables(rng, oracle, inter, cinter),
        meta={
            "source": "sample",
            "synthetic": True,
            "options": {"seed": seed, "users": users, "videos": videos, "comments": comments},
        },
        overwrite=overwrite,
        extra={"oracle.npz": oracle.save},
    )


def _tokens(letter: str, count: int) -> np.ndarray:
    return np.char.add(letter, np.char.zfill(np.arange(1, count + 1).astype(str), len(str(count))))


def _draw_catalogue(rng: np.random.Generator, users: int, videos: int, comments: int) -> dict[str, np.ndarray]:
    first, length = START, DAYS * DAY
    upload = first - rng.integers(DAY, 365 * DAY, videos)
    late = rng.permutation(videos)[: round(LATE_SHARE * videos)]
    upload[late] = first + rng.integers(int(LATE_FROM * length), length - DAY, len(late))
    angle = rng.integers(len(ANGLES), size=videos)
    appeal = rng.lognormal(0.0, 1.0, videos)
    share = appeal**0.7 / (appeal**0.7).sum()
    item = np.repeat(np.arange(videos), 1 + rng.multinomial(comments - videos, share))
    item = item[rng.permutation(comments)]
    since = np.maximum(upload, first - 30 * DAY)[item]
    posted = since + (rng.beta(0.6, 1.8, comments) * (first + length - since)).astype(np.int64)
    follows = rng.random(comments) < 0.5
    return {
        "item_token": _tokens("v", videos),
        "item_topic": rng.integers(len(TOPICS), size=videos),
        "item_angle": angle,
        "item_language": (rng.random(videos) < 0.4).astype(np.int64),
        "item_appeal": appeal,
        "item_time": upload.astype(np.float64),
        "comment_token": _tokens("c", comments),
        "comment_item": item,
        "comment_angle": np.where(follows, angle[item], rng.integers(len(ANGLES), size=comments)),
        "comment_appeal": rng.lognormal(0.0, 0.7, comments),
        "comment_time": posted.astype(np.float64),
        "comment_user": rng.integers(users, size=comments),
    }


def _draw_users(rng: np.random.Generator, users: int) -> dict[str, np.ndarray]:
    angles = np.full((users, len(ANGLES)), 0.1 / len(ANGLES))
    favourites = rng.random((users, len(ANGLES))).argsort(axis=1)
    angles[np.arange(users), favourites[:, 0]] += 0.7
    angles[np.arange(users), favourites[:, 1]] += 0.2
    return {
        "user_token": _tokens("u", users),
        "user_topics": rng.dirichlet(np.full(len(TOPICS), 0.2), users),
        "user_angles": angles,
        "user_language": (rng.random(users) < 0.4).astype(np.int64),
    }


def _draw_sessions(rng: np.random.Generator, user_topics: np.ndarray) -> Sessions:
    users, topics = user_topics.shape
    slots = DAYS * SLOTS_PER_DAY
    joined = np.where(rng.random(users) < 0.15, rng.uniform(0.2, 0.9, users) * slots, 0).astype(np.int64)
    wanted = np.clip(2 + rng.negative_binomial(1.5, 1.5 / (1.5 + MEAN_SESSIONS - 2), users), 2, MOST_SESSIONS)
    wanted = np.maximum(2, np.round(wanted * (slots - joined) / slots)).astype(np.int64)
    weight = np.log(np.tile(SLOT_WEIGHTS, DAYS))[None, :] + rng.gumbel(size=(users, slots))
    weight[np.arange(slots)[None, :] < joined[:, None]] = -np.inf
    rank = (-weight).argsort(axis=1).argsort(axis=1)
    user, slot = np.nonzero(rank < wanted[:, None])  # sorted by (user, slot)
    number = np.arange(len(user)) - np.searchsorted(user, user)
    quarter = DAY // SLOTS_PER_DAY
    start = START + slot * quarter + rng.integers(0, quarter - 2 * 3600, len(user))
    # The chain of topics: one step of all users at a time.
    lasting = (rng.random((len(user), 1)) > user_topics[user].cumsum(axis=1)).sum(axis=1).clip(max=topics - 1)
    neighbour = np.argsort(rng.random((topics, topics)) + 2 * np.eye(topics), axis=1)[:, :2]
    follow, side = rng.random(len(user)) < 0.5, rng.integers(2, size=len(user))
    topic = lasting.copy()
    for step in range(1, int(number.max()) + 1):
        row = np.flatnonzero((number == step) & follow)
        topic[row] = neighbour[topic[row - 1], side[row]]
    videos = np.clip(1 + rng.poisson(1.5, len(user)), 1, MOST_VIDEOS)
    return Sessions(user=user, number=number, start=start, topic=topic, videos=videos)


def _draw_video_interactions(rng: np.random.Generator, oracle: SampleOracle, sessions: Sessions) -> pl.DataFrame:
    """Columns session, user, item, timestamp; sorted by (session, timestamp)."""
    watched = np.zeros((len(oracle.user_token), len(oracle.item_token)), dtype=bool)
    sessions_drawn, items_drawn = [], []
    for step in range(int(sessions.number.max()) + 1):
        row = np.flatnonzero(sessions.number == step)
        user = sessions.user[row]
        weights = oracle.video_weights(user, sessions.topic[row], sessions.start[row].astype(np.float64))
        weights[watched[user]] = 0.0
        chosen, valid = _choose(rng, weights, MOST_VIDEOS)
        valid &= np.arange(MOST_VIDEOS)[None, :] < sessions.videos[row, None]
        at, _ = np.nonzero(valid)
        watched[user[at], chosen[valid]] = True
        sessions_drawn.append(row[at])
        items_drawn.append(chosen[valid])
    session, item = np.concatenate(sessions_drawn), np.concatenate(items_drawn)
    order = np.argsort(session, kind="stable")
    session, item = session[order], item[order]
    gap = 60 + np.minimum(rng.exponential(300.0, len(session)), 720.0).astype(np.int64)
    elapsed = gap.cumsum()
    begin = np.searchsorted(session, session)
    time = sessions.start[session] + elapsed - elapsed[begin]
    return pl.DataFrame({"session": session, "user": sessions.user[session], "item": item, "timestamp": time})


def _choose(rng: np.random.Generator, weights: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns drawn one after the other without replacement by weight: [B, most], and which of them had a weight."""
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + rng.gumbel(size=weights.shape)
    chosen = np.argsort(-keys, axis=1)[:, :most]
    return chosen, np.take_along_axis(weights, chosen, axis=1) > 0


def _draw_comment_interactions(
    rng: np.random.Generator, oracle: SampleOracle, sessions: Sessions, inter: pl.DataFrame
) -> pl.DataFrame:
    """Columns user, comment, timestamp; a user touches a comment once."""
    touches = rng.random(len(oracle.user_token)) < TOUCHES_COMMENTS
    user, item, time = (inter[name].to_numpy() for name in ("user", "item", "timestamp"))
    keep = touches[user] & (rng.random(len(user)) < COMMENTS_ON_WATCHED)
    led_user, led_item, led_time = _draw_leads(rng, oracle, sessions, inter, touches)
    user = np.concatenate([user[keep], led_user])
    item = np.concatenate([item[keep], led_item])
    time = np.concatenate([time[keep] + rng.integers(15, 50, int(keep.sum())), led_time])
    # The comments under each video as a padded table [N, widest].
    by_item = np.argsort(oracle.comment_item, kind="stable")
    count = np.bincount(oracle.comment_item, minlength=len(oracle.item_token))
    first = np.cumsum(count) - count
    column = np.arange(count.max())[None, :]
    under = by_item[np.minimum(first[:, None] + column, len(by_item) - 1)]
    comments = under[item]  # [B, widest]
    weights = oracle.comment_weights(user, comments)
    weights[(column >= count[item][:, None]) | (oracle.comment_time[comments] >= time[:, None])] = 0.0
    chosen, valid = _choose(rng, weights, 3)
    valid &= np.arange(valid.shape[1])[None, :] < 1 + rng.binomial(2, 0.3, len(user))[:, None]
    row, place = np.nonzero(valid)
    touched = np.take_along_axis(comments, chosen, axis=1)[valid]
    frame = pl.DataFrame({"user": user[row], "comment": touched, "timestamp": time[row] + 3 * place})
    return frame.sort("timestamp", maintain_order=True).unique(["user", "comment"], keep="first", maintain_order=True)


def _draw_leads(
    rng: np.random.Generator, oracle: SampleOracle, sessions: Sessions, inter: pl.DataFrame, touches: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, video and time of what is looked at, at the end of a session, about the topic of the next session."""
    has_next = np.append(sessions.user[1:] == sessions.user[:-1], False)
    session = np.flatnonzero(has_next & touches[sessions.user] & (rng.random(len(sessions.user)) < LEADS))
    last = inter.group_by("session").agg(pl.col("timestamp").max()).sort("session")
    end = sessions.start.copy()
    end[last["session"].to_numpy()] = last["timestamp"].to_numpy()
    users, items, times = [], [], []
    for block in np.array_split(session, max(1, len(session) // 2048)):
        user, topic = sessions.user[block], sessions.topic[block + 1]
        weights = oracle.video_weights(user, topic, sessions.start[block].astype(np.float64))
        weights[oracle.item_topic[None, :] != topic[:, None]] = 0.0
        chosen, valid = _choose(rng, weights, 2)
        valid[:, 1] &= rng.random(len(block)) < 0.3
        row, place = np.nonzero(valid)
        users.append(user[row])
        items.append(chosen[valid])
        times.append(end[block][row] + rng.integers(60, 180, len(row)) + 240 * place)
    return np.concatenate(users), np.concatenate(items), np.concatenate(times)


def _remember(oracle: SampleOracle, inter: pl.DataFrame) -> SampleOracle:
    """The oracle with what every user watched, in time order."""
    inter = inter.sort("user", "timestamp", maintain_order=True)
    state = {name: getattr(oracle, name) for name in oracle.__dataclass_fields__}
    state["inter_offsets"] = np.searchsorted(inter["user"].to_numpy(), np.arange(len(oracle.user_token) + 1))
    state["inter_item"] = inter["item"].to_numpy()
    state["inter_time"] = inter["timestamp"].to_numpy().astype(np.float64)
    return SampleOracle(**state)


def _tables(
    rng: np.random.Generator, oracle: SampleOracle, inter: pl.DataFrame, cinter: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    inter = inter.sort("timestamp", maintain_order=True)
    cinter = cinter.sort("timestamp", maintain_order=True)
    noun = rng.integers(nouns().shape[2], size=len(oracle.item_token))
    action = rng.random(inter.height)
    reply = rng.random(cinter.height) < 0.15
    comment = cinter["comment"].to_numpy()
    return {
        "inter": pl.DataFrame(
            {
                "user_id": oracle.user_token[inter["user"].to_numpy()],
                "item_id": oracle.item_token[inter["item"].to_numpy()],
                "timestamp": inter["timestamp"],
                "like": action < 0.8,
                "collect": action > 0.7,
                "share": action > 0.95,
            }
        ),
        "item": _item_table(rng, oracle, noun),
        "cinter": pl.DataFrame(
            {
                "user_id": oracle.user_token[cinter["user"].to_numpy()],
                "comment_id": oracle.comment_token[comment],
                "item_id": oracle.item_token[oracle.comment_item[comment]],
                "timestamp": cinter["timestamp"],
                "like": ~reply,
                "reply": reply,
            }
        ),
        "comment": _comment_table(rng, oracle, noun, np.bincount(comment[~reply], minlength=len(oracle.comment_token))),
    }


def _item_table(rng: np.random.Generator, oracle: SampleOracle, noun: np.ndarray) -> pl.DataFrame:
    count = len(noun)
    titles = sentences(0)
    pattern = rng.integers(titles.shape[2], size=count)
    title = titles[oracle.item_language, oracle.item_angle, pattern, oracle.item_topic, noun]
    name = topic_names()[oracle.item_language, oracle.item_topic]
    named = np.where(rng.random(count) < 0.4, np.char.add(np.char.add(title, " | "), name), title)
    angle_tag = np.char.add(" ", np.array(ANGLE_NAMES)[oracle.item_language, oracle.item_angle])
    tags = np.char.add(np.where(rng.random(count) < 0.9, name, ""), np.where(rng.random(count) < 0.3, angle_tag, ""))
    channel = oracle.item_topic * 5 + rng.integers(5, size=count)
    return pl.DataFrame(
        {
            "item_id": oracle.item_token,
            "title": named,
            "tags": tags,
            "author_id": np.char.add("channel", channel.astype(str)),
            "duration": rng.integers(20, 900, count),
            "upload_time": oracle.item_time,
        }
    )


def _comment_table(rng: np.random.Generator, oracle: SampleOracle, noun: np.ndarray, likes: np.ndarray) -> pl.DataFrame:
    count, item = len(oracle.comment_token), oracle.comment_item
    language = np.where(rng.random(count) < 0.85, oracle.item_language[item], 1 - oracle.item_language[item])
    phrases = sentences(1)
    pattern = rng.integers(phrases.shape[2], size=count)
    phrase = phrases[language, oracle.comment_angle, pattern, oracle.item_topic[item], noun[item]]
    return pl.DataFrame(
        {
            "comment_id": oracle.comment_token,
            "item_id": oracle.item_token[item],
            "content": np.char.add(phrase, np.array(EMOJI)[rng.integers(len(EMOJI), size=count)]),
            "user_id": oracle.user_token[oracle.comment_user],
            "like_count": likes,
            "timestamp": oracle.comment_time,
        }
    )
