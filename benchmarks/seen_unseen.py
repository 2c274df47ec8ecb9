"""What a trained model's ranking of videos that training never saw is made of.

    python benchmarks/seen_unseen.py docs/results/youtube-video/plan.yaml --work runs/youtube-video \
        --setting time --output docs/results/youtube-video-seen-unseen/time.json

For the finished cells of a plan (`benchmark.cells`), or of a benchmark (its output folder in the plan's place, without
--work), on the lists of one sampled protocol of the test phase:

- `unseen above seen`: over the pairs of an unseen and a seen candidate of a list, how often the unseen one is scored
  higher, mean of the lists (0.5: no order between the two kinds); `all unseen first`, `all seen first`: the share of
  lists (with both kinds) in which every candidate of one kind is scored above every one of the other;
- `own kind`: NDCG@10 of the target among the candidates of its own kind only, beside the chance of those shorter lists;
- `newer above older`: over pairs of candidates of one kind, how often the one uploaded later is scored higher, mean
  of the lists;
- `shuffled`: NDCG@10 on unseen targets after the scores of each list's unseen candidates were dealt anew among them at
  random: what is lost is what the model knew about single unseen videos, what stays is the order between the two kinds.

Three rules without any model stand beside them: a random order, unseen first and seen first (random within a kind).
Models that learn are shown at their best epoch (by validation, as reported everywhere) and at their last one, and at
their best one as the mean of the seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_tools.files import write_json
from recbole_lsvcr.benchmark.cell import Cell, best_epoch, finished
from recbole_lsvcr.benchmark.cells import read_plan
from recbole_lsvcr.benchmark.tables import repeated
from recbole_lsvcr.checkpoint import load_checkpoint
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data.candidates import CandidateSet, candidate_set
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.environment import machine
from recbole_lsvcr.pipeline import Run
from recbole_lsvcr.scorer import scorer_of
from recbole_lsvcr.yaml_files import read_yaml

ROUNDS = 20  # random deals that `unseen, shuffled` is the mean of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a plan, or a benchmark's output folder")
    parser.add_argument("--work", type=Path, help="the working folder of a plan's cells, with their checkpoints")
    parser.add_argument("--setting", nargs="+", help="default: all")
    parser.add_argument("--models", nargs="+", help="default: all")
    parser.add_argument("--protocol", default="available+period")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.plan.is_dir():
        options.work = options.work or options.plan / "work"
    elif options.work is None:
        parser.error("a plan's cells need --work")
    planned = _cells(options.plan)
    if several := repeated([vars(cell) for cell in planned]):
        parser.error(f"{options.plan} holds several cells of {several[0]}; keep those that belong together")
    options.setting = options.setting or list(dict.fromkeys(cell.setting for cell in planned))
    cells = [cell for cell in planned if cell.setting in options.setting]
    wanted = [cell for cell in cells if not options.models or cell.model in options.models]
    done = [cell for cell in wanted if (options.work / cell.name / cell.model / "metrics.json").exists()]
    if not done:
        have = ", ".join(sorted({cell.setting for cell in planned}))
        parser.error(
            f"{options.work} holds no finished cell of setting {', '.join(options.setting)}; {options.plan} has {have}"
        )
    rows: dict[str, dict[str, float]] = {}
    for cell in done:
        for name, lists in scored_lists(cell, options.work, Protocol.parse(options.protocol)):
            if not rows:
                print(f"{len(lists.items):,} lists, {lists.valid.sum(1).mean():.1f} candidates on average")
                for rule, order in lists.rules().items():
                    rows[rule] = lists.figures(order)
                print("\n".join([_line("", rows["(random)"]), "|---" * (len(rows["(random)"]) + 1) + "|"]))
                for rule, row in rows.items():
                    print(_line(rule, {key: f"{value:.3f}" for key, value in row.items()}))
            rows[name] = lists.figures(lists.scores)
            print(_line(name, {key: f"{value:.3f}" for key, value in rows[name].items()}), flush=True)
    for name, row in means(rows).items():
        print(_line(name, {key: f"{value:.3f}" for key, value in row.items()}))
        rows[name] = row
    if options.output:
        kept = {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()}
        content = {"setting": options.setting, "protocol": options.protocol, "rows": kept, "environment": machine()}
        write_json(options.output, content)


def _cells(source: Path) -> list[Cell]:
    """The cells of a plan, or of a benchmark."""
    if not source.is_dir():
        return read_plan(source)
    found = [finished(file) for file in sorted(source.glob("cells/*.json")) if not file.name.endswith(".trial.json")]
    known = [{key: one.get(key) for key in ("data", "arm")} | one for one in found if one]
    names = ("model", "setting", "seed", "parameters")
    return [Cell(*(one[name] for name in names), data=one["data"], arm=one["arm"]) for one in known]


def means(rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The mean over seeds of each model's rows at the best epoch; of models with several only."""
    by_model: dict[str, list[Mapping[str, float]]] = {}
    for name, row in rows.items():
        model, _, rest = name.partition(", seed ")
        if "last epoch" not in rest:
            by_model.setdefault(model, []).append(row)
    return {
        f"{model}, mean of {len(found)} seeds": {key: sum(row[key] for row in found) / len(found) for key in found[0]}
        for model, found in by_model.items()
        if len(found) > 1
    }


