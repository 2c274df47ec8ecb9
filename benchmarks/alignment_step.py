"""What an alignment step costs, against the naive order of work, and where the gain comes from.

    python benchmarks/alignment_step.py --data dataset/my-data --llm runs/corpus-lm --output alignment_step.json

Forward and backward of the same batch, model, truncation and gradients, four ways to read the short texts:

- `ours`: distinct texts of the whole batch, length-sorted within a token budget, and so the instructions;
- `naive`: every text as often as it occurs, each kind (history titles, popular comments, record titles, record
  comments, watched titles, targets) and the instructions in a pass of their own, padded to its longest;
- `distinct only`: as naive, with distinct texts; `sorted only`: as ours, with every occurrence.

Each way runs in a process of its own, for its peak memory; the ways take turns, and a ratio is the median over turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset_tools.files import write_json
from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator
from recbole_lsvcr.alignment.config import AlignmentConfig
from recbole_lsvcr.alignment.instances import AlignmentInstances
from recbole_lsvcr.alignment.load import add_lora, load_causal_lm
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.prompts import Instructions, PromptFamily
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.model.sr import SRConfig, SRModel

WAYS = ("ours", "naive", "distinct only", "sorted only")
KINDS = ("video_titles", "video_comments", "record_titles", "record_comments", "watched", "target")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--llm", required=True, help="folder of a causal language model, or minilm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.way:
        sys.stdout.write(json.dumps(measure(options)) + "\n")
        return
    turns: list[dict[str, dict[str, float]]] = []
    for _ in range(options.turns):
        turns.append({way: _in_own_process(way) for way in WAYS})
    rows = {way: {key: statistics.median(turn[way][key] for turn in turns) for key in turns[0][way]} for way in WAYS}
    for way, row in rows.items():
        slower = statistics.median(turn[way]["seconds"] / turn["ours"]["seconds"] for turn in turns)
        larger = statistics.median(turn[way]["step_mb"] / turn["ours"]["step_mb"] for turn in turns)
        row["seconds_over_ours"], row["memory_over_ours"] = round(slower, 2), round(larger, 2)
        print(
            f"{way:14} {row['seconds']:.2f} s a step ({slower:.2f} x ours), {row['step_mb']:.0f} MB ({larger:.2f} x); "
            f"{row['texts']:.0f} short texts, {row['tokens']:.0f} tokens, {row['padding']:.0%} padding"
        )
    if options.output:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "accelerator": "none"}
        about = {"data": options.data.name, "llm": Path(options.llm).name, "batch": options.batch}
        write_json(options.output, {**about, "history": options.history, "ways": rows, "environment": machine})


def _in_own_process(way: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, *sys.argv, "--way", way], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step (the faster of two) and the memory it takes beyond what was there before."""
    pair, batch = prepared(options)
    kinds = {"ours": None, "sorted only": None, "naive": KINDS, "distinct only": KINDS}[options.way]
    if options.way in ("naive", "sorted only"):
        batch = occurrences(batch)
    if kinds is not None:
        pair.read_texts = _by_kind(pair, batch)  # type: ignore[method-assign]
        pair.instruct = pair._instruct  # type: ignore[method-assign]  # all instructions in one pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        pair.zero_grad()
        pair.texts.count = type(pair.texts.count)()
        torch.manual_seed(0)
        started = time.perf_counter()
        pair(batch, draw=0).total.backward()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = pair.texts.count
    return {
        "seconds": min(seconds),
        "step_mb": (peak - before) / 1024,
        "texts": count.texts,
        "tokens": count.tokens,
        "padding": count.padding_share,
    }


def prepared(options: argparse.Namespace) -> tuple[AlignedPair, AlignmentBatch]:
    """The pair with fresh LoRA and one training batch; the same for each way."""
    config = AlignmentConfig()  # the paper's lengths
    data = JointData(Tables.load(options.data), split={"time": [0.8, 0.9]})
    lm = load_causal_lm(options.llm)
    torch.manual_seed(0)
    lm = replace(lm, model=add_lora(lm.model))
    sr = SRModel(SRConfig(encoder_size=lm.hidden_size))
    pair = AlignedPair(lm, sr, short_text_tokens=config.short_text_tokens).train()
    instances = AlignmentInstances(data)
    instructions = Instructions(
        lm.tokenizer,
        PromptFamily.load("en"),
        context=lm.context,
        max_tokens=config.instruction_tokens,
        max_target_tokens=config.target_tokens,
    )
    collate = AlignmentCollator(instances, instructions, max_history=options.history, padding_side="left")
    return pair, collate(instances.order(0)[: options.batch], 0)


def occurrences(batch: AlignmentBatch) -> AlignmentBatch:
    """The same batch with every occurrence of a text as a text of its own."""
    texts: list[str] = []
    moved: dict[str, Tensor] = {}
    for kind in KINDS:
        index = getattr(batch, kind)
        places = index.flatten().nonzero().squeeze(1)
        new = torch.zeros_like(index).flatten()
        new[places] = torch.arange(len(texts) + 1, len(texts) + 1 + len(places))
        texts += [batch.texts[row - 1] for row in index.flatten()[places].tolist()]
        moved[kind] = new.view_as(index)
    return replace(batch, texts=texts, **moved)


def _by_kind(pair: AlignedPair, batch: AlignmentBatch) -> Callable[[list[str]], Tensor]:
    """Reads the texts of each kind in one pass, padded to its longest; a text of two kinds belongs to the first."""
    owner = np.full(len(batch.texts), -1)
    for number, kind in reversed(list(enumerate(KINDS))):
        index = getattr(batch, kind).flatten()
        owner[index[index > 0].numpy() - 1] = number
    passes = [np.flatnonzero(owner == number) for number in range(len(KINDS))]
    passes = [rows for rows in passes if len(rows)]

    def read(texts: list[str]) -> Tensor:
        return pair.texts.states(pair.texts.tokenize(texts), batches=passes)

    return read


if __name__ == "__main__":
    main()
