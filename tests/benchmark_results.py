"""A results.json as `aggregate` writes it, rich in everything that a report must bear: failed and partial arms, numbers
that are not there, names that would be HTML, Markdown or LaTeX."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

METRICS = ["recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@5", "mrr@10", "mrr"]
PROTOCOLS = {
    "video": ["available+period", "all+uniform", "available+uniform", "all+full", "available+full"],
    "comment": ["available+uniform", "available+full"],
}
SLICES = {
    "video": {
        "all": 1.0,
        "seen_items": 0.8,
        "unseen_items": 0.2,
        "unseen_users": 0.06,
        "no_records": 0.3,
        "history_1-4": 0.1,
        "history_5-9": 0.2,
        "history_10-19": 0.3,
        "history_20-49": 0.3,
        "history_50+": 0.1,
        "popularity_1-9": 0.1,
        "popularity_10-99": 0.5,
        "popularity_100-999": 0.2,
    },
    "comment": {
        "all": 1.0,
        "seen_items": 0.9,
        "unseen_items": 0.1,
        "unseen_users": 0.0,
        "no_records": 0.2,
        "candidates_2-9": 0.4,
        "candidates_10-49": 0.6,
    },
}
HOSTILE = "</script><script>alert('x')</script> & <b>{50%} _of_ #1 $x$ ~ ^ \\ | `c`"
NAMES = {
    "video": (
        *(
            "Popularity",
            "Newest",
            "TextSim",
            "GRU4Rec",
            "SASRec",
            "BERT4Rec",
            "Caser",
            "<b>NARM</b>",
            "S3Rec",
            "SASRecText",
        ),
        *("UniSRec", "DMT", "MBHT", HOSTILE),
    ),
    "comment": (
        *("CommentPop", "CommentNewest", "CommentTextSim", "CommentDSSM", "CommentGRU", "CommentATT", "CommentMHA"),
        *("CommentZAM", "CommentTEM", "DeepFM"),
    ),
}
RULES = ("Popularity", "Newest", "TextSim", "CommentPop", "CommentNewest", "CommentTextSim")
INSTANCES = {"video": 5753, "comment": 1506}


def results(*, portrait: dict[str, Any] | None = None, tasks: tuple[str, ...] = ("video", "comment")) -> dict[str, Any]:
    """A study of both tasks in which much went wrong; the same on every call."""
    rng = random.Random(5)
    return {
        "format": 1,
        "dataset": "sample <i>&",
        "synthetic": True,
        "split": "time [0.8, 0.9]",
        "history": 20,
        "seeds": [1, 2, 3],
        "selection": "NDCG@5 on validation, available+period",
        "command": ["python", "run_lsvcr.py", "--config", "my study.yaml", "--benchmark", "--ablation"],
        "environment": {"python": "3.11.7", "processor_cores": 2, "packages": {"torch": "2.13.0+cpu", "x": None}},
        "tune": {"budget": 8, "space": {"learning_rate": [0.0003, 0.01], "hidden_dropout_prob": [0.0, 0.5]}},
        "shared": {"MAX_ITEM_LIST_LENGTH": 20, "hidden_size": 64, "epochs": 100, "eval_args": {"split": "x"}},
        "tasks": {name: _task(name, rng) for name in tasks},
        "portrait": portrait,
    }


def one_arm() -> dict[str, Any]:
    """The least there can be: one arm, one seed, nothing compared, nothing tuned."""
    rng = random.Random(1)
    task = {
        "protocols": ["all+full"],
        "metrics": ["ndcg@10"],
        "primary": {"protocol": "all+full", "metric": "ndcg@10"},
        "ranked": {},
        "slices": ["all"],
        "arms": [arm("video", "LSVCR", "ours", 0.2, rng, seeds=[1], protocols=["all+full"], metrics=["ndcg@10"])],
        "comparisons": [],
        "notes": [],
    }
    task["arms"][0] |= {"trials": [], "chosen": {}, "curves": [], "alignment": None, "cost": {}}
    return {**results(tasks=()), "synthetic": False, "tasks": {"video": task}, "tune": None, "shared": {}}


def _task(task: str, rng: random.Random) -> dict[str, Any]:
    arms = []
    for place, name in enumerate(NAMES[task]):
        role = "rule" if name in RULES else "baseline"
        arms.append(arm(task, name, role, 0.16 + 0.006 * place, rng, seeds=[1] if role == "rule" else [1, 2, 3]))
    arms[3] |= {"status": "failed", "reason": f"RuntimeError: out of memory <script>alert(1)</script> {HOSTILE}"}
    arms[3] |= {"seeds": [], "quality": {}, "cost": dict.fromkeys(arms[3]["cost"]), "curves": [], "chosen": {}}
    arms[4] |= {"status": "partial", "reason": "seed 3: ValueError: a loss that is not finite", "seeds": [1, 2]}
    arms[5] |= {"status": "missing", "reason": None, "quality": {}, "curves": [], "seeds": [], "trials": []}
    for protocol in PROTOCOLS[task][1:]:  # an arm that was not ranked under every protocol
        del arms[6]["quality"][protocol]
    ours = "LSVCR" if task == "video" else "LSVCRComment"
    full = arm(task, ours, "ours", 0.262, rng, steps=500)
    arms.append(full)
    arms += _ablation(task, ours, rng)
    if task == "video":
        arms += [
            arm(task, f"{steps:,} steps", "ours", 0.24 + 0.01 * place, rng, group="alignment-steps", steps=steps)
            for place, steps in enumerate([0, 100, 250, 500, 1000])
        ]
        arms += [
            arm(task, name, role, 0.2 + 0.02 * place, rng, group="cold")
            for place, (name, role) in enumerate(
                [("UniSRec", "baseline"), ("LSVCR", "ours"), ("LSVCR without ids", "ours")]
            )
        ]
    return {
        "protocols": PROTOCOLS[task],
        "metrics": METRICS,
        "primary": {"protocol": PROTOCOLS[task][0], "metric": "ndcg@10"},
        "ranked": {name: _ranked(task, name) for name in PROTOCOLS[task]},
        "slices": list(SLICES[task]),
        "arms": arms,
        "comparisons": _comparisons(task, arms, full, rng),
        "notes": [
            f"{NAMES[task][3]}: 0 of 3 cells are finished (seeds 1, 2, 3: RuntimeError: out of memory)",
            f"{NAMES[task][4]}: 2 of 3 cells are finished (seed 3: ValueError: a loss that is not finite)",
            f"{NAMES[task][5]}: 0 of 3 cells are finished (seeds 1, 2, 3: not computed)",
            "w/o comment diversification (ablation): 0 of 3 cells are finished (its process ended with status -9)",
            f"{NAMES[task][6]} was not ranked under {PROTOCOLS[task][1]}: not compared",
            "the candidates of <b>all+uniform</b> differ",
        ],
    }


def _ablation(task: str, ours: str, rng: random.Random) -> list[dict[str, Any]]:
    found = [arm(task, ours, "ours", 0.262, rng, group="ablation", steps=500)]
    found += [
        arm(task, f"w/o {part}", "ours", 0.25 - 0.004 * place, rng, group="ablation", steps=500)
        for place, part in enumerate(["SSC", "VCC", "L_SR", "L_LM", "REG", "comment diversification"])
    ]
    found[-1] |= {"status": "failed", "reason": "its process ended with status -9", "quality": {}, "seeds": []}
    found.append(arm(task, "w/o alignment", "ours", 0.23, rng, group="ablation"))
    return found


def arm(
    task: str,
    name: str,
    role: str,
    level: float,
    rng: random.Random,
    *,
    group: str = "main",
    seeds: list[int] | None = None,
    steps: int | None = None,
    protocols: list[str] | None = None,
    metrics: list[str] | None = None,
) -> dict[str, Any]:
    """An arm that went well, near `level` in NDCG@10."""
    seeds = [1, 2, 3] if seeds is None else seeds
    learns = role != "rule"
    trials = [
        {
            "parameters": {"learning_rate": 10 ** rng.uniform(-4, -2), "hidden_dropout_prob": rng.uniform(0, 0.5)},
            "seed": 1,
            "valid_score": None if place == 5 else level + rng.gauss(0, 0.01),
            "status": "failed" if place == 5 else "done",
            "reason": "ValueError: NaN" if place == 5 else None,
        }
        for place in range(8 if learns and group == "main" else 0)
    ]
    return {
        "name": name,
        "model": name.split(",")[0] if group != "ablation" else "LSVCR",
        "setting": group,
        "group": group,
        "role": role,
        "status": "done",
        "reason": None,
        "chosen": {"learning_rate": 0.001, "hidden_dropout_prob": 0.2, "nested": [1, 2]} if trials else {},
        "trials": trials,
        "seeds": seeds,
        "quality": {
            protocol: {
                part: _quality(task, protocol, part, share, level, seeds, metrics or METRICS, rng)
                for part, share in SLICES[task].items()
            }
            for protocol in protocols or PROTOCOLS[task]
        },
        "cost": {
            "parameters": rng.randrange(100_000, 3_000_000) if learns else 0,
            "seconds_per_epoch": rng.uniform(5, 100) if learns else 0.0,
            "seconds_to_best": rng.uniform(50, 3000) if learns else 0.0,
            "pretraining_seconds": 512.3 if name == "S3Rec" else None,
            "alignment_seconds": 831.6 if steps else None,
            "peak_memory_mb": rng.uniform(600, 3000),
            "ranked_per_second": rng.uniform(300, 9000) if name != "DMT" else None,
        },
        "curves": [_curve(seed, level, rng) for seed in seeds] if learns and group != "cold" else [],
        "alignment": _alignment(steps, rng) if steps else None,
    }


def _quality(
    task: str, protocol: str, part: str, share: float, level: float, seeds: list[int], metrics: list[str], rng: Any
) -> dict[str, Any]:
    instances = round(INSTANCES[task] * share)
    found: dict[str, Any] = {"instances": instances, "users": min(instances, 1123)}
    hard = {"all+full": 0.1, "available+full": 0.15}.get(protocol, 1.0) * (0.6 if part == "unseen_items" else 1.0)
    for place, metric in enumerate(metrics):
        if not instances:
            found[metric] = {"mean": None, "std": None, "values": {str(seed): None for seed in seeds}}
            continue
        values = {str(seed): max(0.0, level * hard * (0.8 + place / 10) + rng.gauss(0, 0.004)) for seed in seeds}
        found[metric] = spread(values)
    return found


def spread(values: dict[str, float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, as in results.json."""
    mean = sum(values.values()) / len(values)
    squares = sum((value - mean) ** 2 for value in values.values())
    std = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
    return {"mean": mean, "std": std, "values": values}