def _line(name: str, row: Mapping[str, Any]) -> str:
    """A line of a Markdown table: the values, or (without a name) their headings."""
    return "| " + " | ".join([name, *map(str, row.values() if name else row)]) + " |"


def scored_lists(cell: Cell, work: Path, protocol: Protocol) -> Iterator[tuple[str, Lists]]:
    """The test lists of a finished cell, scored by its best checkpoint and, where another, by its last one."""
    settings: dict[str, Any] = {**cell.parameters, "model": cell.model, "seed": cell.seed}
    described = read_yaml(work / cell.name / cell.model / "config.yaml")
    places = {
        "output": str(work / cell.name),
        "data_path": str(Path(described["data_path"]).parent),  # of the data set's folder
        "text_store": described["text_store"],  # which cells may share
    }
    run = Run(load_config(None, {**settings, **places}))
    data = run.dataset.joint
    _, _, loader = run.loaders
    trainer = run.trainer()
    trainer.load_best(run.model_folder / "best.pth")
    seed = run.config["candidate_seed"]
    chosen = candidate_set(data, "video", loader.phase, protocol, seed=seed, folder=run.folder / "candidates")
    epochs = json.loads((run.model_folder / "history.json").read_text(encoding="utf-8"))["epochs"]
    best = best_epoch(epochs)

    def lists() -> Lists:
        scores = _score(scorer_of(trainer.model.eval(), run.dataset, run.config["device"]), data, chosen)
        return Lists(chosen, scores, data.train_item_count == 0, data.tables.item_time)

    name = f"{cell.arm or cell.model}, seed {cell.seed}"
    yield name + (f", best epoch {best}" if epochs else ""), lists()
    if epochs and best != epochs[-1]["epoch"]:
        trainer.model.load_state_dict(load_checkpoint(run.model_folder / "last.pth")["state_dict"])
        yield f"{name}, last epoch {epochs[-1]['epoch']}", lists()


@torch.no_grad()
def _score(scorer: Any, data: JointData, chosen: CandidateSet) -> np.ndarray:
    """Scores float64[I, C] of every candidate."""
    scores = np.zeros(chosen.items.shape)
    for first in range(0, len(chosen.rows), 512):
        part = slice(first, first + 512)
        batch = data.gather("video", chosen.rows[part], training=False)
        items = torch.from_numpy(chosen.items[part].astype(np.int64))
        if hasattr(scorer, "score_candidates"):
            found = scorer.score_candidates(batch, items)
        else:
            table = scorer.score_full(batch)
            found = table.gather(1, items.to(table.device))
        scores[part] = found.double().cpu().numpy()
    return scores


