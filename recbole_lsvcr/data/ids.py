"""Tokens as dense ids, events in order of time, and what must be true of both: a `DataError` says what is not."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_lsvcr.errors import DataError

PAD = "[PAD]"
_ADVICE = "find such rows with `python -m dataset_tools check <folder>`"


def sorted_events(frame: pl.DataFrame, file: str) -> pl.DataFrame:
    """The rows in order of time, then as they stand; `DataError` for a timestamp that is missing or not finite."""
    bad = int((~frame["timestamp"].is_finite().fill_null(False)).sum())
    if bad:
        raise DataError(f"{file}: {bad:,} rows have no finite timestamp; {_ADVICE}")
    return frame if frame["timestamp"].is_sorted() else frame.sort("timestamp", maintain_order=True)


def without_repeats(cinter: pl.DataFrame) -> pl.DataFrame:
    """Each comment interaction once: a like and a reply of the same moment, or a row given twice, is one."""
    return cinter.unique(["user_id", "comment_id", "timestamp"], keep="first", maintain_order=True)


def tokens_of(frame: pl.DataFrame, file: str) -> pl.Series:
    """The first column as tokens by id, padding first; `DataError` for one that is empty or occurs twice."""
    tokens = frame.to_series(0)
    if tokens.is_in(["", PAD]).any():
        raise DataError(f"{file}: an empty {tokens.name} or one of {PAD!r}, which stands for padding; {_ADVICE}")
    hashes = np.sort(tokens.hash().to_numpy())  # all different: so are the tokens, and nothing else is needed
    if (hashes[1:] == hashes[:-1]).any() and tokens.n_unique() != len(tokens):
        twice = tokens.filter(tokens.is_duplicated())[0]
        raise DataError(f"{file}: {tokens.name} {twice!r} occurs more than once; {_ADVICE}")
    return pl.concat([pl.Series([PAD]), tokens]).rename(tokens.name)


def user_tokens(inter: pl.Series, cinter: pl.Series, name: str) -> pl.Series:
    """The users of both kinds of events as tokens by id, padding first, then as they first appear."""
    users = pl.concat([inter, cinter]).unique(maintain_order=True)
    if users.is_in(["", PAD]).any():
        raise DataError(f"{name}: an event of user '' or of {PAD!r}, which stands for padding; {_ADVICE}")
    return pl.concat([pl.Series([PAD]), users]).rename("user_id")


def ids_of(tokens: pl.Series, known: pl.Series, file: str = "", where: str | None = None) -> NDArray[np.int32]:
    """The id `[n]` of every token; a token missing from `where` is an error, or 0 where `where` is not given."""
    if len(known) <= len(tokens):
        numbers = tokens.cast(pl.Enum(known), strict=False).to_physical()
        ids = numbers.fill_null(0).to_numpy().astype(np.int32)
    else:  # looking few tokens up among many: those that match, in any order
        index = known.to_frame("token").with_row_index("id")
        found = tokens.to_frame("token").with_row_index("row").join(index, on="token", how="inner")
        ids = np.zeros(len(tokens), np.int32)
        ids[found["row"].to_numpy()] = found["id"].to_numpy()
    missing = ids == 0
    if where is not None and missing.any():
        raise DataError(
            f"{file}: {tokens.name} {tokens[int(missing.argmax())]!r} is not in {where}"
            f" ({int(missing.sum()):,} such rows); {_ADVICE}"
        )
    return ids


def check_videos_agree(of_comment: np.ndarray, of_event: np.ndarray, cinter: pl.DataFrame, file: str) -> None:
    """`DataError` where the rows of `cinter` name another video `of_event` than that `of_comment`: ids `[J]`."""
    stray = of_comment != of_event
    if stray.any():
        row = cinter.row(int(stray.argmax()), named=True)
        raise DataError(
            f"{file}: an interaction with comment {row['comment_id']!r} names video {row['item_id']!r}, which is not"
            f" the comment's in the .comment file ({int(stray.sum()):,} such rows); {_ADVICE}"
        )


def padded_first(values: np.ndarray, padding: np.generic | float) -> np.ndarray:
    """`values` `[n]` by id `[n + 1]`: behind the value of padding."""
    return np.concatenate([np.array([padding], values.dtype), values])


def item_time(upload: NDArray[np.float64], *events: tuple[np.ndarray, np.ndarray]) -> NDArray[np.float64]:
    """A video exists from its upload on, or from its first interaction if that is earlier (sources round uploads)."""
    first = upload.copy()
    for items, times in events:
        np.minimum.at(first, items, times)
    return np.where(np.isinf(first), -np.inf, first)
