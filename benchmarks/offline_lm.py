"""Which offline language model serves better per minute: a new one, one that reads histories too, or adapted MiniLM.

    python benchmarks/offline_lm.py --data dataset/my-data --work runs/lm --minutes 1 6 --output offline_lm.json

Each is trained for so many minutes (a model that is there from the same settings is used again), then measured:

- `bits per byte` of texts that no model read: comparable between tokenizers;
- `next title`: nats per title of the next video, on validation instances, read as alignment's instructions;
- `step`: seconds of forward and backward of one alignment batch of 32, preset cpu-small; `texts`: encoded a second.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_tools.files import write_json
from recbole_lsvcr.alignment.collate import IGNORED
from recbole_lsvcr.alignment.config import load_alignment_config
from recbole_lsvcr.alignment.corpus import held_out_texts, tokens, training_texts
from recbole_lsvcr.alignment.corpus_lm import CorpusLMConfig, train_corpus_lm
from recbole_lsvcr.alignment.load import LoadedLM, load_causal_lm
from recbole_lsvcr.alignment.perplexity import perplexity
from recbole_lsvcr.alignment.stage import AlignmentJob, collator, new_pair
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import VALID
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.model.sr import SRConfig

WAYS: dict[str, dict[str, Any]] = {"new": {}, "new, histories": {"histories": 0.7}, "MiniLM": {"adapt": "minilm"}}
INSTANCES, BATCH = 128, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--work", type=Path, required=True, help="folder of the models")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    data = JointData(Tables.load(options.data), split={"time": [0.8, 0.9]}, max_videos=20, max_records=20)
    rows = []
    print(
        "| model | minutes | parameters | training tokens/s | bits per byte | nats per next title | step s | texts/s |"
    )
    print("|---" * 8 + "|")
    for minutes in options.minutes:
        for way in options.ways:
            folder = options.work / f"{way.replace(', ', '-').lower()}-{minutes:g}"
            report = train_corpus_lm(data, folder, CorpusLMConfig(minutes=minutes, **WAYS[way]))
            row = {"model": way, "minutes": minutes, **measured(data, folder, report)}
            rows.append(row)
            print(
                "| "
                + " | ".join(
                    f"{v:,.3g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v for v in row.values()
                )
                + " |",
                flush=True,
            )
    if options.output:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "accelerator": "none"}
        write_json(options.output, {"data": options.data.name, "rows": rows, "environment": machine})


def measured(data: JointData, folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The figures of one model."""
    lm = load_causal_lm(folder)
    settings = {"preset": "cpu-small", "llm": str(folder), "max_history": 20, "batch_size": BATCH, "lora_dropout": 0.0}
    job = AlignmentJob(data, load_alignment_config(settings), SRConfig(), folder / "unused", device="cpu")
    _, held_out = held_out_texts(training_texts(data), np.random.default_rng(report["settings"]["seed"]))
    block = report["settings"]["block"]
    read = sum(len(row[:block]) - 1 for row in tokens(lm.tokenizer, held_out.to_list()))
    size = sum(len(text.encode()) for text in held_out)
    nats = math.log(perplexity(lm.model, lm.tokenizer, held_out, block)) * read
    title = next_title(lm, job)
    texts, started = data.tables.contents[1:2001].to_list(), time.perf_counter()
    encoder = LanguageModelEncoder(lm.model.base_model, lm.tokenizer, name="", fingerprint="", max_tokens=64)
    encoder.encode(texts)
    encoded = time.perf_counter() - started
    return {
        "parameters": report["parameters"],
        "tokens_per_second": report["tokens_per_second"],
        "bits_per_byte": nats / math.log(2) / size,
        "next_title_nats": title,
        "step_seconds": step_seconds(lm, job),
        "texts_per_second": round(len(texts) / encoded),
    }


@torch.no_grad()
def next_title(lm: LoadedLM, job: AlignmentJob) -> float:
    """Nats per title of the next video on validation instances."""
    collate = collator(job, lm, phase=VALID)
    order = collate.instances.order(5)
    rows = order[collate.instances.is_video[order]][:INSTANCES]
    total = 0.0
    for start in range(0, len(rows), BATCH):
        batch = collate(rows[start : start + BATCH], 0)
        places = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=places).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(),
                batch.labels[:, 1:].flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
        )
    return total / len(rows)


def step_seconds(lm: LoadedLM, job: AlignmentJob) -> float:
    """Forward and backward of one batch, the faster of two."""
    collate = collator(job, lm)
    pair = new_pair(job, lm).train()
    batch = collate(collate.instances.order(0)[:BATCH], 0)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        pair(batch).total.backward()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
