"""Whether a model is worth here what it is worth in stock RecBole: the same weights, and the same training.

    python benchmarks/stock_check.py --dataset youtube-5core --output benchmarks/results/stock_check.json

Stock means RecBole's own data set, loaders, `Trainer` and evaluator (leave one out, `full`), its id of every video; the
plugin is imported because RecBole's checkpoints do not load on PyTorch >= 2.6 without it. Ours means `JointDataset`,
`LSVCRTrainer` and the evaluation of instances under `all+full`, with the same split. Two questions:

  * the same weights: stock trains, its checkpoint is scored by both (`item_embedding` in another order, as the ids
    differ). An instance is a user, a target and a history; of those that both have, ranks and metrics must be equal.
  * the same training: both train with the same settings and seeds; the metrics may differ by what seeds make of them.

Every model and seed is kept in --work when it is done, so the same command continues after a stop. RecBole rounds
metrics to 4 places, here to 15. Its times are float32 (128 s at today's dates), ours exact: where events of a user are
closer than that, RecBole keeps the order of the file, which is that of time in files that `dataset_tools` writes. Where
they are equal, RecBole has the earlier line in the history, ours only what was strictly before: such instances are
counted (`other_history`, `only_stock`) and left out of the comparison. Among equal scores ours is at a random place,
here counted for RecBole's at the first: `tied` lists may differ in rank.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from scipy.stats import ttest_ind

import recbole_lsvcr.plugin
from dataset_tools.files import write_json
from recbole_lsvcr import pipeline
from recbole_lsvcr.checkpoint import load_checkpoint
from recbole_lsvcr.environment import machine
from recbole_lsvcr.evaluation import Protocol
from recbole_lsvcr.evaluation.metrics import instance_metrics

PROTOCOL = "all+full"
PHASES = ("valid", "test")
KEY = ("user", "item")  # leaving one out, an instance of a phase has no other name
METRICS = tuple(f"{name}@{cut}" for name in ("recall", "ndcg", "mrr") for cut in (5, 10))
TOLERANCE = 1e-6


def settings(args: argparse.Namespace, model: str, seed: int) -> dict[str, Any]:
    """What both sides are told, in full: neither has a default that decides the outcome."""
    return {
        "model": model,
        "dataset": args.dataset,
        "data_path": str(args.data_path),
        "seed": seed,
        "reproducibility": True,
        "gpu_id": "",
        "show_progress": False,
        "state": "WARNING",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
        "MAX_ITEM_LIST_LENGTH": args.length,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "learner": "adam",
        "learning_rate": args.learning_rate,
        "weight_decay": 0.0,
        "train_batch_size": args.batch,
        "eval_batch_size": args.batch,
        "epochs": args.epochs,
        "eval_step": 1,
        "stopping_step": args.epochs,
        "metrics": ["Recall", "NDCG", "MRR"],
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 15,
    }


class Stock:
    """A model trained by stock RecBole, and what stock RecBole says of it."""

    def __init__(self, given: Mapping[str, Any], folder: Path) -> None:
        with recbole_lsvcr.plugin.hidden_argv():
            self.config = Config(config_dict={**given, "checkpoint_dir": str(folder)})
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.dataset = create_dataset(self.config)
        train, valid, test = data_preparation(self.config, self.dataset)
        self.loaders = {"valid": valid, "test": test}
        init_seed(self.config["seed"], self.config["reproducibility"])
        model = get_model(given["model"])(self.config, train._dataset).to(self.config["device"])
        self.trainer = get_trainer(self.config["MODEL_TYPE"], given["model"])(self.config, model)
        kinds = [type(part).__module__.partition(".")[0] for part in (self.dataset, train, test, self.trainer)]
        assert set(kinds) == {"recbole"}, kinds
        self.instances = {"train": len(train._dataset), "valid": len(valid._dataset), "test": len(test._dataset)}
        self.trainer.fit(train, valid, verbose=False)
        self.checkpoint = Path(self.trainer.saved_model_file)
        self.metrics = {phase: dict(self.trainer.evaluate(loader)) for phase, loader in self.loaders.items()}

    @torch.no_grad()
    def ranks(self, phase: str) -> pl.DataFrame:
        """user, item (tokens), history (tokens, oldest first) and rank of every instance; `tied`: others score alike.

        The scores are those that RecBole's trainer hands to its evaluator.
        """
        config, tokens = self.config, self.dataset.field2id_token
        users, items = tokens[config["USER_ID_FIELD"]], tokens[config["ITEM_ID_FIELD"]]
        self.trainer.model.eval()
        parts = []
        for batch in self.loaders[phase]:
            interaction, scores, row, positive = self.trainer._full_sort_batch_eval(batch)
            own = scores[row, positive][:, None]
            sequences = interaction[config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]].numpy()
            lengths = interaction[config["ITEM_LIST_LENGTH_FIELD"]].numpy()
            parts.append(
                _frame(
                    users[interaction[config["USER_ID_FIELD"]].numpy()],
                    items[positive.numpy()],
                    [items[ids[:length]] for ids, length in zip(sequences, lengths, strict=True)],
                    ((scores > own).sum(1) + 1).numpy(),
                ).with_columns(pl.Series("tied", ((scores == own).sum(1) > 1).numpy()))
            )
        return pl.concat(parts)


class Ours:
    """The pipeline's data, evaluator and trainer for the same settings."""

    def __init__(self, given: Mapping[str, Any], folder: Path) -> None:
        changes = {"output": str(folder), "protocols": [PROTOCOL], "valid_protocol": PROTOCOL, "data_cache": False}
        self.config = pipeline.load_config(None, {**given, **changes})
        self.run = pipeline.Run(self.config)
        self.loaders = dict(zip(PHASES, self.run.loaders[1:], strict=True))
        self.instances = {"train": len(self.run.loaders[0].dataset)}
        self.instances |= {phase: len(loader.dataset) for phase, loader in self.loaders.items()}

    def take(self, stock: Stock) -> None:
        """A trainer with the weights of stock's checkpoint.

        Raises:
            ValueError: the two catalogues are not of the same videos.
        """
        field = stock.config["ITEM_ID_FIELD"]
        mine, theirs = self.run.dataset.field2id_token[field], stock.dataset.field2token_id[field]
        if set(mine) != set(theirs):
            raise ValueError(f"{len(mine) - 1:,} videos here, {len(theirs) - 1:,} in stock RecBole: not the same ones")
        place = torch.tensor([theirs[token] for token in mine])
        weights = load_checkpoint(stock.checkpoint)["state_dict"]
        weights["item_embedding.weight"] = weights["item_embedding.weight"][place]
        self.trainer = self.run.trainer()
        self.trainer.model.load_state_dict(weights)

    def train(self) -> None:
        """Fine-tune, or take up a fine-tuning that was stopped, and load its best epoch."""
        self.run.finetune()
        self.trainer = self.run.trainer()
        self.trainer.load_best(self.trainer.saved_model_file)

    def rank(self, phase: str) -> tuple[dict[str, float], pl.DataFrame]:
        """RecBole's metrics of the instances' lists, and the instances as `Stock.ranks` has them."""
        result = self.trainer.rank(self.loaders[phase], [Protocol.parse(PROTOCOL)], slices=False)
        found, joint = result.instances, self.run.dataset.joint
        items = joint.tables.items.to_numpy()
        batch = joint.gather("video", found["row"].to_numpy(), training=False)
        histories = [items[ids[:length]] for ids, length in zip(batch.video_items, batch.video_len, strict=True)]
        ranks = _frame(found["user"].to_numpy(), found["item"].to_numpy(), histories, found["rank"].to_numpy())
        return dict(result.recbole_metrics(self.config)), ranks


