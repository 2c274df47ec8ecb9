"""The data of alignment: instances of both tasks, batches with every text once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from alignment_reading import (
    ALWAYS,
    NEVER,
    SPLIT,
    Words,
    collator_of,
    comment_id,
    joint,
    read,
    reference_popular,
    small_data,
)
from factories import DAY, START
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator, joined_tokens
from recbole_lsvcr.alignment.instances import AlignmentInstances, Inputs
from recbole_lsvcr.alignment.prompts import Instructions, PromptFamily
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError, DataError

# Instances ------------------------------------------------------------------------------------------------------------


def test_an_epoch_is_a_shuffled_union_of_the_training_instances_of_both_tasks():
    data = small_data()
    instances = AlignmentInstances(data, seed=5)
    counts = [len(data.rows(kind, 0)) for kind in ("video", "comment")]
    assert len(instances) == sum(counts) and instances.left_out == {"video": 0, "comment": 0}
    assert instances.is_video.sum() == counts[0]
    first, again, later = instances.order(0), AlignmentInstances(data, seed=5).order(0), instances.order(1)
    assert sorted(first.tolist()) == list(range(len(instances))) and first.dtype == np.int64
    np.testing.assert_array_equal(first, again)
    assert (first != later).any() and (first != AlignmentInstances(data, seed=6).order(0)).any()
    assert len(np.unique(instances.is_video[first[:40]])) == 2
    only = AlignmentInstances(data, tasks=("comment",))
    assert len(only) == counts[1] and not only.is_video.any()
    assert len(AlignmentInstances(data, phase=1)) == sum(len(data.rows(kind, 1)) for kind in ("video", "comment"))


def test_inputs_are_the_newest_steps_of_what_the_joint_data_gathers():
    data = small_data()
    instances = AlignmentInstances(data)
    rows = instances.order(0)[:50]
    inputs = instances.inputs(rows, 4)
    both = {kind: data.gather(kind, data.rows(kind, 0), training=False) for kind in ("video", "comment")}
    n_videos = len(both["video"])
    assert inputs.video_items.shape == (50, 4)
    for b, r in enumerate(rows.tolist()):
        assert inputs.is_video[b] == (r < n_videos)
        batch, at = (both["video"], r) if r < n_videos else (both["comment"], r - n_videos)
        for name in ("user", "item", "time"):
            assert getattr(inputs, name)[b] == getattr(batch, name)[at]
        for name, items, comments in (("video", "video_items", None), ("record", "record_items", "record_comments")):
            n = int(getattr(batch, f"{name}_len")[at])
            kept = min(n, 4)
            assert getattr(inputs, f"{name}_len")[b] == kept
            row = getattr(inputs, items)[b]
            assert row[:kept].tolist() == getattr(batch, items)[at, n - kept : n].tolist() and not row[kept:].any()
            if comments:
                width = batch.record_comments.shape[2]
                shown = inputs.record_comments[b, :kept, :width]
                assert shown.tolist() == batch.record_comments[at, n - kept : n].tolist()
                assert not inputs.record_comments[b, kept:].any()
        assert [c for c in inputs.positives[b].tolist() if c] == [c for c in batch.target_comments[at].tolist() if c]


def with_texts(tables: Tables, titles: dict[int, str], contents: dict[int, str]) -> Tables:
    def changed(texts: pl.Series, new: dict[int, str]) -> pl.Series:
        return pl.Series([new.get(i, text) for i, text in enumerate(texts.to_list())])

    return dataclasses.replace(
        tables, titles=changed(tables.titles, titles), contents=changed(tables.contents, contents)
    )


def test_targets_without_text_are_left_out_and_counted():
    data = small_data()
    item = int(data.videos.item[data.rows("video", 0)[0]])
    records, rows = data.records, data.rows("comment", 0)
    sizes = np.diff(records.offsets)
    long = next(int(r) for r in rows if sizes[r] > 2)
    comments = records.comments[records.offsets[long] : records.offsets[long + 1]].tolist()
    blank = {c: " " for c in comments[:-1]}
    tables = with_texts(data.tables, {item: ""}, blank)
    instances = AlignmentInstances(JointData(tables, split=SPLIT, record_gap=3 * DAY))
    assert instances.left_out["video"] == (data.videos.item[data.rows("video", 0)] == item).sum() > 0
    silent = [
        r for r in rows if set(records.comments[records.offsets[r] : records.offsets[r + 1]].tolist()) <= {*blank}
    ]
    assert instances.left_out["comment"] == len(silent)
    assert len(instances) == len(data.rows("video", 0)) + len(rows) - sum(instances.left_out.values())
    words = Words()
    collator = AlignmentCollator(instances, words)  # type: ignore[arg-type]
    for step_seed in range(5):
        batch = collator(np.arange(len(instances)), step_seed)
        assert (batch.target > 0).all() and all(text.strip() for text in words.targets)


def test_a_comment_target_is_one_positive_of_its_record_and_a_new_one_each_time():
    data = small_data()
    collator, words = collator_of(data, tasks=("comment",))
    rows = np.arange(len(collator.instances))
    positives = [{*p.tolist()} - {0} for p in collator.instances.inputs(rows, 6).positives]
    drawn: list[Counter] = [Counter() for _ in rows]
    for step_seed in range(60):
        collator(rows, step_seed)
        for row, text in enumerate(words.targets):
            drawn[row][comment_id(text)] += 1
    for row in rows:
        assert set(drawn[row]) <= positives[row]
        if len(positives[row]) <= 3:
            assert set(drawn[row]) == positives[row]
            assert max(drawn[row].values()) <= 60 / len(positives[row]) + 25


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": ()}, ConfigError, "give one or both of video, comment"),
        ({"tasks": ("videos",)}, ConfigError, "'videos'"),
        ({"tasks": ("video", "video")}, ConfigError, "give one or both"),
        ({"phase": 2}, ConfigError, "phase = 2"),
    ],
)
def test_bad_instances_are_named(options, error, message):
    with pytest.raises(error, match=message):
        AlignmentInstances(small_data(), **options)


def test_a_data_set_without_any_instance_is_named():
    tables = Tables.from_arrays(inter=[("a", "v", START), ("a", "w", START + 1)])
    with pytest.raises(DataError, match="no train instance of comment"):
        AlignmentInstances(JointData(tables, split=Split("time")), tasks=("comment",))


# Batches --------------------------------------------------------------------------------------------------------------


def as_text(batch: AlignmentBatch, words: Words) -> list[dict[str, Any]]:
    """What every instance of a batch is, without anything that depends on the batch."""
    text = ["", *batch.texts]

    def strings(rows: torch.Tensor, length: int) -> list:
        def of(value: Any) -> Any:
            return [of(v) for v in value] if isinstance(value, list) else text[value]

        assert not rows[length:].any()
        return of(rows[:length].tolist())

    return [
        {
            "task": bool(batch.is_video[b]),
            "videos": strings(batch.video_titles[b], int(batch.video_len[b])),
            "popular": strings(batch.video_comments[b], int(batch.video_len[b])),
            "records": strings(batch.record_titles[b], int(batch.record_len[b])),
            "written": strings(batch.record_comments[b], int(batch.record_len[b])),
            "watched": text[batch.watched[b]],
            "target": text[batch.target[b]],
            "key": int(batch.target_key[b]),
            "instruction": words.inputs[b],
            "target_text": words.targets[b],
        }
        for b in range(len(batch))
    ]


def test_draws_depend_on_the_seeds_and_not_on_the_batch():
    data = small_data()
    collator, words = collator_of(data)
    rows = collator.instances.order(0)[:60]
    whole = as_text(collator(rows, 4), words)
    assert as_text(collator(rows, 4), words) == whole
    for at in (slice(0, 1), slice(7, 30), slice(59, 60), [40, 3, 3]):
        part = collator(rows[at], 4)
        expected = [whole[i] for i in np.arange(60)[at]]
        assert as_text(part, words) == expected
    assert as_text(collator(rows, 5), words) != whole
    other, other_words = collator_of(data, seed=1)
    assert as_text(other(rows, 4), other_words) != whole


@pytest.mark.parametrize("size", [8, 1_000])
def test_a_batch_holds_every_text_once_and_points_to_the_right_ones(size: int):
    base = small_data().tables
    # The same words under several ids, as a title and as a comment; and comments without any.
    repeated = {c: f"text of c{c % 9}" for c in range(20, 50)} | {c: "  " for c in range(50, 56)}
    tables = with_texts(base, {3: "title of v0", 4: "text of c3"}, repeated)
    data = joint(tables)
    collator, words = collator_of(data, diversify=ALWAYS)
    rows = collator.instances.order(0)[:size]
    batch, inputs = collator(rows, 0), collator.instances.inputs(rows, 6)
    assert len(set(batch.texts)) == len(batch.texts) and all(text.strip() for text in batch.texts)
    names = ("video_titles", "video_comments", "record_titles", "record_comments", "watched", "target")
    used = torch.cat([getattr(batch, name).flatten() for name in names]).unique()
    assert used.tolist() == list(range(len(batch.texts) + 1)), "every text is read by the SR model or is a target"
    titles = tables.titles.to_list()
    for b, row in enumerate(as_text(batch, words)):
        n, m = inputs.video_len[b], inputs.record_len[b]
        assert row["videos"] == [titles[i] for i in inputs.video_items[b, :n]]
        assert row["records"] == [titles[i] for i in inputs.record_items[b, :m]]
        assert row["instruction"].task == ("video" if row["task"] else "comment")
        assert [entry.title for entry in row["instruction"].videos] == row["videos"]
        assert [entry.title for entry in row["instruction"].records] == row["records"]
        assert all(text.strip() for entry in row["instruction"].records for text in entry.comments)
        assert row["target"] == row["target_text"]
        if row["task"]:
            assert row["watched"] == row["instruction"].watched == "" and row["target"] == titles[inputs.item[b]]
        else:
            assert row["watched"] == row["instruction"].watched == titles[inputs.item[b]]
            assert row["target"] in [tables.contents[int(c)] for c in inputs.positives[b] if c]
    keys = batch.target_key.tolist()
    for a in range(len(keys)):
        for b in range(len(keys)):
            assert (keys[a] == keys[b]) == (words.targets[a] == words.targets[b])


def test_the_instruction_shows_the_newest_entries_in_both_orders():
    data = small_data()
    collator, words = collator_of(data, instruction_history=2, diversify=NEVER)
    rows = np.arange(len(collator.instances))
    batch = as_text(collator(rows, 0), words)
    assert max(len(row["videos"]) for row in batch) == 6
    for row in batch:
        assert [entry.title for entry in row["instruction"].videos] == row["videos"][-2:]
        assert [list(entry.comments) for entry in row["instruction"].videos] == [
            [c] if c else [] for c in row["popular"]
        ][-2:]
        assert [entry.title for entry in row["instruction"].records] == row["records"][-2:]
    for task in (True, False):
        orders = [row["instruction"].order for row in batch if row["task"] is task]
        assert abs(np.mean(orders) - 0.5) < 0.2 and set(orders) == {0, 1}


def test_held_out_instances_show_the_top_comment_to_both_sides():
    data = small_data()
    inputs, videos, records = read(data, ALWAYS, phase=1)
    assert videos and records
    for step in videos:
        assert step.llm == step.sr == reference_popular(data, inputs, step)[:1]
    assert all(step.llm == step.sr for step in records)


def test_an_empty_comment_of_a_record_counts_and_has_no_text():
    tables = Tables.from_arrays(
        inter=[("a", "v", START + DAY), ("a", "w", START + 3 * DAY)],
        cinter=[("a", comment, START) for comment in ("c1", "c2", "c3")],
        comments={"c1": {"item_id": "v", "content": ""}, "c2": {"item_id": "v"}, "c3": {"item_id": "v"}},
    )
    data = JointData(tables, split=Split("time"))
    collator, _ = collator_of(data)
    batch = collator([len(collator.instances) - 2], 0)  # the later video
    assert batch.record_len.tolist() == [1] and batch.record_counts.tolist() == [[3]]
    shown = sorted(batch.record_comments[0, 0].tolist())
    assert shown[0] == 0 and {batch.texts[row - 1] for row in shown[1:]} == {"text of c2", "text of c3"}


def test_empty_histories_keep_one_column():
    tables = Tables.from_arrays(
        inter=[("a", "v", START + DAY)],
        cinter=[("b", "c1", START)],
        comments={"c1": {"item_id": "v"}},
    )
    collator, words = collator_of(JointData(tables, split=Split("time")))
    batch = collator([0], 0)
    assert batch.video_titles.tolist() == [[0]] and batch.record_comments.tolist() == [[[0, 0, 0]]]
    assert batch.video_len.tolist() == batch.record_len.tolist() == [0]
    assert (
        batch.texts == ["title of v", "text of c1"] and batch.watched.tolist() == [1] and batch.target.tolist() == [2]
    )
    assert words.inputs[0].videos == words.inputs[0].records == []


def test_a_batch_moves_to_a_device_whole():
    collator, _ = collator_of(small_data())
    moved = collator([0, 1], 0).to("meta")
    assert all(value.device.type == "meta" for value in vars(moved).values() if isinstance(value, torch.Tensor))
    assert len(moved) == 2 and moved.texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_history": 0}, "max_history=0"),
        ({"instruction_history": 0}, "instruction_history=0"),
        ({"instruction_history": 2.5}, "instruction_history=2.5"),
        ({"padding_side": "both"}, "padding_side='both'"),
    ],
)
def test_bad_collator_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        collator_of(small_data(), **options)


# Leakage --------------------------------------------------------------------------------------------------------------


def without_the_future(data: JointData, inputs: Inputs) -> Tables:
    """The tables without any event at or after the one instance's time but its target."""
    tables, time = data.tables, float(inputs.time[0])
    same = (tables.inter_user == inputs.user[0]) & (tables.inter_item == inputs.item[0])
    keep = (tables.inter_time < time) | (same & (tables.inter_time == time) & inputs.is_video[0])
    ckeep = tables.cinter_time < time
    if not inputs.is_video[0]:
        of_user = tables.cinter_user == inputs.user[0]
        start = of_user & (tables.cinter_time == time) & (tables.cinter_item == inputs.item[0])
        ckeep |= data.records.event_record == data.records.event_record[np.flatnonzero(start)[0]]
    return dataclasses.replace(
        tables,
        **{f"inter_{f}": getattr(tables, f"inter_{f}")[keep] for f in ("user", "item", "time")},
        **{f"cinter_{f}": getattr(tables, f"cinter_{f}")[ckeep] for f in ("user", "item", "comment", "time")},
    )


