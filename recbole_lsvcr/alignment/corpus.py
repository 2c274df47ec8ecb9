"""The texts of the training period, and as the token sequences that a language model learns from.

Split by time: the titles of videos and the comments that are known to have been there before the training period ended,
that is posted or interacted with. Split per user (leave-one-out, ratio), where no time ends training: the comments of
training records, and the titles of the videos of training interactions and records.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import polars as pl

from recbole_lsvcr.alignment.collate import AlignmentCollator
from recbole_lsvcr.alignment.instances import AlignmentInstances
from recbole_lsvcr.alignment.prompts import Instructions, PromptFamily
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import TRAIN
from recbole_lsvcr.errors import DataError

HELD_OUT = 0.02
HELD_OUT_TEXTS = 200
CHUNK = 4096  # texts tokenised at once
HISTORIES = 64  # instances written at once
TARGET_TOKENS = 64
LONG_EVERY = 4  # batches; the rows of such a batch are joined to one


def training_texts(data: JointData) -> pl.DataFrame:
    """The distinct texts of the training period (see the module's text): columns `text`, `item` (id), `is_title`.

    Raises:
        DataError: fewer than two.
    """
    tables, split = data.tables, data.split
    if split.kind == "time":
        # A comment without posting time was there when somebody interacted with it; so was a video (`item_time`).
        since = np.where(np.isfinite(tables.comment_time), tables.comment_time, np.inf)
        np.minimum.at(since, tables.cinter_comment, tables.cinter_time)
        comments = since < split.valid_start
        items = np.isfinite(tables.item_time) & (tables.item_time < split.valid_start)
    else:
        training = data.comments.phase[data.records.event_record] == TRAIN
        comments, items = np.zeros(data.n_comments, bool), data.train_item_count > 0
        comments[tables.cinter_comment[training]] = True
        items[tables.cinter_item[training]] = True
    chosen = [np.flatnonzero(kept[1:]) + 1 for kept in (items, comments)]
    texts = pl.concat([tables.titles.gather(chosen[0]).rename("text"), tables.contents.gather(chosen[1])])
    frame = pl.DataFrame(
        {
            "text": texts.str.strip_chars(),
            "item": np.concatenate([chosen[0], tables.comment_item[chosen[1]]]),
            "is_title": np.arange(len(texts)) < len(chosen[0]),
        }
    )
    frame = frame.filter(pl.col("text") != "").unique("text", keep="first", maintain_order=True)
    if frame.height < 2:
        raise DataError(
            f"data set {tables.name!r} has {frame.height} training texts, too few for a language model; choose "
            "another split, or give another llm"
        )
    return frame


def texts_read(data: JointData) -> dict[str, Any]:
    """What of the split decides which texts are `training_texts`."""
    split = data.split
    if split.kind == "time":
        return {"kind": "time", "texts_before": split.valid_start}
    return {"kind": split.kind, "left_out": list(split.left_out), "ratios": list(split.ratios)}


def held_out_texts(texts: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.Series]:
    """Texts to train on, and a random few to keep apart."""
    held_out = min(HELD_OUT_TEXTS, max(1, round(HELD_OUT * texts.height)))
    order = rng.permutation(texts.height)
    return texts[np.sort(order[held_out:])], texts["text"].gather(np.sort(order[:held_out]))


def training_batches(
    data: JointData,
    texts: pl.DataFrame,
    tokenizer: Any,
    *,
    block: int,
    batch: int,
    context: int,
    histories: float,
    prompts: str,
    rng: np.random.Generator,
    seed: int,
) -> Iterator[np.ndarray]:
    """int64 batches [b, n] of token ids, without end: `packed_batches` of `texts`, every fourth of them as one long row
    if the model's `context` holds it, and among them a share `histories` of `history_rows`.

    Raises:
        ConfigError, DataError: as `history_rows`, if histories are read.
    """
    batches = _long_rows(packed_batches(texts, tokenizer, block=block, batch=batch, rng=rng), context)
    if not histories:
        return batches
    length = min(block * batch, context)
    others = history_rows(data, tokenizer, prompts=prompts, context=context, length=length, seed=seed)
    return _mixed(batches, others, histories)


def _long_rows(batches: Iterator[np.ndarray], context: int) -> Iterator[np.ndarray]:
    """Every fourth batch as one row: the same number of tokens, and positions behind a block are learnt, too."""
    for number, ids in enumerate(batches, start=1):
        yield ids.reshape(1, -1) if number % LONG_EVERY == 0 and ids.size <= context else ids


def _mixed(batches: Iterator[np.ndarray], others: Iterator[np.ndarray], share: float) -> Iterator[np.ndarray]:
    """Batches of both, `share` of them others, evenly."""
    for number in count():
        yield next(others if int((number + 1) * share) > int(number * share) else batches)


def packed_batches(
    texts: pl.DataFrame, tokenizer: Any, *, block: int, batch: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """int64 batches [batch, block] of token ids, without end: texts one after the other, each closed by EOS.

    A video's texts stand together, its title first, so that a title is read to tell what is written under it; videos
    and comments are in a new order in every epoch.
    """
    item, is_title = texts["item"].to_numpy(), texts["is_title"].to_numpy()
    pending = np.zeros(0, np.int64)
    while True:
        within = np.where(is_title, -1.0, rng.random(len(item)))
        order = np.lexsort((within, rng.permutation(item.max() + 1)[item]))
        for start in range(0, len(order), CHUNK):
            ids = tokens(tokenizer, texts["text"].gather(order[start : start + CHUNK]).to_list())
            pending = np.concatenate([pending, *ids])
            blocks = rng.permutation(pending[: len(pending) // block * block].reshape(-1, block))
            used = len(blocks) // batch * batch
            yield from blocks[:used].reshape(-1, batch, block)
            pending = np.concatenate([blocks[used:].ravel(), pending[blocks.size :]])


def history_rows(
    data: JointData, tokenizer: Any, *, prompts: str, context: int, length: int, seed: int
) -> Iterator[np.ndarray]:
    """int64 rows [1, length] of token ids, without end: the training instances' instructions with their targets, one
    after the other, in a new order and with other comments in every epoch.

    Every entry of an instruction is the target of the entries before it, so a row teaches many next videos at once.

    Raises:
        ConfigError: a prompt family that cannot be used, a context too short for it. DataError: no training instance.
    """
    instances = AlignmentInstances(data, seed=seed)
    family = PromptFamily.load(prompts)
    instructions = Instructions(tokenizer, family, context=context, max_tokens=length, max_target_tokens=TARGET_TOKENS)
    collate = AlignmentCollator(instances, instructions, seed=seed)
    pending = np.zeros(0, np.int64)
    for epoch in count():
        order = instances.order(epoch)
        for start in range(0, len(order), HISTORIES):
            batch = collate(order[start : start + HISTORIES], epoch)
            pending = np.concatenate([pending, batch.input_ids[batch.attention_mask.bool()].numpy()])
            used = len(pending) // length * length
            yield from pending[:used].reshape(-1, 1, length)
            pending = pending[used:]


def tokens(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of texts, each with the tokenizer's special tokens and with EOS at its end."""
    ids = tokenizer(
        texts,
        split_special_tokens=True,  # somebody may have written "</s>"
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    eos = tokenizer.eos_token_id
    return [row if row and row[-1] == eos else [*row, eos] for row in ids]
