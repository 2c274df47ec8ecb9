"""The SR model against the equations, read one user and one position at a time, and its invariances."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sr_reference import (
    LENGTHS,
    N_COMMENTS,
    N_ITEMS,
    SMALL,
    WIDTH,
    Reference,
    build,
    make_batch,
    rows_of,
    text_tables,
)
from torch import Tensor

from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.model.layers import dropout
from recbole_lsvcr.model.sr import SRConfig, SRModel, StreamInput, resize_positions
from recbole_lsvcr.model.streams import SRBatch, gather_projected
from recbole_lsvcr.model.video import VideoObjective, video_forward, video_scores


def inputs_of(model: SRModel, batch: SRBatch, titles: Tensor, comments: Tensor) -> tuple[StreamInput, StreamInput]:
    """Stream inputs made without `video_forward`, as alignment will make them."""
    projected, written = model.embed_text(titles), model.embed_text(comments)[batch.record_comments]
    count = (batch.record_comments > 0).sum(-1, keepdim=True).clamp(min=1)
    z_video = model.video_steps(projected[batch.video_items], model.embed_text(comments)[batch.video_comments])
    z_record = model.record_steps(projected[batch.record_items], written.sum(2) / count)
    ids = None if model.id_embedding is None else model.id_table()
    return (
        StreamInput(z_video, batch.video_len, None if ids is None else ids[batch.video_items]),
        StreamInput(z_record, batch.record_len, None if ids is None else ids[batch.record_items]),
    )


def query_of(model: SRModel, titles: Tensor, items: Tensor) -> Tensor:
    return model.video_candidates(model.embed_text(titles))[items]


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids", "text-only"])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "aligned"])
def test_forward_equals_the_equations_read_one_position_at_a_time(with_ids: bool, raw: bool) -> None:
    config = replace(SMALL, n_items=N_ITEMS if with_ids else None, encoder_size=WIDTH if raw else None)
    model = build(config)
    if with_ids:
        model.seen[[2, 9, 14]] = False
    titles, comments = text_tables(config.table_size)
    batch = make_batch()
    assert batch.target is not None
    states = model.encode(*inputs_of(model, batch, titles, comments))
    fused_video, fused_comment = model.fuse_video(states), model.fuse_comment(states)
    query = query_of(model, titles, batch.target)
    results = {
        "video": model.extract_video(fused_video, states.video_mask),
        "comment": model.extract_comment(fused_comment, states.comment_mask, query),
        "video, wrong sequence": model.extract_video(fused_comment, states.comment_mask),
        "comment, wrong sequence": model.extract_comment(fused_video, states.video_mask, query),
    }
    reference = Reference(model, titles, comments)
    for user in range(len(LENGTHS)):
        videos, records = reference.states(batch, user)
        own, other = reference.fuse("video", videos, records), reference.fuse("comment", records, videos)
        watched = reference.query(int(batch.target[user]))
        expected = {
            "video": reference.extract_video(own),
            "comment": reference.extract_comment(other, watched),
            "video, wrong sequence": reference.extract_video(other),
            "comment, wrong sequence": reference.extract_comment(own, watched),
        }
        for name, value in expected.items():
            torch.testing.assert_close(results[name][user].double(), value, atol=1e-5, rtol=1e-5, msg=f"{name} {user}")
    shared = video_forward(model, batch, model.embed_text(titles), comments).preference
    torch.testing.assert_close(shared, results["video"], atol=1e-5, rtol=1e-5)


def preferences(model: SRModel, batch: SRBatch, titles: Tensor, comments: Tensor) -> Tensor:
    """[B, 2d]: s^v and s^c, the watched video being the target."""
    assert batch.target is not None
    streams = inputs_of(model, batch, titles, comments)
    s_video = video_forward(model, batch, model.embed_text(titles), comments).preference
    return torch.cat([s_video, model.comment_preference(*streams, query_of(model, titles, batch.target))], dim=1)


def test_batch_composition_and_order_change_nothing() -> None:
    model, (titles, comments), batch = build(), text_tables(), make_batch()
    together = preferences(model, batch, titles, comments)
    order = [4, 0, 6, 2, 1, 5, 3]
    torch.testing.assert_close(
        preferences(model, rows_of(batch, order), titles, comments), together[order], atol=1e-5, rtol=0
    )
    for user in range(len(LENGTHS)):
        alone = preferences(model, rows_of(batch, [user]), titles, comments)
        torch.testing.assert_close(alone[0], together[user], atol=1e-5, rtol=0)


def test_padding_content_and_amount_change_nothing() -> None:
    model, (titles, comments) = build(), text_tables()
    lengths = [(min(n, 4), min(m, 4)) for n, m in LENGTHS]
    batch = make_batch(lengths, width=4)
    expected = preferences(model, batch, titles, comments)
    garbage = make_batch([(7, 7)] * len(lengths), seed=9)
    place = torch.arange(7)

    def widen(name: str, length: Tensor) -> Tensor:
        value, filler = getattr(batch, name), getattr(garbage, name).clone()
        filler[:, :4] = torch.where(
            (place[:4] < length[:, None]).view(-1, 4, *[1] * (value.dim() - 2)), value, filler[:, :4]
        )
        return filler

    wide = replace(
        batch,
        video_items=widen("video_items", batch.video_len),
        video_comments=widen("video_comments", batch.video_len),
        record_items=widen("record_items", batch.record_len),
        record_comments=widen("record_comments", batch.record_len),
    )
    torch.testing.assert_close(preferences(model, wide, titles, comments), expected, atol=1e-5, rtol=0)
    wide.video_items.mul_(place < batch.video_len[:, None])  # the usual form: padded by 0
    torch.testing.assert_close(preferences(model, wide, titles, comments), expected, atol=1e-5, rtol=0)


def test_a_later_step_never_changes_an_earlier_state() -> None:
    model, (titles, comments), batch = build(), text_tables(), make_batch([(7, 7)] * 3)
    before = model.encode(*inputs_of(model, batch, titles, comments))
    later = replace(batch, video_items=batch.video_items.clone(), record_comments=batch.record_comments.clone())
    later.video_items[:, 4] = later.video_items[:, 4] % (N_ITEMS - 1) + 1
    later.record_comments[:, 5] = later.record_comments[:, 5] % (N_COMMENTS - 1) + 1
    after = model.encode(*inputs_of(model, later, titles, comments))
    torch.testing.assert_close(after.video[:, :4], before.video[:, :4], atol=1e-6, rtol=0)
    torch.testing.assert_close(after.comment[:, :5], before.comment[:, :5], atol=1e-6, rtol=0)
    assert (after.video[:, 4:] - before.video[:, 4:]).abs().amax(-1).min() > 1e-4
    assert (after.comment[:, 5:] - before.comment[:, 5:]).abs().amax(-1).min() > 1e-4


def test_an_empty_history_gives_no_nan_and_the_other_stream_still_counts() -> None:
    model, (titles, comments) = build().train(), text_tables()
    batch = make_batch([(0, 4), (0, 4), (4, 0), (4, 0), (0, 0)])
    losses = VideoObjective()(model, batch, titles, comments, torch.Generator().manual_seed(0))
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()
    s = preferences(model, batch, titles, comments)
    assert s.isfinite().all()
    assert (s[0] - s[1]).abs().max() > 1e-3, "records of a user without videos must reach both preferences"
    assert (s[2] - s[3]).abs().max() > 1e-3, "videos of a user without records must reach both preferences"


@pytest.mark.parametrize("task", ["video", "comment"])
def test_exactly_the_listed_parameters_of_a_task_get_gradients(task: str) -> None:
    model, (titles, comments), batch = build().train(), text_tables(), make_batch()
    assert batch.target is not None
    streams = inputs_of(model, batch, titles, comments)
    if task == "video":
        s = model.video_preference(*streams)
    else:
        s = model.comment_preference(*streams, query_of(model, titles, batch.target))
    video_scores(s, model.video_candidates(model.embed_text(titles)))[:, 1:].square().sum().backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-6}
    assert got == model.trained_parameters(task)
    other = "comment" if task == "video" else "video"
    assert not any(name.startswith((f"fusion_{other}", f"fuse_linear_{other}", f"{other}_extractor")) for name in got)


def test_the_objective_trains_exactly_the_video_parameters() -> None:
    model, (titles, comments), batch = build().train(), text_tables(), make_batch()
    VideoObjective()(model, batch, titles, comments, torch.Generator().manual_seed(0)).total.backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-7}
    assert got == model.trained_parameters("video")
    assert model.id_embedding is not None
    assert not model.id_embedding.weight.grad[0].any()


def test_empty_texts_are_the_zero_vector_even_after_the_mlp() -> None:
    model, (titles, _) = build(), text_tables()
    projected = model.embed_text(titles)
    assert not projected[[0, 3]].any()
    assert projected[1].any()
    assert model.text_mlp is not None
    torch.testing.assert_close(model.text_proj(model.text_mlp(titles)), projected)  # the stored table, then projected


def test_distinct_texts_are_projected_once_and_read_by_row_from_a_memory_map() -> None:
    model, (_, comments) = build(), text_tables()
    index = torch.tensor([[7, 0, 7], [7, 9, 0]])
    read: list[list[int]] = []

    def rows(wanted: Tensor) -> Tensor:
        read.append(wanted.tolist())
        return comments[wanted]

    for source in (comments, rows, comments[:10]):
        projected, (places,) = gather_projected(model.embed_text, source, index)
        torch.testing.assert_close(projected[places], model.embed_text(comments)[index])
        assert not projected[0].any()
        assert ((places == 0) == (index == 0)).all()
    assert read == [[0, 7, 9]]


def test_a_video_unseen_in_training_has_no_id_at_inference_but_keeps_it_in_training() -> None:
    model, (titles, _) = build(), text_tables()
    model.seen[4] = False
    projected = model.embed_text(titles)
    torch.testing.assert_close(model.video_candidates(projected)[4], projected[4])
    assert (model.video_candidates(projected)[6] - projected[6]).abs().max() > 1e-3
    assert (model.train().video_candidates(projected)[4] - projected[4]).abs().max() > 1e-3


@torch.no_grad()
def test_candidates_of_training_can_be_limited_to_seen_videos() -> None:
    model, (titles, comments) = build().train(), text_tables()
    batch = make_batch()
    assert batch.target is not None
    model.seen[:] = False
    model.seen[batch.target] = True
    objective = VideoObjective(regularization=0.0, train_candidates="seen")
    hidden = model.eval()  # no dropout, so that the slow form below sees the same s
    loss = objective(hidden, batch, titles, comments).ranking
    s = video_forward(hidden, batch, hidden.embed_text(titles), comments).preference
    scores = video_scores(s, hidden.video_candidates(hidden.embed_text(titles))).detach()
    offered = model.seen.nonzero().flatten().tolist()
    slow = [
        -math.log(math.exp(scores[i, t]) / sum(math.exp(scores[i, j]) for j in offered))
        for i, t in enumerate(batch.target.tolist())
    ]
    assert float(loss) == pytest.approx(sum(slow) / len(slow), rel=1e-4)


def test_given_positions_are_used_and_too_long_a_history_is_refused() -> None:
    model, (titles, comments), batch = build(), text_tables(), make_batch([(3, 3)] * 2, width=3)
    videos, records = inputs_of(model, batch, titles, comments)
    standard = model.encode(videos, records)
    same = model.encode(replace(videos, positions=torch.arange(3)), records)
    torch.testing.assert_close(same.video, standard.video)
    spread = model.encode(replace(videos, positions=torch.tensor([1, 4, 6])), records)
    assert (spread.video - standard.video).abs().max() > 1e-3
    long = StreamInput(torch.zeros(2, 8, 8), torch.tensor([8, 8]))
    with pytest.raises(ConfigError, match="8 steps is longer than max_positions=7"):
        model.encode(long, records)


def test_position_tables_of_another_length_get_the_mean_row() -> None:
    table = torch.arange(6.0).view(3, 2)
    longer = resize_positions(table, 5)
    torch.testing.assert_close(longer, torch.cat([table, torch.tensor([[2.0, 3.0], [2.0, 3.0]])]))
    torch.testing.assert_close(resize_positions(table, 3), table)
    torch.testing.assert_close(resize_positions(table, 2), table[:2])
    with pytest.raises(CheckpointError, match=r"shape \(0, 2\)"):
        resize_positions(torch.zeros(0, 2), 5)


def test_aligned_weights_start_a_fine_tuning_model_of_longer_histories() -> None:
    aligned = build(replace(SMALL, n_items=None, max_positions=4), seed=3)
    model = build(replace(SMALL, encoder_size=None, max_positions=6), seed=4)
    new = model.load_weights(aligned.state_dict())
    assert new == {"gate", "id_embedding.weight", "seen"}
    torch.testing.assert_close(model.merge.weight, aligned.merge.weight)
    torch.testing.assert_close(model.position_video.weight[:4], aligned.position_video.weight)
    torch.testing.assert_close(model.position_video.weight[5], aligned.position_video.weight.mean(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 16}, "has the shape"),
        ({"n_layers": 1}, "encoder_comment.1.* is missing|is missing"),
        ({"n_layers": 3}, "is not part of this model"),
        ({"n_items": 12}, r"id_embedding.weight has the shape \(12, 8\), not \(30, 8\)"),
    ],
)
def test_weights_of_another_model_are_refused(change: dict[str, int], message: str) -> None:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        model.load_weights(SRModel(replace(SMALL, **change)).state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 0},
        {"hidden_size": 9},
        {"hidden_dropout_prob": 1.0},
        {"attn_dropout_prob": -0.1},
        {"hidden_act": "gleu"},
        {"layer_norm_eps": 0.0},
        {"n_items": 1},
        {"encoder_size": 3},
        {"max_positions": 0},
    ],
)
def test_a_configuration_that_cannot_work_is_refused_with_its_value(change: dict[str, object]) -> None:
    (name, value), *_ = change.items()
    with pytest.raises(ConfigError, match=f"{name}={value!r}"):
        replace(SMALL, **change)


def test_initialisation_is_the_specified_one() -> None:
    torch.manual_seed(0)
    model = SRModel(SRConfig(n_items=500, encoder_size=384))
    for name, parameter in model.state_dict().items():
        if name == "seen":
            assert parameter.all()
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif name == "gate":
            assert parameter == 1
        else:
            assert parameter.std() == pytest.approx(0.02, rel=0.4), name
            assert abs(parameter.mean()) < 0.01, name
    assert model.id_embedding is not None
    assert not model.id_embedding.weight[0].any()


def test_a_tiny_planted_problem_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = SRModel(
        replace(SMALL, hidden_dropout_prob=0.0, attn_dropout_prob=0.0, initializer_range=0.02, hidden_size=32)
    )
    titles, comments = text_tables()
    batch = make_batch([(5, 3)] * 20)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    objective = VideoObjective(regularization=0.1, negatives=9)
    for _ in range(150):
        optimizer.zero_grad()
        losses = objective(model, batch, titles, comments, generator)
        losses.total.backward()
        optimizer.step()
    assert losses.ranking < 0.05
    model.eval()
    scores = video_scores(
        video_forward(model, batch, model.embed_text(titles), comments).preference,
        model.video_candidates(model.embed_text(titles)),
    )
    assert (scores[:, 1:].argmax(1) + 1 == batch.target).all()


def test_one_seed_gives_one_result() -> None:
    titles, comments = text_tables()

    def run() -> Tensor:
        model = build().train()
        torch.manual_seed(7)
        return VideoObjective()(model, make_batch(), titles, comments, torch.Generator().manual_seed(8)).total

    assert torch.equal(run(), run())


def test_dropout_drops_its_share_keeps_the_mean_and_draws_each_element_by_itself() -> None:
    torch.manual_seed(0)
    x = torch.ones(4, 50_001)
    thinned = dropout(x, 0.3, training=True)
    kept = thinned > 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.004)
    assert thinned.mean() == pytest.approx(1.0, abs=0.005)
    assert thinned[kept].unique().numel() == 1
    for lag in (1, 2, 3, 4):  # four elements share one random number
        both = (kept[:, lag:] & kept[:, :-lag]).float().mean()
        assert both == pytest.approx(0.49, abs=0.006)
    assert not torch.equal(dropout(x, 0.3, training=True), thinned)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.3, training=True), thinned)
    assert torch.equal(dropout(x, 0.3, training=False), x)
    assert dropout(x, 1e-9, training=True).count_nonzero() > 199_900
    assert dropout(x, 1 - 1e-9, training=True).count_nonzero() < 100


def test_a_model_without_ids_refuses_what_needs_them() -> None:
    model, (titles, comments), batch = build(replace(SMALL, n_items=None)), text_tables(), make_batch()
    assert VideoObjective(regularization=0.0)(model, batch, titles, comments).total.isfinite()
    for objective in (VideoObjective(), VideoObjective(regularization=0.0, train_candidates="seen")):
        with pytest.raises(ConfigError, match="without video ids"):
            objective(model, batch, titles, comments)
    with pytest.raises(ConfigError, match="no video ids"):
        model.id_table()


@pytest.mark.parametrize(
    "change", [{"temperature": 0.0}, {"regularization": -0.1}, {"negatives": 0}, {"train_candidates": "new"}]
)
def test_an_objective_that_cannot_work_is_refused_with_its_value(change: dict[str, object]) -> None:
    (name, value), *_ = change.items()
    with pytest.raises(ConfigError, match=f"{name}={value!r}"):
        VideoObjective(**change)
