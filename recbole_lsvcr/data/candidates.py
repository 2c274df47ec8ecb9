"""Candidate sets: what each target is ranked against, drawn once, stored with a hash and read by every model."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset_tools.files import atomic_path
from recbole_lsvcr.data import negatives
from recbole_lsvcr.data.comment_candidates import CommentIndex
from recbole_lsvcr.data.instances import KINDS, Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.data.splits import PHASES
from recbole_lsvcr.errors import ConfigError

logger = logging.getLogger(__name__)

FORMAT = 1  # raised when the drawing changes, so that sets stored by an older version are drawn anew


@dataclass(frozen=True)
class CandidateSet:
    """The sampled lists of one kind of instance, phase and protocol.

    Attributes:
        rows: int64[I], instance rows of `JointData.videos` or `.comments`; instances without a negative are not among
            them.
        items: int32[I, C], candidate ids (comment ids for comments) in random order, 0-padded on the right.
        positive: bool[I, C], which candidates are positive; one per row for videos.
        enough: bool[I], whether the list has as many negatives as the protocol asks for.
        left_out: number of instances without any negative.
        hash: SHA-256 of the arrays.
        description: what the set is a function of (data, split, protocol, seed …).
    """

    rows: np.ndarray
    items: np.ndarray
    positive: np.ndarray
    enough: np.ndarray
    left_out: int
    hash: str
    description: Mapping[str, Any]

    @property
    def lengths(self) -> np.ndarray:
        """int64[I]: candidates per list."""
        return (self.items > 0).sum(axis=1)

    @property
    def target_column(self) -> np.ndarray:
        """int64[I]: the column of the (first) positive."""
        return self.positive.argmax(axis=1)


def candidate_set(
    data: JointData, kind: Kind, phase: int, protocol: Protocol, *, seed: int, folder: Path | None = None
) -> CandidateSet:
    """The candidate set of a phase: read from `folder` if it is there, else drawn and stored.

    It is a function of the data, the split, the phase, the protocol and `seed` only: history lengths, batch sizes, the
    model and every other generator change nothing.

    Args:
        kind: "video" or "comment". phase: 0 train, 1 valid, 2 test. seed: at least 0. folder: None: nothing is stored.

    Raises:
        ConfigError: `full` (nothing is drawn), or a protocol that comments do not have.
    """
    check_protocol(kind, protocol)
    if protocol.is_full:
        raise ConfigError(f"protocol '{protocol}' ranks every candidate: there is no candidate set to draw")
    description = _describe(data, kind, phase, protocol, seed)
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    if folder is None:
        return _draw(data, kind, phase, protocol, description, key)
    path = Path(folder) / f"{kind}-{PHASES[phase]}-{protocol}-{key[:16]}.npz"
    stored = _load(path, description)
    if stored is None:
        stored = _draw(data, kind, phase, protocol, description, key)
        _save(path, stored)
        logger.info("candidates of %s: %s lists drawn, stored as %s", protocol, f"{len(stored.rows):,}", path.name)
    return stored


def check_protocol(kind: Kind, protocol: Protocol) -> None:
    """Refuse what comments cannot be ranked by.

    Raises:
        ConfigError: an unknown kind, or a protocol other than `available+uniform…` and `available+full` for comments.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of instance {kind!r}; accepted: {', '.join(KINDS)}")
    if kind == "comment" and (not protocol.only_available or protocol.negatives not in ("uniform", "full")):
        raise ConfigError(
            f"protocol '{protocol}' is not for comments: their candidates are always those of the watched video posted "
            "at or before the instance's time; accepted: available+uniform (with an optional number of negatives) and "
            "available+full"
        )


def _describe(data: JointData, kind: Kind, phase: int, protocol: Protocol, seed: int) -> dict[str, Any]:
    rows = data.rows(kind, phase)
    instances = data.videos if kind == "video" else data.comments
    digest = hashlib.sha256()
    for values in (rows, instances.user[rows], instances.item[rows], instances.time[rows]):
        digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "format": FORMAT,
        "data": data.tables.fingerprint,
        "split": repr(data.split),
        "kind": kind,
        "phase": PHASES[phase],
        "candidates": protocol.candidates,
        "negatives": protocol.negatives,
        "sample_num": protocol.sample_num,
        "seed": int(seed),
        "instances": digest.hexdigest(),
    }


def _draw(
    data: JointData, kind: Kind, phase: int, protocol: Protocol, description: Mapping[str, Any], key: str
) -> CandidateSet:
    # A generator of its own, seeded by everything the set is a function of.
    rng = np.random.default_rng(np.frombuffer(bytes.fromhex(key), dtype=np.uint32))
    if kind == "comment":
        rows = data.rows("comment", phase)
        items, positive = CommentIndex(data).sampled(rows, protocol.sample_num, rng)
    else:
        rows = data.rows("video", phase)
        targets = negatives.Targets(data.videos.item[rows], data.videos.time[rows])
        items, positive = _shuffled(targets.items, _video_negatives(data, targets, protocol, rng), rng)
    n_negatives = (items > 0).sum(axis=1) - positive.sum(axis=1)
    kept = n_negatives > 0
    # Several positives take the place of negatives in a comment list of fixed length.
    wanted = protocol.sample_num + 1 - positive.sum(axis=1)
    rows, items, positive, enough = rows[kept], items[kept], positive[kept], (n_negatives >= wanted)[kept]
    content = _content_hash(rows, items, positive, enough)
    return CandidateSet(rows, items, positive, enough, int((~kept).sum()), content, dict(description))


def _video_negatives(
    data: JointData, targets: negatives.Targets, protocol: Protocol, rng: np.random.Generator
) -> np.ndarray:
    catalogue = negatives.Catalogue(data.tables.item_time, only_available=protocol.only_available)
    if protocol.negatives == "uniform":
        return negatives.uniform(targets, protocol.sample_num, catalogue, rng)
    if protocol.negatives == "popular":
        return negatives.popular(targets, protocol.sample_num, catalogue, data.train_item_count, rng)
    events = (data.tables.inter_item, data.tables.inter_time)
    return negatives.period(targets, protocol.sample_num, catalogue, events, rng)


def _shuffled(targets: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Targets [I] and negatives [I, n] as one table in random order, padding on the right; and where the target is."""
    items = np.column_stack([targets, drawn]).astype(np.int32)
    keys = rng.random(items.shape, dtype=np.float32)
    keys[items == 0] = 2.0
    items = np.take_along_axis(items, np.argsort(keys, axis=1), axis=1)
    return items, items == targets[:, None]


def _content_hash(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _save(path: Path, stored: CandidateSet) -> None:
    about = json.dumps({**stored.description, "left_out": stored.left_out, "hash": stored.hash}, sort_keys=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(
            handle,
            about=np.array(about),
            rows=stored.rows,
            items=stored.items,
            positive=stored.positive,
            enough=stored.enough,
        )


def _load(path: Path, description: Mapping[str, Any]) -> CandidateSet | None:
    """The stored set; None if there is none, or (with a warning) if the file is damaged or of something else."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            rows, items, positive, enough = (stored[name] for name in ("rows", "items", "positive", "enough"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("candidate file %s is damaged (%s): drawing it again", path, error)
        return None
    left_out, content = about.pop("left_out", 0), about.pop("hash", "")
    if about != dict(description) or content != _content_hash(rows, items, positive, enough):
        logger.warning("candidate file %s is not what its name says: drawing it again", path)
        return None
    return CandidateSet(rows, items, positive, enough, left_out, content, about)
