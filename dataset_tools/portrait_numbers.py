"""The numbers of a data set folder. All counting is done by DuckDB and NumPy: no Python object per row.

Users have an interaction of either kind; videos stand in `.item`. Comment interactions that repeat user, comment and
time of another one count once, as in the plugin.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np

from dataset_tools.database import connect
from dataset_tools.errors import DataToolError
from dataset_tools.portrait_tables import MEMORY_GB, AtomicTables, find_files, read_meta
from dataset_tools.portrait_values import (
    DAY,
    FAR_LEAST,
    FAR_SHARE,
    FAR_TIMES,
    FAST,
    HOUR,
    LONG_ID,
    FastUsers,
    Ids,
    Part,
    Portrait,
    Spectrum,
    Texts,
    Times,
)
from dataset_tools.scripts import count_scripts

SPLIT = (0.8, 0.9)
RECORD_GAP = 86_400.0  # seconds, the plugin's default
PHASES = ("train", "valid", "test")
_LONG_AGO = -1e300  # when a comment without a posting time was posted


def count(folder: Path, *, split: Sequence[float] = SPLIT) -> Portrait:
    """Count everything about a data set folder.

    `split`: where validation and test start, each a fraction of `.inter` in order of time (the time of the first
    interaction after it) or a time in Unix seconds.

    Raises:
        DataToolError: no data set, a file that is missing, cut or malformed, an id that leads nowhere.
    """
    folder = Path(folder)
    if len(split) != 2 or not all(math.isfinite(bound) and bound > 0 for bound in split) or split[0] > split[1]:
        raise DataToolError(
            f"the split {' '.join(f'{bound:g}' for bound in split)} cannot be used; give where validation and test"
            " start, the earlier first: fractions of .inter such as 0.8 0.9, or Unix seconds"
        )
    files = find_files(folder)
    with tempfile.TemporaryDirectory(prefix="lsvcr-describe-") as work:
        try:
            with connect(f"{work}/tables.db", memory=MEMORY_GB, spill=Path(work) / "spill") as sql:
                sql.execute("SET preserve_insertion_order = false")
                return _count(AtomicTables(sql, files, Path(work)), folder, (split[0], split[1]))
        except duckdb.Error as error:
            raise DataToolError(f"cannot describe {folder}: {str(error).splitlines()[0]}") from error


def _count(data: AtomicTables, folder: Path, split: tuple[float, float]) -> Portrait:
    if not data.rows["inter"]:
        raise DataToolError(f"{folder} has no video interactions; there is nothing to describe")
    meta = read_meta(folder)
    hours = {suffix: _by_hour(data, suffix) for suffix in ("inter", "cinter")}
    times = _times(data, hours)
    boundaries = (_boundary(data, split[0], hours["inter"]), _boundary(data, split[1], hours["inter"]))
    _make_records(data, boundaries)
    users, commenting, both = data.counts(
        "SELECT count(*), count(*) FILTER (rowid IN (SELECT u FROM inter)),"
        " count(*) FILTER (rowid IN (SELECT u FROM inter) AND rowid IN (SELECT u FROM cinter)) FROM person"
    )
    videos = data.rows["item"]
    pairs = data.number("SELECT count(*) FROM (SELECT DISTINCT u, i FROM inter)")
    cinter, own_comments = data.counts(
        "SELECT (SELECT count(*) FROM cinter), (SELECT count(*) FROM (SELECT DISTINCT u, c FROM cinter))"
    )
    per_user = _spectrum(data, "SELECT count(*) AS n FROM inter GROUP BY u")
    per_video = _of_all(_spectrum(data, "SELECT count(*) AS n FROM inter GROUP BY i"), videos)
    replies, untimed = data.counts("SELECT count(*) FILTER (reply), count(*) FILTER (t IS NULL) FROM comment")
    return Portrait(
        name=folder.resolve().name,
        source=str(meta.get("source") or "unknown"),
        synthetic=meta.get("source") == "sample"
        or meta.get("synthetic") is True
        or any(path.name.upper().startswith("SYNTHETIC") for path in folder.iterdir()),
        rows=data.rows,
        other_rows={
            suffix: rows
            for suffix, rows in meta["rows"].items()
            if suffix in data.rows and isinstance(rows, int) and rows != data.rows[suffix]
        },
        users=users,
        users_with_inter=commenting,
        users_with_both=both,
        videos=videos,
        videos_without_inter=videos - data.number("SELECT count(DISTINCT i) FROM inter"),
        inter=data.rows["inter"],
        inter_repeats=data.rows["inter"] - pairs,
        density=pairs / (commenting * videos),
        cinter=cinter,
        cinter_repeats=cinter - own_comments,
        records=data.number("SELECT count(*) FROM record"),
        comments=data.rows.get("comment", 0),
        replies=replies,
        untimed_comments=untimed,
        inter_per_user=per_user,
        inter_per_video=per_video,
        comments_per_video=_of_all(
            _spectrum(data, "SELECT count(*) AS n FROM comment WHERE NOT reply GROUP BY i"), videos
        ),
        records_per_user=_spectrum(data, "SELECT count(*) AS n FROM record GROUP BY u"),
        fast_users=_fast_users(data, per_user, times.step),
        times=times,
        boundaries=boundaries,
        split=_parts(data, boundaries),
        titles=_texts(data, "item", "length(title)", "title"),
        contents=_texts(data, "comment", "length", "text"),
        ids={
            "user": _ids(data, "person", "user_id"),
            "video": _ids(data, "item", "item_id"),
            "comment": _ids(data, "comment", "comment_id"),
        },
    )


def _spectrum(data: AtomicTables, values: str) -> Spectrum:
    """The spectrum of the column `n` of a query."""
    rows = data.run(f"SELECT n::BIGINT, count(*) FROM ({values}) GROUP BY n ORDER BY n")
    return Spectrum(tuple(value for value, _ in rows), tuple(number for _, number in rows))


def _of_all(some: Spectrum, number: int) -> Spectrum:
    """With the things that were not counted, because they have 0, out of `number` in all."""
    rest = number - some.size
    return Spectrum((0, *some.values), (rest, *some.numbers)) if rest else some


# ---------------------------------------------------------------------- times


def _by_hour(data: AtomicTables, suffix: str) -> dict[int, int]:
    """Interactions by hours since 1970."""
    rows = data.run(f"SELECT floor(t / {HOUR})::BIGINT AS hour, count(*) FROM {suffix} GROUP BY hour ORDER BY hour")
    return dict(rows)


def _times(data: AtomicTables, hours: dict[str, dict[int, int]]) -> Times:
    events = "(SELECT t FROM inter UNION ALL SELECT t FROM cinter)"
    ((first, last, *whole),) = data.run(
        f"SELECT min(t), max(t), bool_and(t % {DAY} = 0), bool_and(t % {HOUR} = 0), bool_and(t % 60 = 0) FROM {events}"
    )
    day0 = int(first // DAY)
    by_day = {suffix: np.zeros(int(last // DAY) - day0 + 1, np.int64) for suffix in hours}
    by_hour = {suffix: np.zeros(24, np.int64) for suffix in hours}
    for suffix, counts in hours.items():
        for hour, number in counts.items():
            by_day[suffix][hour // 24 - day0] += number
            by_hour[suffix][hour % 24] += number
    events_by_day = by_day["inter"] + by_day["cinter"]
    busy = np.flatnonzero(events_by_day)
    gaps = np.diff(busy) - 1
    longest = int(gaps.max(initial=0))
    gap_day = int(busy[gaps.argmax()]) + 1 if longest else 0
    return Times(
        first=first,
        last=last,
        step=next((step for step, good in zip((DAY, HOUR, 60), whole, strict=True) if good), 1),
        inter_by_day=tuple(by_day["inter"].tolist()),
        cinter_by_day=tuple(by_day["cinter"].tolist()),
        inter_by_hour=tuple(by_hour["inter"].tolist()),
        cinter_by_hour=tuple(by_hour["cinter"].tolist()),
        empty_days=len(events_by_day) - len(busy),
        longest_gap=longest,
        gap_start=float((day0 + gap_day) * DAY) if longest else 0.0,
        before_gap=float(events_by_day[:gap_day].sum() / events_by_day.sum()),
    )


def _boundary(data: AtomicTables, bound: float, hours: dict[int, int]) -> float:
    """A boundary of the split in Unix seconds; that of a fraction is sought in its hour only."""
    if bound >= 1:
        return bound
    n = data.rows["inter"]
    place = min(math.floor(round(bound * n, 6)), n - 1)
    ends = np.cumsum(list(hours.values()))
    at = int(np.searchsorted(ends, place, side="right"))
    hour, before = list(hours)[at], int(ends[at - 1]) if at else 0
    within = f"SELECT t FROM inter WHERE floor(t / {HOUR})::BIGINT = {hour} ORDER BY t LIMIT 1 OFFSET {place - before}"
    return float(data.run(within)[0][0])


# ---------------------------------------------------------------------- the split


def _phase(time: str, boundaries: tuple[float, float]) -> str:
    return " + ".join(f"({time} >= {bound!r}::DOUBLE)::INTEGER" for bound in boundaries)


def _make_records(data: AtomicTables, boundaries: tuple[float, float]) -> None:
    """Table `record` (u, i, start): runs of a user's interactions under a video, ended by a gap or a boundary."""
    data.run(
        f"""
        CREATE TABLE record AS SELECT u, i, min(t) AS start FROM (
            SELECT u, i, t, sum(new) OVER (PARTITION BY u, i ORDER BY t) AS run FROM (
                SELECT u, i, t, coalesce(t - lag(t) OVER w > {RECORD_GAP}
                    OR {_phase("t", boundaries)} <> {_phase("lag(t) OVER w", boundaries)}, true)::INTEGER AS new
                FROM cinter WINDOW w AS (PARTITION BY u, i ORDER BY t)))
        GROUP BY u, i, run
        """
    )


