"""What a model knows of the instances it was trained on."""

from __future__ import annotations

from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.pipeline import Run
from recbole_lsvcr.scorer import RecBoleScorer


def quality_on_training(run: Run) -> float:
    """NDCG@10 of a run's training instances, each among all videos, after training."""
    run.encode()
    run.finetune()
    own = run.trainer()
    own.load_best(own.saved_model_file)
    own.model.eval()
    scorer = RecBoleScorer(own.model, run.loaders[0].dataset, own.device)
    found = evaluate(scorer, run.dataset.joint, "video", 0, ["all+full"], slices=False, progress=False)
    return found.metrics("all+full")["ndcg@10"]