def _frame(users: np.ndarray, items: np.ndarray, histories: Sequence[np.ndarray], ranks: np.ndarray) -> pl.DataFrame:
    schema = {"user": pl.String, "item": pl.String, "history": pl.List(pl.String), "rank": pl.Int64}
    lists = [history.tolist() for history in histories]
    return pl.DataFrame([users.tolist(), items.tolist(), lists, ranks.tolist()], schema=schema)


def compared(stock: pl.DataFrame, ours: pl.DataFrame) -> dict[str, Any]:
    """Which instances both have, and whether ranks and metrics of those with the same history are equal.

    Raises:
        ValueError: no instance is on both sides.
    """
    both = stock.join(ours, on=KEY, how="inner", suffix="_ours")
    same = both.filter(pl.col("history") == pl.col("history_ours"))
    if not len(same):
        raise ValueError("no instance with the same history on both sides: nothing can be compared")
    ranks = [same[column].to_numpy() for column in ("rank", "rank_ours")]
    found = [_means(column) for column in ranks]
    return {
        "only_stock": len(stock) - len(both),
        "only_ours": len(ours) - len(both),
        "other_history": len(both) - len(same),
        "common": len(same),
        "other_rank": int((ranks[0] != ranks[1]).sum()),
        "other_rank_untied": int((ranks[0] != ranks[1])[~same["tied"].to_numpy()].sum()),
        "largest_rank_difference": int(np.abs(ranks[0] - ranks[1]).max(initial=0)),
        "tied": int(same["tied"].sum()),
        "largest_metric_difference": max(abs(found[0][name] - found[1][name]) for name in METRICS),
    }


def _means(ranks: np.ndarray) -> dict[str, float]:
    values = instance_metrics(ranks[:, None], np.ones(len(ranks), np.int64), (5, 10))
    return {name: float(values[name].mean()) for name in METRICS}