def _parts(data: AtomicTables, boundaries: tuple[float, float]) -> dict[str, Part]:
    """What each part of the split holds."""
    known = f"SELECT {{}} FROM inter WHERE t < {boundaries[0]!r}::DOUBLE"
    instances = data.run(
        f"""
        SELECT phase, count(*), count(*) FILTER (target), count(*) FILTER (target AND unseen_video),
            count(DISTINCT u) FILTER (target), count(DISTINCT u) FILTER (target AND unseen_user)
        FROM (SELECT u, {_phase("t", boundaries)} AS phase, t > first AS target,
                i NOT IN ({known.format("i")}) AS unseen_video, u NOT IN ({known.format("u")}) AS unseen_user
            FROM inter JOIN (SELECT u, min(t) AS first FROM inter GROUP BY u) USING (u))
        GROUP BY phase
        """
    )
    posted = f"coalesce(comment.t, {_LONG_AGO!r}::DOUBLE)"
    # By `t` so many comments of a video can be ranked, and so many of these its user ever touched: these are left out.
    there = f"SELECT i, {posted} AS t, count(*) AS n FROM comment WHERE NOT reply GROUP BY ALL"
    own = (
        f"SELECT u, i, t, count(*) AS n FROM (SELECT DISTINCT u, c, comment.i AS i, {posted} AS t"
        " FROM cinter JOIN comment ON c = comment.rowid WHERE NOT reply) GROUP BY ALL"
    )
    records = data.run(
        f"""
        WITH there AS (SELECT i, t, sum(n) OVER (PARTITION BY i ORDER BY t) AS n FROM ({there})),
            own AS (SELECT u, i, t, sum(n) OVER (PARTITION BY u, i ORDER BY t) AS n FROM ({own}))
        SELECT {_phase("start", boundaries)} AS phase, count(*),
            count(*) FILTER (coalesce(there.n, 0) = coalesce(own.n, 0))
        FROM record
            ASOF LEFT JOIN there ON record.i = there.i AND record.start >= there.t
            ASOF LEFT JOIN own ON record.u = own.u AND record.i = own.i AND record.start >= own.t
        GROUP BY phase
        """
    )
    of_videos = {phase: counts for phase, *counts in instances}
    of_comments = {phase: counts for phase, *counts in records}
    return {
        name: Part(*of_videos.get(phase, (0,) * 5), *of_comments.get(phase, (0, 0)))
        for phase, name in enumerate(PHASES)
    }