class Lists:
    """The candidate lists of a phase with a model's scores: arrays [I, C], column by column a candidate."""

    def __init__(self, chosen: CandidateSet, scores: np.ndarray, unseen: np.ndarray, time: np.ndarray) -> None:
        """`scores` [I, C]; `unseen` bool[n_items] and `time` [n_items] by video."""
        self.items, self.target = chosen.items, chosen.target_column[:, None]
        self.valid = self.items > 0
        self.scores = scores
        self.unseen = unseen[self.items] & self.valid
        self.time = time[self.items]
        self.unseen_target = np.take_along_axis(self.unseen, self.target, 1)[:, 0]

    def rules(self) -> dict[str, np.ndarray]:
        """Orders that need no model."""
        order = np.random.default_rng(0).random(self.items.shape)
        return {"(random)": order, "(unseen first)": order + self.unseen, "(seen first)": order - self.unseen}

    def figures(self, scores: np.ndarray) -> dict[str, float]:
        """Every figure of an order of the candidates."""
        unseen = self.unseen_target
        same = self.valid & (self.unseen == unseen[:, None])
        ndcg, own = self._ndcg(scores, self.valid), self._ndcg(scores, same)
        first, last = self._wholly_first(scores)
        chance = self._chance(same.sum(1))
        shuffled = [self._ndcg(self._dealt(scores, np.random.default_rng(n)), self.valid) for n in range(ROUNDS)]
        return {
            "all": ndcg.mean(),
            "seen": ndcg[~unseen].mean(),
            "unseen": ndcg[unseen].mean(),
            "unseen above seen": self._pairs(scores, self.unseen, self.valid & ~self.unseen),
            "all unseen first": first,
            "all seen first": last,
            "seen, own kind": own[~unseen].mean(),
            "chance, seen": chance[~unseen].mean(),
            "unseen, own kind": own[unseen].mean(),
            "chance, unseen": chance[unseen].mean(),
            "newer, seen": self._newer(scores, self.valid & ~self.unseen),
            "newer, unseen": self._newer(scores, self.unseen),
            "unseen, shuffled": float(np.mean([values[unseen].mean() for values in shuffled])),
        }

    def _ndcg(self, scores: np.ndarray, among: np.ndarray) -> np.ndarray:
        """NDCG@10 [I] of the target among the candidates of a mask; half of the tied ones count as better."""
        own = np.take_along_axis(scores, self.target, 1)
        above = (among & (scores > own)).sum(1)
        tied = (among & (scores == own)).sum(1) - 1
        rank = above + 1 + tied // 2
        return np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0)

    @staticmethod
    def _chance(lengths: np.ndarray) -> np.ndarray:
        """Expected NDCG@10 [I] of a random order of lists of these lengths."""
        gains = np.cumsum(1 / np.log2(np.arange(2, 12)))
        return gains[np.minimum(lengths, 10) - 1] / lengths

    def _pairs(
        self, scores: np.ndarray, first: np.ndarray, second: np.ndarray, *, first_is_newer: bool = False
    ) -> float:
        """How often the first of a pair (one of each mask) is scored higher, mean of the lists that have a pair."""
        higher, total = np.zeros(len(scores)), np.zeros(len(scores))
        for column in range(scores.shape[1]):
            mask = first[:, column, None] & second
            if first_is_newer:
                mask &= self.time[:, column, None] > self.time
            difference = scores[:, column, None] - scores
            higher += ((difference > 0) & mask).sum(1) + ((difference == 0) & mask).sum(1) / 2
            total += mask.sum(1)
        return float((higher[total > 0] / total[total > 0]).mean())

    def _newer(self, scores: np.ndarray, kind: np.ndarray) -> float:
        return self._pairs(scores, kind, kind, first_is_newer=True)

    def _wholly_first(self, scores: np.ndarray) -> tuple[float, float]:
        """The share of lists with both kinds that have all unseen candidates, all seen ones, above all others."""
        seen = self.valid & ~self.unseen
        both = self.unseen.any(1) & seen.any(1)

        def highest(kind: np.ndarray) -> np.ndarray:
            return np.where(kind, scores, -np.inf).max(1)[both]

        def lowest(kind: np.ndarray) -> np.ndarray:
            return np.where(kind, scores, np.inf).min(1)[both]

        unseen_first = lowest(self.unseen) > highest(seen)
        return float(unseen_first.mean()), float((lowest(seen) > highest(self.unseen)).mean())

    def _dealt(self, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The scores of each list's unseen candidates dealt anew among them."""
        dealt = scores.copy()
        keys = np.where(self.unseen, rng.random(scores.shape), 2.0)
        order, places = np.argsort(keys, 1), np.argsort(~self.unseen, 1, kind="stable")
        taken = np.take_along_axis(scores, order, 1)
        count = self.unseen.sum(1)[:, None]
        keep = np.arange(scores.shape[1]) < count
        rows = np.broadcast_to(np.arange(len(scores))[:, None], scores.shape)[keep]
        dealt[rows, places[keep]] = taken[keep]
        return dealt


if __name__ == "__main__":
    main()