def largest_difference(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The largest difference between the metrics of two evaluations."""
    return max(abs(float(one[name]) - float(other[name])) for name in METRICS)


def same_weights(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train with stock RecBole and score its checkpoint with both."""
    started = time.perf_counter()
    stock = Stock(given, folder / "stock")
    seconds = time.perf_counter() - started
    ours = Ours(given, folder / "scored")
    ours.take(stock)
    phases = {}
    for phase in PHASES:
        metrics, ranks = ours.rank(phase)
        phases[phase] = {
            "stock": {name: float(stock.metrics[phase][name]) for name in METRICS},
            "ours": {name: float(metrics[name]) for name in METRICS},
            "largest_difference": largest_difference(stock.metrics[phase], metrics),
            "instances": compared(stock.ranks(phase), ranks),
        }
    counts = {"stock": stock.instances, "ours": ours.instances}
    return {"phases": phases, "instances": counts, "seconds": round(seconds, 1)}


def same_training(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train with ours; the metrics of its best epoch."""
    started = time.perf_counter()
    ours = Ours(given, folder / "trained")
    ours.train()
    phases = {phase: {name: float(value) for name, value in ours.rank(phase)[0].items()} for phase in PHASES}
    return {"phases": phases, "instances": ours.instances, "seconds": round(time.perf_counter() - started, 1)}


def spread(stock: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Two samples of seeds: means, standard deviations, their difference, and Welch's p of it (None: no variance)."""
    means = [float(np.mean(side)) for side in (stock, ours)]
    found: dict[str, Any] = {"stock": means[0], "ours": means[1], "difference": means[1] - means[0]}
    if len(stock) > 1 and len(ours) > 1:
        deviations = [float(np.std(side, ddof=1)) for side in (stock, ours)]
        p = float(ttest_ind(stock, ours, equal_var=False).pvalue) if any(deviations) else None
        found |= {"stock_std": deviations[0], "ours_std": deviations[1], "p_welch": p}
        found["ranges_overlap"] = max(min(stock), min(ours)) <= min(max(stock), max(ours))
    return {**found, "stock_values": list(stock), "ours_values": list(ours)}


def summary(parts: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """The parts (model -> seed -> `same_weights`, `same_training`) as figures."""
    models = {}
    for model, seeds in parts.items():
        checked = [found["same_weights"]["phases"][phase] for found in seeds.values() for phase in PHASES]
        models[model] = {
            "same_weights": {
                "largest_difference": max(phase["largest_difference"] for phase in checked),
                "largest_difference_common": max(phase["instances"]["largest_metric_difference"] for phase in checked),
                "equal_within_1e-6": all(
                    phase["instances"]["largest_metric_difference"] <= TOLERANCE for phase in checked
                ),
                "instances": sum(phase["instances"]["common"] for phase in checked),
                **{
                    name: sum(phase["instances"][name] for phase in checked)
                    for name in ("only_stock", "only_ours", "other_history", "other_rank", "other_rank_untied", "tied")
                },
            },
            "same_training": {
                phase: {
                    name: spread(
                        [found["same_weights"]["phases"][phase]["stock"][name] for found in seeds.values()],
                        [found["same_training"]["phases"][phase][name] for found in seeds.values()],
                    )
                    for name in METRICS
                }
                for phase in PHASES
            },
        }
    return models


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing and write the figures; 1 when the same weights do not rank alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="youtube-5core", help="a folder below --data-path, or lsvcr-sample")
    parser.add_argument("--data-path", type=Path, default=Path("dataset"))
    parser.add_argument("--models", nargs="+", default=["SASRec", "GRU4Rec"], help="with item_embedding as their table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--length", type=int, default=20, help="videos of a history")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--work", type=Path, default=Path("runs/stock-check"), help="checkpoints and finished parts")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/stock_check.json"))
    args = parser.parse_args(arguments)
    args.work = args.work / f"{args.dataset}-{args.length}-{args.epochs}-{args.batch}-{args.learning_rate:g}"
    parts: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in args.seeds:
        for model in args.models:
            given, folder = settings(args, model, seed), args.work / f"{model}.{seed}"
            found = parts.setdefault(model, {}).setdefault(seed, {})
            for name, compute in (("same_weights", same_weights), ("same_training", same_training)):
                file = folder / f"{name}.json"
                if not file.exists():
                    write_json(file, compute(given, folder))
                found[name] = json.loads(file.read_text(encoding="utf-8"))
                print(f"{model} seed {seed} {name}: done in {found[name]['seconds']} s", flush=True)
    models = summary(parts)
    told = {key: value for key, value in settings(args, "", 0).items() if key not in ("model", "seed", "data_path")}
    report = {"dataset": args.dataset, "synthetic": args.dataset == "lsvcr-sample", "seeds": args.seeds}
    report |= {"settings": told, "models": models, "parts": parts, "environment": machine()}
    write_json(args.output, report)
    for model, found in models.items():
        same, trained = found["same_weights"], found["same_training"]["test"]["ndcg@10"]
        print(
            f"{model}: same weights: metrics differ by {same['largest_difference']:.1e} at most, ranks of "
            f"{same['other_rank']} of {same['instances']:,} instances; same training: NDCG@10 on test "
            f"{trained['stock']:.4f} in stock, {trained['ours']:.4f} here (p {trained.get('p_welch')})"
        )
    return 0 if all(found["same_weights"]["equal_within_1e-6"] for found in models.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