def _curve(seed: int, level: float, rng: random.Random) -> dict[str, Any]:
    epochs = rng.randrange(6, 30)
    valid = [level * (1 - math.exp(-(epoch + 1) / 4)) + rng.gauss(0, 0.003) for epoch in range(epochs)]
    scores: list[float | None] = [None if epochs == 9 and epoch == 2 else score for epoch, score in enumerate(valid)]
    return {
        "seed": seed,
        "epochs": list(range(epochs)),
        "loss": [5 * math.exp(-epoch / 10) + 1 for epoch in range(epochs)],
        "valid": scores,
        "best_epoch": max(range(epochs), key=lambda epoch: scores[epoch] or 0),
    }


def _alignment(steps: int, rng: random.Random) -> dict[str, Any]:
    log = []
    for step in range(10, steps + 1, 10):
        lm, sr = 8 * math.exp(-step / 300) + 2, 3.8 - step / 2000 + rng.gauss(0, 0.02)
        log.append(
            {
                "step": step,
                "epoch": step / 100,
                "learning_rate": 1e-4,
                "loss": lm + sr,
                "lm": lm,
                "sr": sr,
                "ssc": 3.5 * math.exp(-step / 500),
                "vcc": 0.7 * math.exp(-step / 60),
                "retrieval": min(1.0, step / 900),
            }
        )
    log.append({"step": steps, "train_runtime": 830.0, "train_loss": 7.1})
    held_out = {
        "lm": 4.8,
        "sr": 3.8,
        "ssc": 3.2,
        "vcc": 0.002,
        "retrieval": 0.16,
        "cosine_own": 0.74,
        "perplexity": 118.2,
    }
    return {"held_out": held_out, "steps": steps, "log": log}


