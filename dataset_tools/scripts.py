"""In which script a text is written: Latin, Han, Cyrillic …, by the Unicode blocks of its letters."""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

OTHER, NONE, EMOJI = "other", "no letters", "emoji"
_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": ((0x41, 0x24F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xFF21, 0xFF5A)),
    "Han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
    "Kana": (
        (0x3041, 0x3096),
        (0x309D, 0x309F),
        (0x30A1, 0x30FA),
        (0x30FD, 0x30FF),
        (0x31F0, 0x31FF),
        (0xFF66, 0xFF9D),
    ),
    "Hangul": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xA960, 0xA97C), (0xAC00, 0xD7FB)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0xA640, 0xA69F)),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Arabic": ((0x620, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "Hebrew": ((0x5D0, 0x5F2), (0xFB1D, 0xFB4F)),
    "Devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "other Indic": ((0x980, 0xDFF),),
    "Thai": ((0xE01, 0xE4E),),
}
SCRIPTS = (*_BLOCKS, OTHER)  # of letters
_EMOJI_BLOCKS = ((0x231A, 0x231B), (0x23E9, 0x23F3), (0x2600, 0x27BF), (0x2B1B, 0x2B55), (0x1F000, 0x1FAFF))
_LETTERS_OF_OTHERS = 0x20000  # from here on only Han has letters


def count_scripts(texts: pl.Series) -> dict[str, int]:
    """How many of the texts have most of their letters in each script; `NONE`: no letters; `EMOJI`: any emoji.

    Texts without a character are not counted. Han letters beside kana count as kana, since Japanese mixes both. Of
    several scripts with equally many letters the first of `SCRIPTS` counts.
    """
    texts = texts.filter(texts != "")
    n, width = len(texts), len(SCRIPTS) + 2
    codes = np.frombuffer("".join(texts.to_list()).encode("utf-32-le"), np.uint32)
    text = np.repeat(np.arange(n), texts.str.len_chars().to_numpy())  # [characters] the text that each stands in
    found = np.bincount(text * width + _kinds()[codes], minlength=n * width).reshape(n, width)
    letters, han, kana = found[:, 1:-1], SCRIPTS.index("Han"), SCRIPTS.index("Kana")
    japanese = letters[:, kana] > 0
    letters[japanese, kana] += letters[japanese, han]
    letters[japanese, han] = 0
    some = letters.any(axis=1)
    counts = np.bincount(letters[some].argmax(axis=1), minlength=len(SCRIPTS)).tolist()
    emoji = int((found[:, -1] > 0).sum())
    return {**dict(zip(SCRIPTS, counts, strict=True)), NONE: n - int(some.sum()), EMOJI: emoji}


@cache
def _kinds() -> NDArray[np.uint8]:
    """Of every code point: 0, or 1 + its place in `SCRIPTS`, or, last, that it is an emoji."""
    kinds = np.zeros(sys.maxunicode + 1, np.uint8)
    letters = [code for code in range(_LETTERS_OF_OTHERS) if unicodedata.category(chr(code))[0] == "L"]
    kinds[letters] = 1 + SCRIPTS.index(OTHER)
    for number, blocks in enumerate(_BLOCKS.values(), start=1):
        for first, last in blocks:
            part = kinds[first : last + 1]
            part[(part > 0) | (first >= _LETTERS_OF_OTHERS)] = number
    for first, last in _EMOJI_BLOCKS:
        kinds[first : last + 1] = len(SCRIPTS) + 1
    return kinds