# ---------------------------------------------------------------------- users, texts, ids


def _fast_users(data: AtomicTables, per_user: Spectrum, step: int) -> FastUsers:
    limit = max(FAR_LEAST, FAR_TIMES * per_user.quantile(min(FAR_SHARE, 1 - 1 / per_user.size)))
    data.run("CREATE TABLE fast (u INTEGER)")
    for suffix in ("inter", "cinter"):
        data.run(f"INSERT INTO fast SELECT u FROM {suffix} GROUP BY u HAVING count(*) > {limit}")
        if step >= HOUR:  # the times do not tell
            continue
        for number, seconds in FAST:
            data.run(
                f"""
                INSERT INTO fast SELECT DISTINCT u FROM (
                    SELECT u, t - lag(t, {number - 1}) OVER (PARTITION BY u ORDER BY t) <= {seconds} AS fast
                    FROM {suffix} WHERE u IN (SELECT u FROM {suffix} GROUP BY u HAVING count(*) >= {number}))
                WHERE fast
                """
            )
    events = "(SELECT u FROM inter UNION ALL SELECT u FROM cinter)"
    examples = data.run(
        f"SELECT user_id, count(*) AS n FROM {events} JOIN person ON u = person.rowid WHERE u IN (SELECT u FROM fast)"
        " GROUP BY user_id ORDER BY n DESC, user_id LIMIT 3"
    )
    whole = data.number("SELECT (SELECT count(*) FROM inter) + (SELECT count(*) FROM cinter)")
    return FastUsers(
        number=data.number("SELECT count(DISTINCT u) FROM fast"),
        share=data.number(f"SELECT count(*) FROM {events} WHERE u IN (SELECT u FROM fast)") / whole,
        limit=limit,
        examples=tuple(examples),
    )


