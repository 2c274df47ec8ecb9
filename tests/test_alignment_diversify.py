"""Comment diversification: what each side of a history sees, from ids and from random numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from alignment_reading import (
    ALWAYS,
    NEVER,
    read,
    reference_popular,
    small_data,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_lsvcr.alignment.diversify import (
    DiversifyConfig,
    Draws,
    Use,
    chosen_records,
    chosen_videos,
    record_sides,
    video_sides,
)
from recbole_lsvcr.errors import ConfigError

# The two sides, from ids ---------------------------------------------------------------------------------------------


def test_without_diversification_both_sides_see_the_same():
    _, videos, records = read(small_data(), NEVER)
    assert videos and records and any(len(s.real) > 3 for s in records)
    for step in videos:
        assert step.llm == step.sr
    for step in records:
        assert step.llm == step.sr and len(step.llm) == min(len(step.real), 3)
        assert [c for c in step.real if c in step.llm] == step.llm, "in the record's own order"


@pytest.mark.parametrize("config", [ALWAYS, DiversifyConfig(), NEVER], ids=["always", "default", "never"])
def test_a_video_shows_one_of_its_top_three_and_two_different_ones_if_diversified(config: DiversifyConfig):
    data = small_data()
    inputs, videos, _ = read(data, config)
    kinds = Counter()
    for step in videos:
        top = reference_popular(data, inputs, step)[:3]
        kinds[len(top)] += 1
        assert {*step.llm, *step.sr} <= set(top)
        assert len(step.llm) == len(step.sr) == min(len(top), 1)
        if config is ALWAYS and len(top) > 1:
            assert step.llm != step.sr
    assert {0, 1, 3} <= set(kinds)


def test_a_diversified_record_deals_real_and_virtual_comments_to_both_sides():
    seen = Counter()
    for data in (small_data(), small_data(comments=20)):
        inputs, _, records = read(data, ALWAYS)
        for step in records:
            size = min(len(step.real), 3)
            assert len(step.llm) == len(step.sr) == size
            pool = set(reference_popular(data, inputs, step)[:10]) - set(step.real)
            both = Counter(step.llm) + Counter(step.sr)
            real = [c for c in both if c in step.real]
            virtual = Counter({c: n for c, n in both.items() if c not in step.real})
            if not pool:
                seen["none"] += 1
                assert step.llm == step.sr and set(step.llm) <= set(step.real)
                continue
            assert all(both[c] == 1 for c in real) and len(real) == size
            assert virtual.total() == size and set(virtual) <= pool
            assert max(virtual.values()) - min(virtual.values()) <= 1 and len(virtual) == min(size, len(pool))
            seen["repeated" if len(pool) < size else "enough"] += 1
    assert min(seen["none"], seen["repeated"], seen["enough"]) > 0


def test_a_targets_positives_are_never_shown_as_popular_or_virtual():
    data = small_data()
    met = 0
    for step_seed in range(10):
        inputs, videos, records = read(data, ALWAYS, step_seed, tasks=("comment",))
        for step in videos + records:
            positives = set(inputs.positives[step.row].tolist()) - {0}
            met += step.item == inputs.item[step.row]
            assert not positives & ({*step.llm, *step.sr} - set(step.real))
    assert met > 50, "steps of the video being watched, where it matters"


def test_steps_are_diversified_as_often_as_configured():
    """An instance with 0.5 and then each of its steps with 0.3: 0.15 of the steps, in half of the instances."""
    data = small_data()
    inputs, videos, records = read(data, DiversifyConfig(), 0, tasks=("comment",))
    choices = (
        [s for s, step in enumerate(videos) if len(reference_popular(data, inputs, step)) > 1],
        [s for s, step in enumerate(records) if set(reference_popular(data, inputs, step)[:10]) - set(step.real)],
    )
    rows: tuple[list[int], list[int]] = ([], [])  # of the diversified steps, numbered on from batch to batch
    for step_seed in range(100):
        _, *sides = read(data, DiversifyConfig(), step_seed, tasks=("comment",))
        for side, found in enumerate(sides):
            different = [found[s] for s in choices[side] if found[s].llm != found[s].sr]
            rows[side].extend(1_000 * step_seed + step.row for step in different)
    for side, steps in enumerate((videos, records)):
        assert abs(len(rows[side]) / (100 * len(choices[side])) - 0.15) < 0.015
        per_instance = Counter(steps[s].row for s in choices[side]).values()
        expected = sum(0.5 * (1 - 0.7**n) for n in per_instance)
        assert abs(len(set(rows[side])) / (100 * expected) - 1) < 0.05


# The two sides, from random numbers -----------------------------------------------------------------------------------


def slow_video(top: list[int], diversified: bool, numbers: list[float]) -> tuple[int, int]:
    shown = [c for c in top if c]
    if not shown:
        return 0, 0
    first = shown[int(numbers[0] * len(shown))]
    if not diversified or len(shown) == 1:
        return first, first
    at = shown.index(first)
    others = shown[at + 1 :] + shown[:at]
    return first, others[int(numbers[1] * len(others))]


def slow_record(
    comments: list[int], popular: list[int], limit: int, numbers: dict[Use, list[float]]
) -> tuple[list[int], list[int]]:
    """One record of `record_sides`; `popular` is empty where it is not diversified."""

    def shuffled(ids: list[int], keys: list[float]) -> list[int]:
        return [c for _, c in sorted(zip(keys, ids, strict=False), key=lambda pair: pair[0])]

    record = [c for c in comments if c]
    kept = shuffled(record, numbers[Use.RECORD_CUT])[:limit]
    real = [c for c in record if c in kept]
    pairs = [(c, key) for c, key in zip(popular, numbers[Use.VIRTUAL], strict=False) if c and c not in record]
    if not pairs:
        return real, real
    drawn = shuffled([c for c, _ in pairs], [key for _, key in pairs])
    virtual = [drawn[k % len(drawn)] for k in range(len(real))]
    keys = numbers[Use.DEAL]
    pool = shuffled(real + virtual, keys[: len(real)] + keys[limit : limit + len(real)])
    return pool[0::2], pool[1::2]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    steps=st.integers(0, 40),
    widths=st.tuples(st.integers(1, 7), st.integers(1, 12)),
    limit=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_all_steps_at_once_equal_one_step_at_a_time(seed, steps, widths, limit, share):
    rng = np.random.default_rng(seed)
    config = DiversifyConfig(
        record_comments=limit, video_instance=0.7, video_step=share, record_instance=0.7, record_step=share
    )

    def ids(width: int, least: int) -> np.ndarray:
        rows = [rng.permutation(15)[:width] + 1 for _ in range(steps)]
        lengths = rng.integers(least, width + 1, steps)
        return np.array([np.where(np.arange(width) < n, r, 0) for r, n in zip(rows, lengths, strict=True)]).reshape(
            steps, width
        )

    comments, popular = ids(widths[0], 1), ids(widths[1], 0)
    row = np.sort(rng.integers(0, 5, steps))
    step = np.arange(steps)
    draws = Draws(seed, 1, np.arange(5))

    numbers = draws.of_steps(Use.VIDEO_COMMENT, row, step, 2)
    chosen = chosen_videos(config, draws, row, step)
    sides = video_sides(popular, chosen, numbers)
    expected = [slow_video(*arguments) for arguments in zip(popular.tolist(), chosen, numbers.tolist(), strict=True)]
    assert list(zip(sides.llm.tolist(), sides.sr.tolist(), strict=True)) == expected

    chosen = chosen_records(config, draws, row, step)
    sides = record_sides(config, draws, row, step, comments, chosen, popular[chosen])
    uses = {Use.RECORD_CUT: widths[0], Use.VIRTUAL: widths[1], Use.DEAL: 2 * limit}
    drawn = {use: draws.of_steps(use, row, step, width).tolist() for use, width in uses.items()}
    for s in range(steps):
        own = {use: values[s] for use, values in drawn.items()}
        llm, sr = slow_record(comments[s].tolist(), popular[s].tolist() if chosen[s] else [], limit, own)
        assert sides.llm[s].tolist() == llm + [0] * (limit - len(llm))
        assert sides.sr[s].tolist() == sr + [0] * (limit - len(sr))


def test_draws_are_uniform_and_an_instances_own():
    users = np.arange(4_000)
    draws = Draws(1, 2, users, users % 7)
    numbers = draws.of_instances(Use.TARGET, 5)
    assert numbers.min() >= 0 and numbers.max() < 1
    shares = np.histogram(numbers, bins=20, range=(0, 1))[0] / numbers.size
    assert np.abs(shares - 0.05).max() < 0.006
    # Neither columns, uses, steps, instances nor seeds go together.
    others = [
        numbers[:, 1],
        np.roll(numbers[:, 0], 1),
        draws.of_instances(Use.SLOT_ORDER)[:, 0],
        draws.of_steps(Use.TARGET, users, users * 0)[:, 0],
        Draws(1, 3, users, users % 7).of_instances(Use.TARGET)[:, 0],
        Draws(2, 2, users, users % 7).of_instances(Use.TARGET)[:, 0],
    ]
    for other in others:
        assert abs(np.corrcoef(numbers[:, 0], other)[0, 1]) < 0.05
    few = np.array([17, 3_000])
    np.testing.assert_array_equal(Draws(1, 2, few, few % 7).of_instances(Use.TARGET, 2), numbers[few, :2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"videos": 1}, "videos=1 is not accepted"),
        ({"video_step": 1.5}, "video_step=1.5 is not accepted"),
        ({"record_instance": float("nan")}, "record_instance=nan"),
        ({"record_step": True}, "record_step=True"),
        ({"video_top": 0}, "video_top=0"),
        ({"record_comments": 2.0}, "record_comments=2.0"),
        ({"record_comments": 4}, "record_comments=4 is not accepted"),
    ],
)
def test_bad_diversification_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        DiversifyConfig(**options)
