"""`evaluate`: one pass of a model over a phase, every protocol and slice ranked from it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

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

Way = Literal["videos", "candidates", "lists"]
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
    longest: int = 0,
    top_items: int = 0,
    progress: bool = True,
) -> EvaluationResult:
    """Rank every instance of a phase under every protocol, scoring it once.

    The result depends on the scores, the data, the protocols and `seed` only, not on `batch_size`: candidates are drawn
    once and stored, and ties are broken by random numbers of their own, one for each positive.

    Args:
        scorer: has `score_full(batch) -> [B, n_items]` (videos) or `score_candidates(batch, items [B, C]) -> [B, C]`.
        data: the joint data. kind: "video" or "comment". phase: 0 train, 1 valid, 2 test.
        protocols: strings or `Protocol`s; for comments `available+uniform` and `available+full`.
        candidates_dir: where candidate sets are kept; None: drawn anew (to the same result).
        batch_size: instances scored at a time. topk: cuts of Recall, NDCG and MRR.
        seed: of the candidate sets and of the ties. slices: also report parts of the instances.
        longest: comment lists with more comments are left out of full rankings (and counted); 0: none is.
        top_items: keep the ids of so many best candidates of each list (0: none).
        progress: show a bar (on a terminal).

    Raises:
        ConfigError: a protocol or kind that does not exist, or that the scorer cannot serve.
        EvaluationError: a NaN or infinite score, scores of the wrong shape, or no instance in the phase.
    """
    chosen = parse_protocols(protocols)
    for protocol in chosen:
        check_protocol(kind, protocol)
    way = _way(scorer, kind, chosen)
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
    limited = longest and way == "lists"
    lengths = data.comment_timeline.lengths(rows) if kind == "comment" and (slices or limited) else None
    too_long = np.zeros(len(rows), bool) if lengths is None or not limited else lengths > longest
    with tqdm(total=len(rows), desc=f"rank {PHASES[phase]}", disable=None if progress else True, leave=False) as bar:
        for positions, batch in _batches(scoring, way, batch_size, too_long):
            records[positions] = batch.record_len
            bar.update(len(positions))
    lists = {str(run.protocol): _collect(run, len(rows), too_long) for run in runs}
    if not any(len(found.positions) for found in lists.values()):
        raise EvaluationError(
            f"none of the {len(rows):,} {kind} instances of the {PHASES[phase]} phase of data set '{data.tables.name}' "
            f"has anything to be ranked against under {', '.join(lists)}; move the boundaries of the split, or choose "
            "another protocol"
        )
    return EvaluationResult(
        data=data,
        kind=kind,
        phase=phase,
        model=scorer_name(scorer),
        seed=seed,
        topk=tuple(topk),
        rows=rows,
        lists=lists,
        slices=instance_slices(data, kind, rows, records, lengths) if slices else {"all": np.ones(len(rows), bool)},
        seconds=time.perf_counter() - started,
    )


def _way(scorer: Any, kind: Kind, protocols: Sequence[Protocol]) -> Way:
    """How the lists are scored: every video, the sampled candidates, or all comments of the watched video."""
    full = [str(protocol) for protocol in protocols if protocol.is_full]
    name = scorer_name(scorer)
    if kind == "comment":
        if not isinstance(scorer, CandidateScorer):
            raise ConfigError(f"model '{name}' has no score_candidates, which ranking comments needs")
        return "lists" if full else "candidates"
    if isinstance(scorer, CandidateScorer) and not full:
        return "candidates"  # the cheaper way, where a scorer has both
    if isinstance(scorer, FullScorer):
        return "videos"
    if not isinstance(scorer, CandidateScorer):
        raise ConfigError(
            f"model '{name}' has neither score_full nor score_candidates, one of which ranking videos needs"
        )
    raise ConfigError(
        f"model '{name}' scores given candidates only (it has no score_full), so it cannot be ranked by {full}; "
        "ask for sampled protocols"
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
    rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    positives = np.ones(len(rows), np.int64)
    if kind == "comment":
        record = data.comments.record[rows]
        positives = data.records.offsets[record + 1] - data.records.offsets[record]
    offsets = np.concatenate([[0], np.cumsum(positives)])
    run = ProtocolRun(protocol, rng.random(offsets[-1]), offsets, top=top)
    if not protocol.is_full:
        run.chosen = candidate_set(data, kind, phase, protocol, seed=seed, folder=folder)
        run.row_of = np.full(len(rows), -1)
        run.row_of[np.searchsorted(rows, run.chosen.rows)] = np.arange(len(run.chosen.rows))
    return run


def _batches(
    scoring: Pass, way: Way, batch_size: int, too_long: np.ndarray
) -> Iterator[tuple[np.ndarray, InstanceBatch]]:
    """Score and rank batch after batch; yields the positions and batches done."""
    rest = np.arange(len(scoring.rows))
    if way == "lists":
        yield from _comment_batches(scoring, batch_size, np.flatnonzero(~too_long))
        rest = np.flatnonzero(too_long)
    score = scoring.videos_full if way == "videos" else scoring.candidates
    for first in range(0, len(rest), batch_size):
        positions = rest[first : first + batch_size]
        batch = scoring.data.gather(scoring.kind, scoring.rows[positions], training=False)
        score(positions, batch)
        yield positions, batch


def _comment_batches(scoring: Pass, batch_size: int, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, InstanceBatch]]:
    """Whole lists of the instances at the positions `chosen`, lists of similar length together: padding stays small."""
    index = CommentIndex(scoring.data)
    sizes = index.sizes(scoring.rows)
    order = chosen[np.argsort(sizes[chosen], kind="stable")]
    first = 0
    while first < len(order):
        positions = order[first : first + batch_size]
        cells = sizes[positions] * np.arange(1, len(positions) + 1)  # the longest list of a batch is its last
        positions = positions[: max(int(np.searchsorted(cells, _LIST_CELLS, side="right")), 1)]
        rows = scoring.rows[positions]
        items, positive = pad_lists(index.lists(rows), len(rows))
        batch = scoring.data.gather("comment", rows, training=False)
        scoring.whole_lists(positions, batch, items, positive)
        yield positions, batch
        first += len(positions)


def _collect(run: ProtocolRun, n_instances: int, too_long: np.ndarray) -> ProtocolLists:
    positions, ranks, best = run.collect()
    kept = ranks.lengths > ranks.positives  # others have nothing to be ranked against: counted and left out
    long = int(too_long.sum()) if run.chosen is None else 0
    return ProtocolLists(
        protocol=run.protocol,
        positions=positions[kept],
        ranks=ranks.at(kept),
        left_out=n_instances - int(kept.sum()) - long,
        too_long=long,
        enough=None if run.chosen is None else int(run.chosen.enough.sum()),
        hash=None if run.chosen is None else run.chosen.hash,
        top_items=None if best is None else best[kept],
    )