def _texts(data: AtomicTables, suffix: str, length: str, text: str) -> Texts:
    """`length` and `text` in SQL: a text's characters, and what is equal for equal texts."""
    given = f"{suffix} WHERE {length} > 0"
    some, different = data.counts(f"SELECT count(*), count(DISTINCT {text}) FROM {given}")
    nearby = 0
    if suffix == "comment":
        nearby = some - data.number(f"SELECT count(*) FROM (SELECT DISTINCT i, {text} FROM {given})")
    scripts: Counter[str] = Counter()
    for texts in data.texts(suffix):
        scripts.update(count_scripts(texts))
    number = data.rows.get(suffix, 0)
    return Texts(
        number=number,
        empty=number - some,
        repeats=some - different,
        repeats_nearby=nearby,
        lengths=_spectrum(data, f"SELECT {length} AS n FROM {suffix}"),
        scripts=dict(scripts),
    )


def _ids(data: AtomicTables, table: str, name: str) -> Ids:
    floats = rf"regexp_full_match({name}, '[0-9]+(\.[0-9]+)?[eE]\+[0-9]+|[0-9]+\.[0-9]+([eE][0-9]+)?')"
    long = f"regexp_full_match({name}, '[0-9]{{{LONG_ID},}}')"
    rounded = f"{long} AND {name} LIKE '%0000'"
    ((number, as_floats, digits, zeros, example),) = data.run(
        f"SELECT count(*), count(*) FILTER ({floats}), count(*) FILTER ({long}), count(*) FILTER ({rounded}),"
        f" min({name}) FILTER ({floats} OR ({rounded})) FROM {table}"
    )
    return Ids(number, floats=as_floats, long=digits, rounded=zeros, example=example or "")
