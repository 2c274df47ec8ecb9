"""A tiny aligned pair and its batches: a Llama of two layers with a byte-level tokenizer, made here."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import forks
import numpy as np
import torch
from factories import DAY, START, make_tables
from tiny_models import byte_tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator, joined_tokens
from recbole_lsvcr.alignment.instances import AlignmentInstances
from recbole_lsvcr.alignment.load import add_lora, load_causal_lm
from recbole_lsvcr.alignment.losses import AlignmentObjective
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.prompts import Instructions, PromptFamily
from recbole_lsvcr.alignment.trainer import AlignmentTrainer
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.model.sr import SRConfig, SRModel

LOSSES = {"lm", "sr", "ssc", "vcc"}
HEALTH = {"retrieval", "vcc_accuracy", "cosine_own", "cosine_others"}
CONTEXT = 512
SENTENCES = (
    "A user has interacted with the following videos: 1. Title: title of v1; Popular comment: text of c12.",
    "his/her comment interaction history is as follows: User interacted comments: {text of c3; text of c4}.",
    "Please recommend the next video for him/her based on these interaction histories:",
    "Please generate a potentially interactive comment based on the above historical interactions and the current",
)


def save_tiny_lm(folder: Path, *, seed: int = 5) -> Path:
    """A folder with a Llama of 16 columns and a byte-level tokenizer whose only special token is EOS."""
    tokenizer = byte_tokenizer(SENTENCES * 2, size=400)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_sr_config(**changes: Any) -> SRConfig:
    """Sizes of a small SR model, without dropout."""
    sizes: dict[str, Any] = {"hidden_size": 8, "text_size": 12, "n_layers": 1, "inner_size": 16, "max_positions": 14}
    return SRConfig(**{**sizes, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, **changes})


def make_pair(
    folder: Path,
    objective: AlignmentObjective | None = None,
    *,
    lora_dropout: float = 0.0,
    sr: dict[str, Any] | None = None,
    untrained: bool = False,
    seed: int = 3,
    **options: Any,
) -> AlignedPair:
    """The pair of the model in `folder`, the same each time; LoRA adds something unless `untrained`."""
    lm = load_causal_lm(folder)
    torch.manual_seed(seed)
    lm = replace(lm, model=add_lora(lm.model, r=2, alpha=4, dropout=lora_dropout))
    model = SRModel(tiny_sr_config(encoder_size=lm.hidden_size, initializer_range=0.3, **(sr or {})))
    pair = AlignedPair(lm, model, objective, batch_tokens=60, **options)
    if not untrained:
        with torch.no_grad():
            for _, weight in of_lora(pair):
                weight.add_(torch.randn_like(weight) * 0.1)
            for weight in pair.sr.parameters():  # biases of zero would hide one that is left out
                weight.add_(torch.randn_like(weight) * 0.1)
    return pair.train()


def of_lora(pair: AlignedPair) -> list[tuple[str, torch.nn.Parameter]]:
    """The trained weights of the language model."""
    return [(name, weight) for name, weight in pair.llm.named_parameters() if weight.requires_grad]


# Batches made by hand -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instance:
    """An instance whose texts are rows of a table, 0 for none."""

    is_video: bool
    videos: Sequence[tuple[int, int]]  # title, popular comment
    records: Sequence[tuple[int, Sequence[int]]]  # title, comments
    watched: int
    target: int
    instruction: Sequence[int]  # token ids
    answer: Sequence[int]  # token ids, EOS included


def make_instances(n: int = 8, *, texts: int = 9, seed: int = 0) -> list[Instance]:
    """Random instances of both tasks in turn; the first two have no video, the next two no record, some texts are
    empty."""
    rng = np.random.default_rng(seed)

    def one(i: int) -> Instance:
        videos = 0 if i < 2 else int(rng.integers(1, 7))
        records = 0 if 2 <= i < 4 else int(rng.integers(1, 5))
        return Instance(
            is_video=i % 2 == 0,
            videos=[(int(rng.integers(0, texts + 1)), int(rng.integers(0, texts + 1))) for _ in range(videos)],
            records=[
                (int(rng.integers(0, texts + 1)), rng.integers(0, texts + 1, rng.integers(0, 4)).tolist())
                for _ in range(records)
            ],
            watched=0 if i % 2 == 0 else int(rng.integers(1, texts + 1)),
            target=i % texts + 1,
            instruction=rng.integers(1, 300, rng.integers(3, 20)).tolist(),
            answer=[*rng.integers(1, 300, rng.integers(1, 6)).tolist(), 0],
        )

    return [one(i) for i in range(n)]


def make_texts(n: int = 9) -> list[str]:
    """Texts of different lengths; row u + 1 of the table is the u-th."""
    return [("word of a text " * (1 + u % 4)) + f"number {u}" for u in range(n)]


def batch_of(
    instances: Sequence[Instance], texts: list[str], *, side: str = "right", columns: int = 0
) -> AlignmentBatch:
    """The batch of instances, padded on `side` and by so many more `columns`."""
    n = max(max(len(i.videos) for i in instances), 1)
    m = max(max(len(i.records) for i in instances), 1)
    size = len(instances)
    tokens = joined_tokens([i.instruction for i in instances], [i.answer for i in instances], pad=0, side=side)
    before = columns if side == "left" else 0
    for name, value in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        padding = (before, columns - before)
        tokens[name] = torch.nn.functional.pad(tokens[name], padding, value=value)
    tokens["last_instruction"] = tokens["last_instruction"] + before
    videos, records = np.zeros((size, n, 2), np.int64), np.zeros((size, m, 4), np.int64)
    counts = np.zeros((size, m), np.int64)
    for b, instance in enumerate(instances):
        for place, (title, comment) in enumerate(instance.videos):
            videos[b, place] = title, comment
        for place, (title, comments) in enumerate(instance.records):
            records[b, place, : 1 + len(comments)] = [title, *comments]
            counts[b, place] = len(comments)
    target = torch.tensor([i.target for i in instances])
    return AlignmentBatch(
        is_video=torch.tensor([i.is_video for i in instances]),
        texts=texts,
        video_titles=torch.from_numpy(videos[..., 0]),
        video_comments=torch.from_numpy(videos[..., 1]),
        video_len=torch.tensor([len(i.videos) for i in instances]),
        record_titles=torch.from_numpy(records[..., 0]),
        record_comments=torch.from_numpy(records[..., 1:]),
        record_counts=torch.from_numpy(counts),
        record_len=torch.tensor([len(i.records) for i in instances]),
        watched=torch.tensor([i.watched for i in instances]),
        target=target,
        target_key=target * 1_000_003,
        **tokens,
    )


def gradients(pair: AlignedPair) -> dict[str, Tensor]:
    """Gradients of all trained weights, by name; then there are none."""
    trained = [(name, weight) for name, weight in pair.named_parameters() if weight.requires_grad]
    found = {name: weight.grad.clone() for name, weight in trained if weight.grad is not None}
    assert len(found) == len(trained), "data-parallel training waits for every trained weight"
    pair.zero_grad()
    return found


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Equal, relative to the largest entry of all."""
    largest = max(float(value.abs().max()) for value in expected.values())
    assert found.keys() == expected.keys() and largest > 0
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) <= tolerance * largest, name


