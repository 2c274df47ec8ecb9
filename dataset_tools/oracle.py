"""The latent truth behind the synthetic data set, and the probabilities that generated it.

`sample.generate` draws every interaction with `SampleOracle.video_weights` and `comment_weights`, so what the oracle
scores is what the data were drawn from: the ceiling for any model. It lies in the data set's folder as
`<name>.oracle.npz` (no pickle).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from dataset_tools.errors import DataToolError

BROWSING = 0.012  # interest in every topic, whoever the user is
LASTING = 0.25  # weight of a user's lasting topics beside the session's topic (1)
OTHER_LANGUAGE = 0.3  # factor for a video that is not in the user's language
ANGLE = 3.5  # log-weight of the user's share of an angle
FRESH, FRESH_SECONDS = 4.0, 2 * 86_400.0  # a new video weighs up to 1 + FRESH times as much, for about two days
_ROWS_PER_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class SampleOracle:
    """Latent state of `U` users, `N` videos and `C` comments with `K` topics and `A` angles; times in Unix seconds."""

    user_token: np.ndarray  # str [U]
    user_topics: np.ndarray  # [U, K] lasting interests, rows sum to 1
    user_angles: np.ndarray  # [U, A] rows sum to 1
    user_language: np.ndarray  # int [U]
    item_token: np.ndarray  # str [N]
    item_topic: np.ndarray  # int [N]
    item_angle: np.ndarray  # int [N]
    item_language: np.ndarray  # int [N]
    item_appeal: np.ndarray  # [N] popularity skew
    item_time: np.ndarray  # [N] upload
    comment_token: np.ndarray  # str [C]
    comment_item: np.ndarray  # int [C]
    comment_angle: np.ndarray  # int [C]
    comment_appeal: np.ndarray  # [C]
    comment_time: np.ndarray  # [C] posted
    comment_user: np.ndarray  # int [C] who wrote it
    session_offsets: np.ndarray  # int [U + 1] into the next two
    session_start: np.ndarray  # [S]
    session_topic: np.ndarray  # int [S]
    inter_offsets: np.ndarray  # int [U + 1] into the next two: what each user watched, in time order
    inter_item: np.ndarray  # int [I]
    inter_time: np.ndarray  # [I]

    def video_weights(self, users: np.ndarray, topics: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Unnormalised probabilities [B, N] of every video in sessions about `topics` that began at `starts`."""
        interest = BROWSING + LASTING * self.user_topics[users][:, self.item_topic]  # [B, N]
        interest += self.item_topic[None, :] == topics[:, None]
        angle = np.exp(ANGLE * self.user_angles[users])[:, self.item_angle]
        language = np.where(self.item_language[None, :] == self.user_language[users, None], 1.0, OTHER_LANGUAGE)
        age = starts[:, None] - self.item_time[None, :]
        fresh = np.where(age < 0, 0.0, 1.0 + FRESH * np.exp(-np.maximum(age, 0.0) / FRESH_SECONDS))
        return interest * angle * language * fresh * self.item_appeal

    def comment_weights(self, users: np.ndarray, comments: np.ndarray) -> np.ndarray:
        """Unnormalised probabilities that users [B] touch the comments [B, C] (indices) of a video: never their own."""
        angle = np.exp(2 * ANGLE * np.take_along_axis(self.user_angles[users], self.comment_angle[comments], axis=1))
        return angle * self.comment_appeal[comments] * (self.comment_user[comments] != users[:, None])

    def score_all(self, users: Sequence[str], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `users` [B] watch next at `times` [B]: float64 [B, N] unnormalised, and the N video tokens.

        Given the latent topic of the session that `times` falls into; videos watched strictly before have weight 0.
        """
        rows = _index(self.user_token, np.asarray(users), "user")
        times = np.asarray(times, dtype=np.float64)
        scores = np.empty((len(rows), len(self.item_token)))
        for begin in range(0, len(rows), _ROWS_PER_BLOCK):
            block = slice(begin, begin + _ROWS_PER_BLOCK)
            scores[block] = self._score_rows(rows[block], times[block])
        return scores, self.item_token

    def score(self, users: Sequence[str], times: np.ndarray, items: np.ndarray) -> np.ndarray:
        """As `score_all`, for the candidates `items` str [B, C] only: float64 [B, C]."""
        items = np.asarray(items)
        columns = _index(self.item_token, items.reshape(-1), "video").reshape(items.shape)
        return np.take_along_axis(self.score_all(users, times)[0], columns, axis=1)

    def score_comments(self, users: Sequence[str], comments: np.ndarray) -> np.ndarray:
        """How likely `users` [B] touch each of the `comments` str [B, C] of one video: float64 [B, C], unnormalised."""
        comments = np.asarray(comments)
        columns = _index(self.comment_token, comments.reshape(-1), "comment").reshape(comments.shape)
        return self.comment_weights(_index(self.user_token, np.asarray(users), "user"), columns)

    def _score_rows(self, users: np.ndarray, times: np.ndarray) -> np.ndarray:
        session = _last_at_or_before(self.session_offsets, self.session_start, users, times)
        weights = self.video_weights(users, self.session_topic[session], self.session_start[session])  # [B, N]
        begin, length = self.inter_offsets[users], np.diff(self.inter_offsets)[users]
        row = np.repeat(np.arange(len(users)), length)
        entry = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length) + np.repeat(begin, length)
        watched = self.inter_time[entry] < times[row]
        weights[row[watched], self.inter_item[entry[watched]]] = 0.0
        return weights

    def save(self, path: Path) -> None:
        """Write all arrays as a compressed `.npz`."""
        with open(path, "wb") as handle:
            np.savez_compressed(handle, **asdict(self))

    @classmethod
    def load(cls, folder: Path) -> SampleOracle:
        """Read the oracle in a generated data set's folder; `DataToolError` if there is none or it is damaged."""
        folder = Path(folder)
        path = folder / f"{folder.resolve().name}.oracle.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{field.name: stored[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataToolError(
                f"{path} is not the oracle of a generated sample ({error}); generate it anew"
            ) from error


def _index(tokens: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    order = np.argsort(tokens)
    place = np.minimum(np.searchsorted(tokens, wanted, sorter=order), len(tokens) - 1)
    index = order[place]
    unknown = tokens[index] != wanted
    if unknown.any():
        raise DataToolError(f"the oracle knows no {what} {wanted[unknown][0]!r}; is it another data set's?")
    return index


def _last_at_or_before(offsets: np.ndarray, times: np.ndarray, users: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Index of the last event of each user at or before `at`, or of the user's first one if there is none."""
    span = max(times.max(), at.max()) - min(times.min(), at.min()) + 1.0
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    low = min(times.min(), at.min())
    found = np.searchsorted(owner * span + (times - low), users * span + (at - low), side="right") - 1
    return np.maximum(found, offsets[users])
