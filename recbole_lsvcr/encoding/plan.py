"""What a text store has still to encode: checks the texts it is asked for, and finds the distinct new ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from recbole_lsvcr.encoding.store import RENEW, StaleStoreError, TextStore
from recbole_lsvcr.errors import StoreError

TRANSFORMS = ("none", "mask_digits")
KIND = re.compile(r"[a-z][a-z_]*")
SLICE = 200_000


@dataclass(frozen=True)
class Plan:
    """New texts for a store.

    Attributes:
        texts: distinct, not empty, not yet stored, longest first: the order of their rows.
        first_row: row of the first of them.
        index: per kind the tokens not yet stored, `token` and `row`; row 0 is the empty text.
        asked: how many tokens were asked for, per kind. empty: how many of all of them have an empty text.
        text_hash: SHA-256 over the new tokens and their texts in order, after the hash of what is stored already.
    """

    texts: pl.Series
    first_row: int
    index: dict[str, pl.DataFrame]
    asked: dict[str, int]
    empty: int
    text_hash: str

    @property
    def new_tokens(self) -> int:
        """How many tokens are not yet stored."""
        return sum(frame.height for frame in self.index.values())

    @property
    def rows(self) -> int:
        """Rows of the store once all is encoded."""
        return self.first_row + len(self.texts)

    def costs(self) -> np.ndarray:
        """A guess of each text's cost, int64 [new texts]: its bytes up to where it would be cut, and a constant."""
        return self.texts.str.len_bytes().to_numpy().astype(np.int64).clip(max=2048) + 16


def make_plan(texts: Mapping[str, tuple[pl.Series, pl.Series]], *, transform: str, store: TextStore | None) -> Plan:
    """Compare the texts asked for (kind -> tokens, texts), after `transform`, with those of `store`.

    Raises:
        StoreError: tokens and texts that do not fit each other, or repeated tokens.
        StaleStoreError: a token that is stored with another text.
    """
    frames = {kind: _frame(kind, tokens, values, transform) for kind, (tokens, values) in texts.items()}
    if not frames:
        raise StoreError("a text store of no texts was asked for; give at least one kind (title, comment)")
    known = _known(store)
    new = {kind: _new_tokens(kind, frame, store, known) for kind, frame in frames.items()}
    distinct = pl.concat([frame["text"] for frame in new.values()]).unique()
    fresh = distinct.to_frame().join(known, on="text", how="anti")
    # By length, so that chunks hold little padding; then by text, so that the order of the input does not matter.
    fresh = fresh.sort([pl.col("text").str.len_bytes(), pl.col("text")], descending=[True, False])
    first = store.rows if store else 1
    rows = pl.concat([known, fresh.select("text", row=pl.int_range(first, first + pl.len(), dtype=pl.Int64))])
    index = {
        kind: frame.join(rows, on="text", how="left", maintain_order="left").select("token", "row")
        for kind, frame in new.items()
    }
    return Plan(
        texts=fresh["text"],
        first_row=first,
        index={kind: frame for kind, frame in index.items() if frame.height},
        asked={kind: frame.height for kind, frame in frames.items()},
        empty=sum(int((frame["text"] == "").sum()) for frame in frames.values()),
        text_hash=_text_hash(new, store.manifest["text_hash"] if store else ""),
    )


def _frame(kind: str, tokens: pl.Series, values: pl.Series, transform: str) -> pl.DataFrame:
    """Columns `token`, `text` of one kind, checked and transformed."""
    if not KIND.fullmatch(kind) or kind == "texts":
        raise StoreError(
            f"{kind!r} cannot name a kind of text; use title, comment, or another word of lower-case letters but texts"
        )
    if len(tokens) != len(values):
        raise StoreError(f"{len(tokens):,} {kind} tokens came with {len(values):,} texts; they must be as many")
    frame = pl.DataFrame({"token": pl.Series(tokens, dtype=pl.Utf8), "text": pl.Series(values, dtype=pl.Utf8)})
    if frame["token"].null_count() or frame["text"].null_count():
        raise StoreError(f"there are null {kind} tokens or texts; an empty text is ''")
    if frame["token"].n_unique() < frame.height:
        repeated = frame["token"].filter(frame["token"].is_duplicated())[0]
        raise StoreError(f"the {kind} token {repeated!r} occurs more than once; tokens must be distinct")
    text = pl.col("text").str.strip_chars()
    return frame.with_columns(text.str.replace_all(r"\d", "#") if transform == "mask_digits" else text)


def _known(store: TextStore | None) -> pl.DataFrame:
    """Columns `text`, `row` of all that needs no encoding: the empty text, and what is stored."""
    empty = pl.DataFrame({"text": [""], "row": [0]}, schema={"text": pl.Utf8, "row": pl.Int64})
    return empty if store is None else pl.concat([empty, store.texts().select("text", "row")])


def _new_tokens(kind: str, frame: pl.DataFrame, store: TextStore | None, known: pl.DataFrame) -> pl.DataFrame:
    """The rows of `frame` whose token is not stored; a stored token must have the text it was stored with."""
    if store is None or kind not in store.manifest["kinds"]:
        return frame
    both = frame.join(store.index(kind), on="token").join(known, on="row", suffix="_stored")
    changed = both.filter(pl.col("text") != pl.col("text_stored"))
    if changed.height:
        token = changed["token"][0]
        raise StaleStoreError(
            f"the text store {store.folder} is another one: {changed.height:,} {kind} texts have changed, "
            f"the first of {token!r}; {RENEW}"
        )
    return frame.join(both.select("token"), on="token", how="anti", maintain_order="left")


def _text_hash(frames: Mapping[str, pl.DataFrame], previous: str) -> str:
    digest = hashlib.sha256(previous.encode())
    for kind in sorted(frames):
        digest.update(f"\n{kind} {frames[kind].height}\n".encode())
        for column in ("token", "text"):
            for part in frames[kind][column].to_frame("value").iter_slices(SLICE):
                values = part["value"]
                # Lengths first: without them "ab" + "c" and "a" + "bc" would be one.
                digest.update(values.str.len_bytes().to_numpy().astype("<i8").tobytes())
                digest.update((values.str.join("")[0] or "").encode())
    return digest.hexdigest()