# Batches of a data set, and training ----------------------------------------------------------------------------------


@cache
def small_data(valid_day: int = 9) -> JointData:
    """A joint data set of a dozen users."""
    split = Split("time", valid_start=START + valid_day * DAY, test_start=START + 11 * DAY)
    return JointData(make_tables(3, videos=8, comments=80), split=split, max_videos=4, max_records=3, record_gap=DAY)


def make_collator(folder: Path) -> AlignmentCollator:
    """A collator of the small data with instructions of the English family for the model in `folder`."""
    tokenizer = load_causal_lm(folder).tokenizer
    instructions = Instructions(tokenizer, PromptFamily.load("en"), context=CONTEXT, max_target_tokens=16)
    return AlignmentCollator(AlignmentInstances(small_data()), instructions, max_history=3)


def make_trainer(
    pair: AlignedPair,
    collate: AlignmentCollator | Callable[[np.ndarray, int], AlignmentBatch],
    folder: Path,
    *,
    rows: Sequence[int],
    arguments: dict[str, Any] | None = None,
    **options: Any,
) -> AlignmentTrainer:
    """A trainer of 6 steps of 4 instances on the CPU that reads the instances `rows`, each epoch in another order."""
    settings: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "save_steps": 3,
        "logging_steps": 1,
        "seed": 11,
        **(arguments or {}),
    }
    given = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        **settings,
    )
    base = pair.texts
    return AlignmentTrainer(
        pair,
        given,
        order=lambda epoch: np.random.default_rng([7, epoch]).permutation(np.asarray(rows)),
        rows=len(rows),
        collate=collate,
        **{"identity": {"base_model": base.name, "base_fingerprint": base.fingerprint, "seed": 11}, **options},
    )


def rows_of(collator: AlignmentCollator, n: int) -> np.ndarray:
    """As many instances of both tasks, with whole histories: those without any cannot be told apart."""
    inputs = collator.instances.inputs(np.arange(len(collator.instances)), 3)
    whole = np.flatnonzero((inputs.video_len == 3) & (inputs.record_len > 0))
    return whole[np.linspace(0, len(whole) - 1, n).astype(int)]


class AtStep(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action()


class Killed(Exception):
    pass


def kill() -> None:
    raise Killed


def on_two_processes(run: Callable[..., None], *arguments: Any) -> None:
    """`run(rank, *arguments)` in two processes that find each other."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    forks.on_two(_on_a_rank, port, run, *arguments)


def _on_a_rank(rank: int, port: int, run: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()})
    run(rank, *arguments)
    torch.distributed.destroy_process_group()