def test_nothing_at_or_after_the_target_changes_a_batch():
    data = small_data()
    collator, words = collator_of(data, diversify=ALWAYS)
    instances = collator.instances
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(instances.is_video))[:10].tolist()
    chosen += np.random.default_rng(0).permutation(np.flatnonzero(~instances.is_video))[:10].tolist()
    for row in chosen:
        inputs = instances.inputs([row], 6)
        then = joint(without_the_future(data, inputs))
        task = "video" if inputs.is_video[0] else "comment"
        other, other_words = collator_of(then, diversify=ALWAYS, tasks=(task,))
        found = other.instances.inputs(np.arange(len(other.instances)), 6)
        at = (found.user == inputs.user[0]) & (found.item == inputs.item[0]) & (found.time == inputs.time[0])
        for step_seed in range(4):
            before = as_text(collator([row], step_seed), words)
            assert as_text(other(np.flatnonzero(at)[:1], step_seed), other_words) == before


# Tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [0, 9])
def test_labels_and_the_last_instruction_token_go_by_position(pad: int):
    eos = 0
    instructions, targets = [[5, 6, 7], [5]], [[8, eos], [8, eos, 8, eos]]  # EOS may stand inside a target, too
    right = joined_tokens(instructions, targets, pad=pad, side="right")
    left = joined_tokens(instructions, targets, pad=pad, side="left")
    for tokens in (right, left):
        for b in range(2):
            seen = tokens["attention_mask"][b].bool()
            assert tokens["input_ids"][b][seen].tolist() == instructions[b] + targets[b]
            assert (tokens["input_ids"][b][~seen] == pad).all() and (tokens["labels"][b][~seen] == -100).all()
            assert tokens["labels"][b][seen].tolist() == [-100] * len(instructions[b]) + targets[b]
            last = int(tokens["last_instruction"][b])
            assert tokens["input_ids"][b, last] == instructions[b][-1] and tokens["labels"][b, last] == -100
            assert tokens["labels"][b, last + 1] == targets[b][0]
    instructions[1] = [5, 6]
    padded = joined_tokens(instructions, [[8, eos], [eos]], pad=pad, side="right")
    assert padded["input_ids"].tolist() == [[5, 6, 7, 8, eos], [5, 6, eos, pad, pad]]
    assert padded["labels"].tolist() == [[-100, -100, -100, 8, eos], [-100, -100, eos, -100, -100]]
    padded = joined_tokens(instructions, [[8, eos], [eos]], pad=pad, side="left")
    assert padded["input_ids"][1].tolist() == [pad, pad, 5, 6, eos] and padded["last_instruction"].tolist() == [2, 3]


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte, EOS and no pad token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"</s>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.mark.parametrize("side", ["right", "left"])
def test_real_instructions_end_in_the_target_and_eos(side: str):
    tokenizer = bytes_tokenizer()
    instructions = Instructions(tokenizer, PromptFamily.load("en"), context=4096, max_target_tokens=64)
    collator = AlignmentCollator(AlignmentInstances(small_data()), instructions, max_history=4, padding_side=side)  # type: ignore[arg-type]
    batch = collator(collator.instances.order(0)[:16], 0)
    text = ["", *batch.texts]
    assert batch.attention_mask.sum(dim=1).min() < batch.input_ids.shape[1]
    for b in range(16):
        labels = batch.labels[b][batch.labels[b] >= 0]
        assert labels[-1] == tokenizer.eos_token_id and (labels == tokenizer.eos_token_id).sum() == 1
        assert text[batch.target[b]] in tokenizer.decode(labels)
        last = int(batch.last_instruction[b])
        given = tokenizer.decode(batch.input_ids[b, : last + 1][batch.attention_mask[b, : last + 1].bool()])
        assert all(text[u] in given for u in batch.video_titles[b].tolist())
        assert batch.labels[b, last] == -100 and batch.labels[b, last + 1] >= 0


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return int(self.rows[index])


def test_batches_do_not_depend_on_the_number_of_workers():
    collator, _ = collator_of(small_data())
    rows = Rows(collator.instances.order(0)[:48])

    def batches(workers: int) -> list[AlignmentBatch]:
        collate = _AtStep(collator)
        options = {"multiprocessing_context": "fork", "timeout": 60} if workers else {}
        loader = torch.utils.data.DataLoader(rows, batch_size=16, collate_fn=collate, num_workers=workers, **options)
        return list(loader)

    for alone, forked in zip(batches(0), batches(2), strict=True):
        for field in dataclasses.fields(AlignmentBatch):
            a, b = getattr(alone, field.name), getattr(forked, field.name)
            assert a == b if field.name == "texts" else torch.equal(a, b)


class _AtStep:
    def __init__(self, collator: AlignmentCollator) -> None:
        self.collator = collator

    def __call__(self, rows: list[int]) -> AlignmentBatch:
        return self.collator(rows, 3)


def test_the_data_side_imports_without_recbole_transformers_and_peft():
    absent = "sys.modules.update(recbole=None, transformers=None, peft=None)"
    code = f"import sys; {absent}; import recbole_lsvcr.alignment.collate"
    subprocess.run([sys.executable, "-c", code], check=True)