def _ranked(task: str, protocol: str) -> dict[str, Any]:
    sampled = not protocol.endswith("full")
    length = 27.02 if protocol.endswith("period") else 100.0 if sampled else 2246.0
    return {
        "instances": INSTANCES[task],
        "users": 1123,
        "mean_length": length,
        "left_out": 39 if task == "comment" else 0,
        "enough": INSTANCES[task] - 3 if sampled else None,
        "candidates_hash": "d2e86dd7d723ba8f" * 4 if sampled else None,
        "chance": {metric: min(1.0, 4.0 / length) for metric in METRICS},
    }


def _comparisons(
    task: str, arms: list[dict[str, Any]], ours: dict[str, Any], rng: random.Random
) -> list[dict[str, Any]]:
    main = [one for one in arms if one["group"] == "main" and one is not ours and one["quality"]]
    parts = [one for one in arms if one["group"] == "ablation" and one["quality"]]
    pairs = [("main", ours, other) for other in main] + [("ablation", part, parts[0]) for part in parts[1:]]
    rows = []
    for protocol in PROTOCOLS[task]:
        for metric in ("ndcg@10", "recall@10", "mrr@10"):
            ranked = [one for one in main if protocol in one["quality"]]
            best = max(ranked, key=lambda one: one["quality"][protocol]["all"][metric]["mean"])
            for part in ("all", "seen_items", "unseen_items", "unseen_users", "no_records"):
                for group, one, other in pairs:
                    if protocol in other["quality"] and one["quality"][protocol][part]["instances"]:
                        row = _comparison(one, other, protocol, metric, part, rng)
                        rows.append({"group": group, **row, "best": other is best})
    return rows


