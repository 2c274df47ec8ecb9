"""A RecBole program as RecBole's own examples are written; `import recbole_lsvcr` is all that LSVCR asks for.

    python examples/recbole_program.py
    python examples/recbole_program.py --epochs=1 --text_encoder=hashing        # as small as it gets
    python examples/recbole_program.py --model=SASRec --dataset=ml-100k         # RecBole's own models as ever

RecBole reads the arguments itself: any parameter as --name=value, above the values below. The generated data set
`lsvcr-sample` is made in `dataset/` on first use, the text vectors in `saved/`. Some minutes on two cores; after
RecBole's log it prints

    best valid: {'recall@5': 0.1253…, 'recall@10': 0.1972…, 'ndcg@5': 0.0834…, 'ndcg@10': 0.1064…, …}
    test:       {'recall@5': 0.1236…, 'recall@10': 0.1940…, 'ndcg@5': 0.0773…, 'ndcg@10': 0.1000…, …}
"""

from __future__ import annotations

import sys
from logging import getLogger

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed

import recbole_lsvcr  # noqa: F401 - registers LSVCR and mends RecBole on current PyTorch

BUDGET = {
    "model": "LSVCR",
    "dataset": "lsvcr-sample",
    "epochs": 3,
    "MAX_ITEM_LIST_LENGTH": 10,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    "show_progress": False,
}


def main() -> None:
    """Train and evaluate."""
    config = Config(config_dict=BUDGET)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)

    dataset = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)

    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train_data.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    _, best_valid = trainer.fit(train_data, valid_data, show_progress=config["show_progress"])
    test = trainer.evaluate(test_data)
    sys.stdout.write(f"best valid: {dict(best_valid)}\ntest:       {dict(test)}\n")


if __name__ == "__main__":
    main()
