"""What the vectors of a finished alignment know of the next video: linear probes, all trained and judged alike.

    python benchmarks/alignment_probe.py plan.yaml --work runs/my-plan --settings full untrained --output probe.json

For each kind of vector of a video instance a ridge regression learns, on training instances, the MiniLM vector of the
next video's title (centred); its strength is chosen on a part of the training instances kept apart. Validation
instances are then ranked by the cosine of the prediction to the candidates' titles, under the plan's protocol:

- `mean text`: mean of the language model's vectors of the history's titles (Eq. 1), by the adapted model;
- `last text`: the vector of the newest title alone;
- `instruction`: the hidden state of the last instruction token;
- `s~`: contrast_adapter of it (Eq. 11); `s`: what the SR model makes of both histories (Eq. 8), before fine-tuning;
- `MiniLM mean`, `MiniLM last`: the same two of the frozen MiniLM vectors, without any language model trained here.

Then the balance of the losses: the norm of each weighted loss's gradient in each part of the pair, on one batch.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seen_unseen import Lists
from sklearn.linear_model import Ridge

from dataset_tools.files import write_json
from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.stage import aligned_pair, collator
from recbole_lsvcr.benchmark.cells import Cell, read_plan
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data.candidates import candidate_set
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.data.splits import TRAIN, VALID
from recbole_lsvcr.data.texts import load_vectors
from recbole_lsvcr.environment import machine
from recbole_lsvcr.pipeline import Run

STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
KEPT_APART = 0.2
PARTS = {"LoRA": "llm.", "text_mlp": "sr.text_mlp.", "SR model": "sr.", "contrast_adapter": "contrast_adapter."}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--settings", nargs="+", required=True, help="settings of aligned LSVCR cells that are finished"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--text-store", default="runs/stores/youtube-5core-plain", help="MiniLM vectors of the data set"
    )
    parser.add_argument("--protocol", default="available+period")
    parser.add_argument("--training", type=int, default=6000, help="training instances")
    parser.add_argument("--held-out", type=int, default=2000, help="validation instances")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    norms: dict[str, dict[str, dict[str, float]]] = {}
    print(
        "| setting | vectors | size | all | seen, own kind | chance | unseen, own kind | chance |\n|---"
        + "|---" * 7
        + "|"
    )
    for cell in read_plan(options.plan):
        if cell.setting in options.settings and cell.seed == options.seed and cell.model == "LSVCR":
            run = _run(cell, options)
            norms[cell.setting] = balance(run)
            for name, row in probes(run, options):
                rows[f"{cell.setting}: {name}"] = row
                shown = [f"{row['size']:.0f}", *(f"{value:.3f}" for key, value in row.items() if key != "size")]
                print("| " + " | ".join([cell.setting, name, *shown]) + " |", flush=True)
    print("\n| setting | loss | " + " | ".join(PARTS) + " |\n|---|---" + "|---" * len(PARTS) + "|")
    for setting, losses in norms.items():
        for name, found in losses.items():
            print(f"| {setting} | {name} | " + " | ".join(f"{found[part]:.3f}" for part in PARTS) + " |")
    if options.output:
        arguments = {key: value for key, value in vars(options).items() if isinstance(value, int | str)}
        kept = {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()}
        write_json(options.output, {**arguments, "rows": kept, "gradient_norms": norms, "environment": machine()})


def _run(cell: Cell, options: argparse.Namespace) -> Run:
    settings: dict[str, Any] = {**cell.parameters, "model": cell.model, "seed": cell.seed}
    return Run(load_config(None, {**settings, "output": str(options.work / cell.name)}))


def balance(run: Run) -> dict[str, dict[str, float]]:
    """loss -> part of the pair -> norm of the weighted loss's gradient, without dropout, on the first 32 instances."""
    pair, lm = aligned_pair(run.alignment)
    collate = collator(run.alignment, lm)
    batch = collate(collate.instances.order(0)[:32], 0)
    objective, found = pair.objective, {}
    for name, weight in objective.weights.items():
        alone = {"lm": 0.0, "sr": 0.0, "contrast": 0.0, "ssc": name == "ssc", "vcc": name == "vcc"}
        alone |= {name if name in ("lm", "sr") else "contrast": weight}
        pair.objective = replace(objective, **alone)
        pair.zero_grad()
        pair(batch).total.backward()
        found[name] = {part: _norm(pair, prefix) for part, prefix in PARTS.items()}
    pair.objective = objective
    return found


def _norm(pair: AlignedPair, prefix: str) -> float:
    grads = [w.grad for n, w in pair.named_parameters() if n.startswith(prefix) and w.grad is not None]
    return float(torch.stack([grad.norm() for grad in grads]).norm()) if grads else 0.0


