"""`evaluate`: one pass of a model over a phase, every protocol and slice ranked from it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from recbole_lsvcr.data.candidates import candidate_set, check_protocol
from recbole_lsvcr.data.comment_candidates import CommentIndex, pad_lists
from recbole_lsvcr.data.instances import InstanceBatch, Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol, parse_protocols
from recbole_lsvcr.data.splits import PHASES
from recbole_lsvcr.errors import ConfigError, EvaluationError
from recbole_lsvcr.evaluation.lists import CandidateScorer, FullScorer, Pass, ProtocolRun, scorer_name
from recbole_lsvcr.evaluation.result import EvaluationResult, ProtocolLists
from recbole_lsvcr.evaluation.slices import instance_slices

_LIST_CELLS = 1 << 18  # (instance, comment) pairs scored at a time in full rankings of comments


@torch.no_grad()
def evaluate(
    scorer: Any,
    data: JointData,
    kind: Kind,
    phase: int,
    protocols: Sequence[str | Protocol],
    *,
    candidates_dir: Path | None = None,
    batch_size: int = 512,
    topk: Sequence[int] = (5, 10),
    seed: int = 0,
    slices: bool = True,
    top_items: int = 0,
    progress: bool = True,
) -> EvaluationResult:
    """Rank every instance of a phase under every protocol, scoring it once.

    The result depends on the scores, the data, the protocols and `seed` only, not on `batch_size`: candidates are drawn
    once and stored, and ties are broken by generators of their own, read in the order of the instances.

    Args:
        scorer: has `score_full(batch) -> [B, n_items]` (videos) or `score_candidates(batch, items [B, C]) -> [B, C]`.
        data: the joint data. kind: "video" or "comment". phase: 0 train, 1 valid, 2 test.
        protocols: strings or `Protocol`s; for comments `available+uniform` and `available+full`.
        candidates_dir: where candidate sets are kept; None: drawn anew (to the same result).
        batch_size: instances scored at a time. topk: cuts of Recall, NDCG and MRR.
        seed: of the candidate sets and of the ties. slices: also report parts of the instances.
        top_items: keep the ids of so many best candidates of each list (0: none).
        progress: show a bar (on a terminal).

    Raises:
        ConfigError: a protocol or kind that does not exist, or that the scorer cannot serve.
        EvaluationError: a NaN or infinite score, scores of the wrong shape, or no instance in the phase.
    """
    chosen = parse_protocols(protocols)
    for protocol in chosen:
        check_protocol(kind, protocol)
    rows = data.rows(kind, phase)
    if not len(rows):
        raise EvaluationError(
            f"there is no {kind} instance in the {PHASES[phase]} phase of data set '{data.tables.name}' under split "
            f"{data.split}; move the boundaries of the split"
        )
    started = time.perf_counter()
    runs = [_prepare(data, kind, phase, rows, protocol, seed, candidates_dir, top_items) for protocol in chosen]
    scoring = Pass(scorer, data, kind, rows, runs)
    records = np.zeros(len(rows), np.int64)
    with tqdm(total=len(rows), desc=f"rank {PHASES[phase]}", disable=None if progress else True, leave=False) as bar:
        for positions, batch in _batches(scoring, batch_size):
            records[positions] = batch.record_len
            bar.update(len(positions))
    return EvaluationResult(
        data=data,
        kind=kind,
        phase=phase,
        model=scorer_name(scorer),
        seed=seed,
        topk=tuple(topk),
        rows=rows,
        lists={str(run.protocol): _collect(run, len(rows)) for run in runs},
        slices=instance_slices(data, kind, rows, records) if slices else {"all": np.ones(len(rows), bool)},
        seconds=time.perf_counter() - started,
    )


def _prepare(
    data: JointData,
    kind: Kind,
    phase: int,
    rows: np.ndarray,
    protocol: Protocol,
    seed: int,
    folder: Path | None,
    top: int,
) -> ProtocolRun:
    digest = hashlib.sha256(f"ties|{seed}|{kind}|{phase}|{protocol}".encode()).digest()
    run = ProtocolRun(protocol, np.random.default_rng(np.frombuffer(digest, dtype=np.uint32)), top=top)
    if not protocol.is_full:
        run.chosen = candidate_set(data, kind, phase, protocol, seed=seed, folder=folder)
        run.row_of = np.full(len(rows), -1)
        run.row_of[np.searchsorted(rows, run.chosen.rows)] = np.arange(len(run.chosen.rows))
    return run


def _batches(scoring: Pass, batch_size: int) -> Iterator[tuple[np.ndarray, InstanceBatch]]:
    """Score and rank batch after batch; yields the positions and batches done."""
    scorer, data, n = scoring.scorer, scoring.data, len(scoring.rows)
    if scoring.kind == "comment" and scoring.full:
        yield from _comment_batches(scoring, batch_size)
        return
    by_candidates = scoring.kind == "comment" or not isinstance(scorer, FullScorer)
    if by_candidates and not isinstance(scorer, CandidateScorer):
        needed = "score_candidates" if scoring.kind == "comment" else "score_full or score_candidates"
        raise ConfigError(f"model '{scoring.name}' has no {needed}, which ranking {scoring.kind}s needs")
    if by_candidates and scoring.full:
        raise ConfigError(
            f"model '{scoring.name}' scores given candidates only (it has no score_full), so it cannot be ranked by "
            f"{[str(run.protocol) for run in scoring.full]}; ask for sampled protocols"
        )
    # A scorer that can do both is asked for candidates where nothing is ranked in full.
    by_candidates = by_candidates or (not scoring.full and isinstance(scorer, CandidateScorer))
    for first in range(0, n, batch_size):
        positions = np.arange(first, min(first + batch_size, n))
        batch = data.gather(scoring.kind, scoring.rows[positions], training=False)
        (scoring.candidates if by_candidates else scoring.videos_full)(positions, batch)
        yield positions, batch


def _comment_batches(scoring: Pass, batch_size: int) -> Iterator[tuple[np.ndarray, InstanceBatch]]:
    """Whole lists of comments, instances with lists of similar length together, so that padding stays small."""
    if not isinstance(scoring.scorer, CandidateScorer):
        raise ConfigError(f"model '{scoring.name}' has no score_candidates, which ranking comments needs")
    index = CommentIndex(scoring.data)
    sizes = index.sizes(scoring.rows)
    order = np.argsort(sizes, kind="stable")
    first = 0
    while first < len(order):
        # The longest list of the batch is its last one.
        cells = sizes[order[first : first + batch_size]] * np.arange(1, len(order[first : first + batch_size]) + 1)
        count = max(int(np.searchsorted(cells, _LIST_CELLS, side="right")), 1)
        positions = order[first : first + count]
        rows = scoring.rows[positions]
        items, positive = pad_lists(index.lists(rows), len(rows))
        batch = scoring.data.gather("comment", rows, training=False)
        scoring.whole_lists(positions, batch, items, positive)
        yield positions, batch
        first += count


def _collect(run: ProtocolRun, n_instances: int) -> ProtocolLists:
    positions, ranks, best = run.collect()
    alone = ranks.lengths <= ranks.positives  # nothing to rank against: counted and left out
    kept = ~alone
    enough = None
    if run.chosen is not None:
        enough = int(run.chosen.enough.sum())
    return ProtocolLists(
        protocol=run.protocol,
        positions=positions[kept],
        ranks=ranks.at(kept),
        left_out=n_instances - int(kept.sum()),
        enough=enough,
        hash=run.chosen.hash if run.chosen is not None else None,
        top_items=None if best is None else best[kept],
    )
