"""Texts per second of encoding: length-bucketed batches, plain padded batches in file order, and one text at a time.

    python benchmarks/encoding.py --data dataset/youtube-5core --output encoding.json
    python benchmarks/encoding.py --texts comments.txt --encoder path/to/model --device cuda

All three encode the same sample with the same model, tokenisation included, and give the same vectors. They take turns,
so that other load on the machine hits all of them; a ratio is the median over turns of the ratio within one turn. The
second ratio is of processor time (all threads), which other load disturbs less; on a GPU it says nothing.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from dataset_tools.files import write_json
from dataset_tools.sample import generate
from dataset_tools.schema import read_atomic
from recbole_lsvcr.encoding import load_encoder
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder, TokenCount

OURS = "length-bucketed"


def strategies(encoder: LanguageModelEncoder, texts: list[str], plain: int) -> dict[str, Callable[[], np.ndarray]]:
    """Three ways to the vectors of `texts`."""

    def in_file_order(size: int) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), size):
            ids = encoder.tokenize(texts[start : start + size])
            with torch.inference_mode():
                parts.append(encoder.states(ids, batches=[np.arange(len(ids))]).float().cpu().numpy())
        return np.concatenate(parts)

    return {
        "one at a time": lambda: in_file_order(1),
        f"batches of {plain}": lambda: in_file_order(plain),
        OURS: lambda: encoder.encode(texts),
    }


def measure(encoder: LanguageModelEncoder, texts: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per strategy: texts per second (median), gain of ours over it, padding share, difference of vectors."""
    variants = strategies(encoder, texts, args.plain)
    encoder.encode(texts[:64])  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    processor: dict[str, list[float]] = {name: [] for name in variants}
    counts, vectors = {}, {}
    for turn in range(args.turns):
        names = list(variants)
        for name in names if turn % 2 == 0 else reversed(names):
            encoder.count = TokenCount()
            started, used = time.perf_counter(), time.process_time()
            vectors[name] = variants[name]()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
            counts[name] = encoder.count
    return [
        {
            "strategy": name,
            "texts_per_second": len(texts) / statistics.median(spent),
            "texts_per_processor_second": len(texts) / statistics.median(processor[name]),
            "gain_of_ours": _ratio(spent, seconds[OURS]),
            "gain_of_ours_processor": _ratio(processor[name], processor[OURS]),
            "tokens": counts[name].tokens,
            "padding_share": counts[name].padding_share,
            "largest_difference": float(np.abs(vectors[name] - vectors[OURS]).max()),
            "seconds": spent,
            "processor_seconds": processor[name],
        }
        for name, spent in seconds.items()
    ]


def _ratio(spent: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(spent, ours, strict=True))


def read_texts(args: argparse.Namespace) -> tuple[str, pl.Series]:
    """Name of the source, and its texts without empty ones."""
    if args.texts:
        lines = args.texts.read_text(encoding="utf-8").splitlines()
        return args.texts.name, pl.Series([line for line in lines if line.strip()], dtype=pl.Utf8)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data.absolute() if args.data else Path(scratch) / "lsvcr-sample"
        if not args.data:
            generate(folder)
        texts = read_atomic(folder / f"{folder.name}.comment", ["content"])["content"]
        return folder.name, texts.filter(texts != "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="data set folder, its comments (default: the synthetic sample)")
    source.add_argument("--texts", type=Path, help="text file, one text per line")
    parser.add_argument(
        "--encoder", default="minilm", help="minilm, or a Hugging Face folder or name (default: minilm)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-tokens", type=int, help="budget of our batches (default: the encoder's)")
    parser.add_argument("--plain", type=int, default=64, help="texts per plain batch (default: 64)")
    parser.add_argument("--sample", type=int, default=2000, help="texts that are encoded (default: 2000)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()

    name, texts = read_texts(args)
    encoder = load_encoder(args.encoder, device=args.device, batch_tokens=args.batch_tokens)
    if not isinstance(encoder, LanguageModelEncoder):
        parser.error("--encoder must be a language model")
    sample = texts.sample(min(args.sample, len(texts)), seed=0).to_list()
    sys.stdout.write(
        f"{name}: {len(texts):,} texts, {texts.n_unique():,} distinct; a sample of {len(sample):,}\n"
        f"{encoder.name} on {encoder.device}, {encoder.precision}, {torch.get_num_threads()} threads, "
        f"{encoder.batch_tokens} tokens per batch\n"
    )
    rows = measure(encoder, sample, args)
    sys.stdout.write(
        f"{'':<18} {'texts/s':>9} {'ours is':>9} {'/CPU s':>9} {'ours is':>9} {'tokens':>9} {'padding':>8}"
        f" {'differs by':>11}\n"
    )
    for row in rows:
        sys.stdout.write(
            f"{row['strategy']:<18} {row['texts_per_second']:>9,.1f} {row['gain_of_ours']:>8.2f}x"
            f" {row['texts_per_processor_second']:>9,.1f} {row['gain_of_ours_processor']:>8.2f}x {row['tokens']:>9,}"
            f" {row['padding_share']:>8.1%} {row['largest_difference']:>11.1e}\n"
        )
    if args.output:
        machine = {"processor": platform.processor(), "torch": torch.__version__, "threads": torch.get_num_threads()}
        facts = {"texts": len(texts), "distinct": texts.n_unique(), "sample": len(sample), **encoder.describe()}
        write_json(
            args.output, {"data": name, **facts, "batch_tokens": encoder.batch_tokens, "machine": machine, "rows": rows}
        )


if __name__ == "__main__":
    main()