def probes(run: Run, options: argparse.Namespace) -> list[tuple[str, dict[str, float]]]:
    """The figures of every kind of vector of a cell's alignment."""
    data = run.dataset.joint
    pair, lm = aligned_pair(run.alignment)
    found = {}
    for phase, count in ((TRAIN, options.training), (VALID, options.held_out)):
        collate = collator(run.alignment, lm, phase=phase)
        order = collate.instances.order(0)
        found[phase] = vectors(pair, collate, order[collate.instances.is_video[order]][:count])
    minilm = load_vectors({**run.config.final_config_dict, "text_store": options.text_store}, data).titles.numpy()
    minilm = minilm / np.maximum(np.linalg.norm(minilm, axis=1, keepdims=True), 1e-12)
    titles = minilm - minilm[data.train_item_count > 0].mean(0)
    for part in found.values():
        part["MiniLM mean"] = np.stack([minilm[items].mean(0) for items in part["history"]])
        part["MiniLM last"] = np.stack([minilm[items[-1]] for items in part["history"]])
    chosen = candidate_set(
        data, "video", VALID, Protocol.parse(options.protocol), seed=run.config["candidate_seed"], folder=None
    )
    place = {int(row): at for at, row in enumerate(chosen.rows)}
    listed = np.array([row in place for row in found[VALID]["row"]])
    lists = np.array([place[row] for row in found[VALID]["row"][listed]])
    parts = {name: getattr(chosen, name)[lists] for name in ("rows", "items", "positive", "enough")}
    few = replace(chosen, **parts)
    results = []
    for name in ("mean text", "last text", "instruction", "s~", "s", "MiniLM mean", "MiniLM last"):
        train, held = found[TRAIN][name], found[VALID][name][listed]
        predicted = ridge(train, titles[found[TRAIN]["item"]], held)
        scores = np.einsum("id,icd->ic", predicted, titles[few.items])
        scores /= np.maximum(np.linalg.norm(titles[few.items], axis=2), 1e-12)
        row = Lists(few, scores, data.train_item_count == 0, data.tables.item_time).figures(scores)
        kept = ("all", "seen, own kind", "chance, seen", "unseen, own kind", "chance, unseen")
        results.append((name, {"size": float(train.shape[1]), **{key: row[key] for key in kept}}))
    return results


def ridge(train: np.ndarray, target: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Predictions for `held` [I, D] of a ridge regression on standardised `train` [T, D]."""
    mean, scale = train.mean(0), train.std(0) + 1e-8
    train, held = (train - mean) / scale, (held - mean) / scale
    cut = int(len(train) * (1 - KEPT_APART))

    def similarity(strength: float) -> float:
        guess = Ridge(alpha=strength).fit(train[:cut], target[:cut]).predict(train[cut:])
        sizes = np.linalg.norm(guess, axis=1) * np.linalg.norm(target[cut:], axis=1)
        return float(((guess * target[cut:]).sum(1) / np.maximum(sizes, 1e-12)).mean())

    return np.asarray(Ridge(alpha=max(STRENGTHS, key=similarity)).fit(train, target).predict(held))


@torch.no_grad()
def vectors(pair: AlignedPair, collate: AlignmentCollator, rows: np.ndarray) -> dict[str, Any]:
    """Every kind of vector of video instances [I], their next videos, histories and rows in the joint data."""
    found: dict[str, list[Any]] = {name: [] for name in ("mean text", "last text", "instruction", "s~", "s", "item")}
    history: list[np.ndarray] = []
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        batch = collate(part, 0)
        inputs = collate.instances.inputs(part, batch.video_titles.shape[1])
        texts = pair.read_texts(batch.texts)
        instruction, _ = pair.instruct(batch)
        own = _preference(pair, batch, texts)
        table = torch.cat([texts.new_zeros(1, texts.shape[1]), texts])[batch.video_titles]  # [B, n, H]
        inside = torch.arange(table.shape[1]) < batch.video_len[:, None]
        found["mean text"].append((table * inside[..., None]).sum(1) / batch.video_len[:, None].clamp(min=1))
        found["last text"].append(table[torch.arange(len(table)), (batch.video_len - 1).clamp(min=0)])
        found["instruction"].append(instruction)
        found["s~"].append(pair.contrast_adapter(instruction))
        found["s"].append(own)
        found["item"].append(torch.from_numpy(inputs.item))
        history += [items[:length] for items, length in zip(inputs.video_items, inputs.video_len, strict=True)]
    joined: dict[str, Any] = {name: torch.cat(parts).float().numpy() for name, parts in found.items()}
    joined["item"] = joined["item"].astype(np.int64)
    joined["row"] = collate.instances.data_rows[rows]
    return {**joined, "history": history}


def _preference(pair: AlignedPair, batch: AlignmentBatch, texts: torch.Tensor) -> torch.Tensor:
    """s [B, d] of video instances."""
    empty = texts.new_zeros(1, pair.sr.config.hidden_size)
    own, _ = pair.prefer(batch, torch.cat([empty, pair.sr.embed_text(texts)]))
    return own


if __name__ == "__main__":
    main()
