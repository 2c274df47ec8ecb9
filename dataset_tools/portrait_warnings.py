"""What in a data set will hurt: warnings drawn from its numbers, each one sentence with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dataset_tools.portrait_format import date, of, percent, utc
from dataset_tools.portrait_values import DAY, FAST, HOUR, LONG_ID, Portrait, Spectrum, Texts
from dataset_tools.scripts import SCRIPTS

# Shares from which on a warning is given.
FEW_COMMENTING = 0.05  # of the users, below
REPEATED, REPEATED_NEARBY = 0.2, 0.05  # of the comments
EMPTY_CONTENTS, SHORT_TITLES, UNTIMED, FOREIGN = 0.01, 0.05, 0.01, 0.1  # of the texts
ROUNDED_IDS = 0.1  # of the long ids
SHORT_TITLE = 3  # characters
MOST = 0.5  # of everything else
_ENGLISH = frozenset({"Latin"})
# What encoders read, by their names; the first that fits counts.
_ENCODERS: tuple[tuple[str, frozenset[str]], ...] = (
    (r"hashing", frozenset(SCRIPTS)),
    (r"multilingual|xlm|labse|bge-m3|(^|/)gte-multi|qwen", frozenset(SCRIPTS)),
    (r"chinese|-zh\b", frozenset({"Latin", "Han"})),
    (r"japanese", frozenset({"Latin", "Han", "Kana"})),
    (r"minilm|mpnet|-en\b|^(google-bert/)?bert-(base|large)-(un)?cased$|^(facebookai/)?roberta-", _ENGLISH),
)


@dataclass(frozen=True)
class Hint:
    """Something about a data set that will hurt."""

    key: str  # names the rule
    text: str  # one sentence: the number, and what to do


def warnings(numbers: Portrait, encoder: str = "minilm") -> Iterator[Hint]:
    """What in a data set will hurt, each in one sentence with the number and what to do."""
    yield from _about_files(numbers)
    yield from _about_times(numbers)
    yield from _about_split(numbers)
    yield from _about_users(numbers)
    yield from _about_comments(numbers)
    yield from _about_texts(numbers, encoder)


def _about_files(n: Portrait) -> Iterator[Hint]:
    for suffix, rows in n.other_rows.items():
        yield Hint(
            "other_rows",
            f".{suffix} has {n.rows[suffix]:,} rows but its meta file says {rows:,}: it was cut or changed after it was"
            " written, so convert again or see `lsvcr-data check`.",
        )
    for kind, ids in n.ids.items():
        rounded = ids.rounded if ids.rounded > ROUNDED_IDS * ids.long else 0
        if ids.floats or rounded:
            yield Hint(
                "lost_ids",
                f"{of(ids.floats + rounded, ids.number)} of the {kind} ids look like rounded numbers, such as"
                f" {ids.example!r} (spreadsheets and float columns keep about {LONG_ID - 1} digits, which makes one id"
                " of several): convert again from raw data where ids are read as text.",
            )


def _about_times(n: Portrait) -> Iterator[Hint]:
    times = n.times
    if times.first == times.last:
        yield Hint(
            "equal_times",
            f"All {n.inter + n.cinter:,} events have the same time ({utc(times.first)}): there are no histories and"
            " nothing can be split by time, so convert with the real times.",
        )
        return
    if times.step >= HOUR:
        yield Hint(
            "coarse_times",
            f"All {n.inter + n.cinter:,} times are whole {'days' if times.step == DAY else 'hours'}: events of the same"
            " one are not in each other's histories, so convert with exact times if there are any.",
        )
    if times.empty_days:
        yield Hint(
            "gaps",
            f"{of(times.empty_days, len(times.inter_by_day))} of the days have no event, up to {times.longest_gap:,}"
            f" in a row (from {date(times.gap_start)} on; {percent(times.before_gap)} of the events are older):"
            " unless the source was that quiet, a part of it is missing; convert all of it or cut off what is older.",
        )


def _about_split(n: Portrait) -> Iterator[Hint]:
    if n.times.first == n.times.last:
        return
    empty = [name for name, part in n.split.items() if not part.instances]
    if empty:
        yield Hint(
            "empty_part",
            f"The split by time at {utc(n.boundaries[0])} and {utc(n.boundaries[1])} leaves no video target for"
            f" {' and '.join(empty)}: choose other boundaries.",
        )
    test = n.split["test"]
    yield from _if_many(
        "cold_targets",
        test.unseen_targets,
        test.instances,
        MOST,
        "test targets are videos without a training interaction: ids cannot rank them, so compare text models, report"
        " them as a slice of their own, or split later.",
    )
    yield from _if_many(
        "new_users",
        test.unseen_users,
        test.users,
        MOST,
        "test users have no training interaction: models that learn one vector per user know nothing about them, so"
        " prefer those that read histories, or split later.",
    )
    yield from _if_many(
        "lonely_records",
        test.lonely_records,
        test.records,
        MOST,
        "test's comment records have no other comment of their video to rank against: they tell nothing about a model,"
        " so take in more comments per video.",
    )


def _about_users(n: Portrait) -> Iterator[Hint]:
    fast = n.fast_users
    if fast.number:
        rules = " or ".join(f"{number} within {seconds:,} s" for number, seconds in FAST)
        named = ", ".join(f"{user!r} with {interactions:,}" for user, interactions in fast.examples)
        yield Hint(
            "fast_users",
            f"{fast.number:,} {'user' if fast.number == 1 else 'users'} with {percent(fast.share)} of all interactions"
            f" act too fast for a person (of one kind, {rules} or more than {fast.limit:,} in all), such as {named}:"
            " these may be bots, so look at them and drop them from the raw data.",
        )
    yield from _if_most_have_one(
        "single_users",
        n.inter_per_user,
        "users have one video interaction only and so no target: they cost time and teach little, so convert with"
        " --min-user-inter 2.",
    )
    yield from _if_most_have_one(
        "single_videos",
        n.inter_per_video,
        "videos have one video interaction or none: their ids cannot be learned, so convert with --min-item-inter 2 or"
        " rely on text.",
    )


def _about_comments(n: Portrait) -> Iterator[Hint]:
    if not n.cinter:
        yield Hint(
            "no_comment_histories",
            "There are 0 comment interactions: nothing can be learned from comments and the comment task is impossible,"
            " so train a video model only or convert with a source that has them.",
        )
    elif n.users_with_both < FEW_COMMENTING * n.users_with_inter:
        yield Hint(
            "few_comment_histories",
            f"Only {of(n.users_with_both, n.users_with_inter)} of the users with video interactions have a comment"
            " history too: it can hardly change the mean result, so report these users as a slice of their own.",
        )
    if not n.comments:
        return
    yield from _if_many(
        "untimed_comments",
        n.untimed_comments,
        n.comments,
        UNTIMED,
        "comments have no posting time: candidates cannot be limited to those that existed, and later ones are ranked"
        " too, so convert with times if there are any.",
    )
    yield from _if_most_have_one(
        "few_comments",
        n.comments_per_video,
        "videos have fewer than 2 comments (replies left out): their comments cannot be ranked, so take in more"
        " comments per video.",
    )


def _about_texts(n: Portrait, encoder: str) -> Iterator[Hint]:
    titles, contents = n.titles, n.contents
    short = titles.lengths.up_to(SHORT_TITLE - 1)
    if titles.empty or short > SHORT_TITLES:
        yield Hint(
            "short_titles",
            f"{of(titles.empty, titles.number)} of the titles are empty and {percent(short)} shorter than"
            f" {SHORT_TITLE} characters: such videos are nearly the same to a text model, so add a description or tags"
            " to the titles, or drop these videos.",
        )
    yield from _if_many(
        "empty_comments",
        contents.empty,
        contents.number,
        EMPTY_CONTENTS,
        "comments are empty: nothing tells them apart, so drop them from the raw data.",
    )
    written = contents.written
    if contents.repeats > REPEATED * written or contents.repeats_nearby > REPEATED_NEARBY * written:
        yield Hint(
            "repeated_comments",
            f"{percent(contents.repeats / written)} of the comments repeat the text of another one,"
            f" {percent(contents.repeats_nearby / written)} one of the same video: text alone cannot rank these apart,"
            " so drop copies under the same video from the raw data, or expect lower results.",
        )
    known = known_scripts(encoder)
    foreign = {name: _foreign(texts, known) for name, texts in (("titles", titles), ("comments", contents))}
    if known is not None and max(foreign.values()) > FOREIGN:
        strange = {
            script: sum(texts.scripts.get(script, 0) for texts in (titles, contents))
            for script in SCRIPTS
            if script not in known
        }
        yield Hint(
            "encoder_language",
            f"{percent(foreign['titles'])} of the titles and {percent(foreign['comments'])} of the comments are in"
            f" scripts (mostly {max(strange, key=lambda script: strange[script])}) that the encoder {encoder!r} was not"
            " made for: its vectors will say little, so set text_encoder to a model of that language or a multilingual"
            " one.",
        )


def _if_many(key: str, some: int, whole: int, least: float, what: str) -> Iterator[Hint]:
    """A warning where more than a share `least` of the whole is concerned; `what` says the rest of the sentence."""
    if some > least * whole:
        yield Hint(key, f"{of(some, whole)} of the {what}")


def _if_most_have_one(key: str, spectrum: Spectrum, what: str) -> Iterator[Hint]:
    """A warning where most of the things counted have one or none; `what` says the rest of the sentence."""
    share = spectrum.up_to(1)
    if share > MOST:
        yield Hint(key, f"{percent(share)} of the {what}")


def _foreign(texts: Texts, known: frozenset[str] | None) -> float:
    """The share of the texts that are not empty whose letters are mostly of a script outside `known`."""
    if known is None or not texts.written:
        return 0.0
    return sum(texts.scripts.get(script, 0) for script in SCRIPTS if script not in known) / texts.written


def known_scripts(encoder: str) -> frozenset[str] | None:
    """The scripts that a text encoder reads, by its name; None if its name does not tell."""
    if encoder == "auto":
        try:
            from recbole_lsvcr.encoding.encoders import resolve_encoder

            encoder = resolve_encoder(encoder)
        except ImportError:
            encoder = "minilm"
    return next((scripts for name, scripts in _ENCODERS if re.search(name, encoder.lower())), None)
