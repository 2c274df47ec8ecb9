"""One ranked list per instance: protocols, ranks, metrics, slices, and the bridge to RecBole's evaluator."""

from recbole_lsvcr.data.protocols import Protocol, parse_protocols
from recbole_lsvcr.evaluation.evaluate import evaluate
from recbole_lsvcr.evaluation.result import EvaluationResult

__all__ = ["EvaluationResult", "Protocol", "evaluate", "parse_protocols"]
