"""What the tests of alignment's data share: small data, a collator without a tokenizer, batches read back as steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from factories import DAY, START, make_tables
from joint_reference import popular_of

from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator
from recbole_lsvcr.alignment.diversify import (
    DiversifyConfig,
)
from recbole_lsvcr.alignment.instances import AlignmentInstances, Inputs
from recbole_lsvcr.alignment.prompts import InstructionInput
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables

SPLIT = Split("time", valid_start=START + 9 * DAY, test_start=START + 11 * DAY)
ALWAYS = DiversifyConfig(video_instance=1, video_step=1, record_instance=1, record_step=1)
NEVER = DiversifyConfig(videos=False, records=False)


class Words:
    """The tokenizer's side without one: a token per instance, and the instruction inputs kept for the tests."""

    tokenizer = SimpleNamespace(pad_token_id=None, eos_token_id=0)

    def instruction(self, inputs: Sequence[InstructionInput]) -> list[list[int]]:
        self.inputs = list(inputs)
        return [[7] for _ in inputs]

    def target(self, texts: Sequence[str]) -> list[list[int]]:
        self.targets = list(texts)
        return [[8, 0] for _ in texts]


@lru_cache
def small_data(comments: int = 80) -> JointData:
    """Few videos with many comments each: records of several comments, popular comments to choose from."""
    tables = make_tables(3, videos=8, comments=comments, interactions=200, comment_interactions=260, days=12.0)
    return joint(tables)


def joint(tables: Tables) -> JointData:
    return JointData(tables, split=SPLIT, max_videos=9, max_records=7, record_gap=3 * DAY)


def collator_of(data: JointData, **options: Any) -> tuple[AlignmentCollator, Words]:
    words = Words()
    instances = AlignmentInstances(data, **{k: options.pop(k) for k in ("tasks", "phase") if k in options})
    return AlignmentCollator(instances, words, **{"max_history": 6, **options}), words  # type: ignore[arg-type]


def comment_id(text: str) -> int:
    """The id of a comment that `make_tables` named: `text of c12` has id 13."""
    return int(text.removeprefix("text of c")) + 1 if text else 0


@dataclasses.dataclass
class Step:
    """A step of a history as both sides see it: ids of comments."""

    row: int
    item: int
    llm: list[int]
    sr: list[int]
    real: list[int]  # of a record, all of them


def steps_of(collator: AlignmentCollator, words: Words, batch: AlignmentBatch, inputs: Inputs) -> tuple[list, list]:
    """Video and record steps of a batch, read back from its texts."""
    text = ["", *batch.texts]
    videos, records = [], []
    for b, instruction in enumerate(words.inputs):
        assert len(instruction.videos) == inputs.video_len[b] and len(instruction.records) == inputs.record_len[b]
        for i, entry in enumerate(instruction.videos):
            llm = [comment_id(t) for t in entry.comments]
            sr = [comment_id(text[u]) for u in batch.video_comments[b, i : i + 1] if u]
            videos.append(Step(b, int(inputs.video_items[b, i]), llm, sr, []))
        for j, entry in enumerate(instruction.records):
            llm = [comment_id(t) for t in entry.comments]
            sr = [comment_id(text[u]) for u in batch.record_comments[b, j] if u]
            real = [c for c in inputs.record_comments[b, j].tolist() if c]
            records.append(Step(b, int(inputs.record_items[b, j]), llm, sr, real))
    return videos, records


def read(data: JointData, config: DiversifyConfig, step_seed: int = 0, **options: Any) -> tuple[Inputs, list, list]:
    collator, words = collator_of(data, diversify=config, **options)
    rows = np.arange(len(collator.instances))
    batch, inputs = collator(rows, step_seed), collator.instances.inputs(rows, collator.max_history)
    return inputs, *steps_of(collator, words, batch, inputs)


def reference_popular(data: JointData, inputs: Inputs, step: Step) -> list[int]:
    b = step.row
    counted = data.tables.cinter_time < SPLIT.valid_start
    query = int(inputs.user[b]), step.item, float(inputs.time[b]), inputs.positives[b].tolist()
    return popular_of(data.tables, counted, *query)
