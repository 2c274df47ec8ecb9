"""LSVCR tuned by RecBole's own `HyperTuning` (hyperopt): every point of a grid, or so many trials by TPE.

    python examples/tune_lsvcr.py                                  # the grid of tune_lsvcr.hyper: 4 trials
    python examples/tune_lsvcr.py --algo bayes --max-evals 3
    python examples/tune_lsvcr.py --epochs=10 --text_encoder=minilm         # RecBole's parameters as --name=value

It needs hyperopt (`pip install 'recbole-lsvcr[tune]'`). What is tried stands in tune_lsvcr.hyper, in RecBole's form,
what stays the same in tune_lsvcr.yaml. RecBole prints every trial and each new best; the last lines are

    best of 4 trials: learning_rate:0.001, temperature:0.2
    valid ndcg@10 0.0590; test: {'recall@5': 0.0598…, 'recall@10': 0.1000…, 'ndcg@5': 0.0403…, …}
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recbole.quick_start import objective_function
from recbole.trainer import HyperTuning

import recbole_lsvcr  # noqa: F401 - registers LSVCR; its `objective_function` takes the place of RecBole's

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Search, and write every trial's metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=HERE / "tune_lsvcr.hyper", help="what is tried")
    parser.add_argument("--config", type=Path, default=HERE / "tune_lsvcr.yaml", help="what stays the same")
    parser.add_argument("--algo", choices=["exhaustive", "random", "bayes"], default="exhaustive")
    parser.add_argument("--max-evals", type=int, default=4, help="trials of random and bayes")
    parser.add_argument("--result", type=Path, default=Path("tune_lsvcr.result"), help="file of every trial's metrics")
    options, rest = parser.parse_known_args()
    sys.argv[1:] = rest  # RecBole's `Config` reads what is left in every trial
    search = HyperTuning(
        objective_function,
        params_file=str(options.params),
        fixed_config_file_list=[str(options.config)],
        algo=options.algo,
        max_evals=options.max_evals,
    )
    search.run()
    search.export_result(output_file=str(options.result))
    best = search.params2result[search.params2str(search.best_params)]
    sys.stdout.write(
        f"best of {len(search.score_list)} trials: {search.params2str(search.best_params)}\n"
        f"valid ndcg@10 {search.best_score:.4f}; test: {dict(best['test_result'])}\n"
    )


if __name__ == "__main__":
    main()
