"""Text as it stands in an atomic file: one line, no control characters, valid Unicode, nothing else changed."""

from __future__ import annotations

import re

import polars as pl

_SURROGATE = re.compile("[\ud800-\udfff]")
# What RecBole's reader (pandas' default missing values) turns into "missing", even quoted, and its own padding token.
_MISSING = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
LOST_IDS = frozenset(_MISSING.split("|")) | {"[PAD]"}


# What `normalise` changes: blanks at the ends, two blanks, any other white space or control character.
_NOT_NORMAL = r"^ | $|  |[\p{Cc}\s&&[^ ]]"


def replace_surrogates(text: str) -> str:
    """Lone surrogates (legal in JSON, not in UTF-8) become U+FFFD; needed before a text can enter Polars."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def normalise(column: pl.Expr) -> pl.Expr:
    """Characters of category Cc and runs of white space become one space, ends are stripped; null becomes ""."""
    return column.fill_null("").str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars(" ")


def as_number(column: pl.Expr) -> pl.Expr:
    """Text as Float64, blanks around it ignored; null where it is no number."""
    return column.str.strip_chars().cast(pl.Float64, strict=False)


def is_blank(column: pl.Expr) -> pl.Expr:
    """True where a text is empty but for blanks."""
    return column.str.strip_chars() == ""


def is_usable_id(column: pl.Expr) -> pl.Expr:
    """True where an id survives our files and RecBole's reader: not empty, no `NA` and the like, already normal."""
    return (column != "") & ~column.str.contains(_NOT_NORMAL) & ~column.is_in(list(LOST_IDS))


def without_lost(column: pl.Expr) -> pl.Expr:
    """Ids, empty where RecBole's reader would not see them: `NA` and the like."""
    return pl.when(column.is_in(list(LOST_IDS))).then(pl.lit("")).otherwise(column)


def join_tags(column: pl.Expr) -> pl.Expr:
    """A list of tags as one `token_seq`: blanks inside a tag become `_`, empty and repeated tags are dropped."""
    element = pl.element().fill_null("").str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars(" ")
    tags = column.list.eval(element.str.replace_all(" ", "_", literal=True))
    return (
        tags.list.eval(pl.element().filter(pl.element() != "").unique(maintain_order=True)).list.join(" ").fill_null("")
    )