def _comparison(
    one: dict[str, Any], other: dict[str, Any], protocol: str, metric: str, part: str, rng: random.Random
) -> dict[str, Any]:
    own, base = (some["quality"][protocol][part] for some in (one, other))
    mean = own[metric]["mean"] - base[metric]["mean"]
    width = 0.7 / math.sqrt(own["instances"])
    p = min(1.0, math.exp(-abs(mean) / width * 2))
    return {
        "protocol": protocol,
        "metric": metric,
        "slice": part,
        "arm": one["name"],
        "baseline": other["name"],
        "mean": mean,
        "low": mean - width * rng.uniform(0.8, 1.2),
        "high": mean + width * rng.uniform(0.8, 1.2),
        "relative": mean / base[metric]["mean"] if base[metric]["mean"] else None,
        "p": p,
        "p_holm": min(1.0, p * 12),
        "instances": own["instances"],
        "users": own["users"],
        "seeds": {"arm": len(one["seeds"]), "baseline": len(other["seeds"])},
    }


def portrait() -> dict[str, Any]:
    """The portrait of a generated data set, as results.json has it."""
    from tempfile import TemporaryDirectory

    from dataset_tools.__main__ import main
    from dataset_tools.sample import generate

    with TemporaryDirectory() as folder:
        generate(Path(folder) / "tiny", users=60, videos=50, comments=300)
        assert main(["describe", str(Path(folder) / "tiny"), "--json", str(Path(folder) / "x.json")]) == 0
        return dict(json.loads((Path(folder) / "x.json").read_text(encoding="utf-8")))
