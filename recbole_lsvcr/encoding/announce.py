"""What a text store will cost, said before the work starts; stops where it cannot succeed."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl

from recbole_lsvcr.encoding.encoders import TextEncoder
from recbole_lsvcr.encoding.plan import Plan
from recbole_lsvcr.errors import StoreError

logger = logging.getLogger()

UNKNOWN_SAMPLE = 20_000
TIMED = (32, 512)  # texts that the time estimate is taken from; the larger sample only where the small one was quick


def announce(
    folder: Path, plan: Plan, rows_done: int, encoder: TextEncoder, dtype: str, max_unknown_share: float
) -> None:
    """Log the number of texts, their size on the disk, the share of unknown tokens and the time the encoding will take.

    Raises:
        StoreError: the disk has not the room, or too many tokens are unknown to the encoder.
    """
    width = encoder.dim * np.dtype(dtype).itemsize
    asked = ", ".join(f"{count:,} {kind}s" for kind, count in plan.asked.items())
    logger.info(
        f"Text store {folder}: {asked} ({plan.empty:,} of them empty, {plan.new_tokens:,} not yet stored), "
        f"{len(plan.texts):,} distinct texts to encode with {encoder.name}; "
        f"{plan.rows:,} rows of {encoder.dim} {dtype}, {plan.rows * width / 1e6:,.1f} MB"
    )
    needed = (plan.rows - rows_done) * width + int(plan.texts.str.len_bytes().sum())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"the text store {folder} needs {needed / 1e6:,.1f} MB more, its disk has {free / 1e6:,.1f} MB free; "
            "free some, use another disk, or store float16"
        )
    _check_language(plan.texts, encoder, max_unknown_share)
    done = max(rows_done - plan.first_row, 0)
    if done:
        logger.info(f"Continuing an unfinished build: {done:,} texts are encoded already")
    seconds = _estimate(plan.texts[done:], plan.costs()[done:], encoder)
    if seconds is not None:
        rate = (len(plan.texts) - done) / seconds
        logger.info(f"Encoding takes about {_duration(seconds)} ({rate:,.0f} texts per second)")


def _check_language(texts: pl.Series, encoder: TextEncoder, limit: float) -> None:
    sample = _spread(texts, UNKNOWN_SAMPLE)
    unknown = encoder.unknown_share(sample.to_list())
    logger.info(f"Unknown tokens: {unknown:.1%} of those of {len(sample):,} texts")
    if unknown > limit:
        raise StoreError(
            f"{unknown:.0%} of the tokens of these texts are unknown to the text encoder {encoder.name} "
            f"(limit {limit:.0%}): wrong language? choose an encoder made for the texts' language, "
            "or raise max_unknown_share"
        )


def _estimate(texts: pl.Series, costs: np.ndarray, encoder: TextEncoder) -> float | None:
    """Seconds that encoding `texts` will take, from a sample; None where they are too few to be worth one."""
    seconds = None
    for count in TIMED:
        if len(texts) < 20 * count:
            break
        picked = _positions(len(texts), count)
        sample = texts[picked].to_list()
        started = time.perf_counter()
        encoder.encode(sample)
        elapsed = time.perf_counter() - started
        seconds = elapsed * int(costs.sum()) / int(costs[picked].sum())
        if elapsed > 1:
            break
    return seconds


def _spread(texts: pl.Series, count: int) -> pl.Series:
    return texts if len(texts) <= count else texts[_positions(len(texts), count)]


def _positions(length: int, count: int) -> np.ndarray:
    """Evenly spaced positions: the texts are sorted by length, so all lengths occur."""
    return np.linspace(0, length - 1, count).astype(np.int64)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
