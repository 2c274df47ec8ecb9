"""MBHT: the merged sequence, its masks, every layer against a slow loop of its equation, and the model as a whole."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Make
from factories import DAY, START, make_tables
from joint_reference import records_of
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_lsvcr import pipeline
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data.instances import TimedBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.errors import ConfigError, DataError
from recbole_lsvcr.model.events import COMMENT, VIDEO, Events, append_video, draw_masks, hide, merge_events
from recbole_lsvcr.model.losses import dot_product_loss
from recbole_lsvcr.model.mbht import MBHT
from recbole_lsvcr.model.mbht_layers import (
    CrossViewAggregation,
    LowRankAttention,
    MultiScaleLayer,
    ScaleAttention,
    SelfGate,
    Similarity,
    aggregate,
    behaviour_hyperedges,
    hypergraph_convolution,
    semantic_hyperedges,
    window_means,
)

D, HEADS, J = 6, 2, 7
MASK = 99


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def exists_of(*lengths: int, slots: int = J) -> Tensor:
    """bool [B, J]: the last so many slots of each row."""
    return torch.arange(slots) >= slots - torch.tensor(lengths).unsqueeze(1)


# The merged sequence ---------------------------------------------------------------------------------------------


def test_both_histories_come_in_order_of_time_videos_first_and_the_newest_stay() -> None:
    videos = torch.tensor([[1, 2, 3], [1, 0, 0], [0, 0, 0], [0, 0, 0], [4, 5, 0]])
    video_times = torch.tensor([[10.0, 20, 20], [5, 0, 0], [0, 0, 0], [0, 0, 0], [-7, -3, 0]], dtype=torch.float64)
    records = torch.tensor([[2, 7], [0, 0], [8, 8], [0, 0], [6, 0]])
    record_times = torch.tensor([[20.0, 30], [0, 0], [1, 1], [0, 0], [-5, 0]], dtype=torch.float64)
    merged = merge_events(videos, video_times, records, record_times, length=4)
    assert merged.items.tolist() == [[2, 3, 2, 7], [0, 0, 0, 1], [0, 0, 8, 8], [0] * 4, [0, 4, 6, 5]]
    v, c = VIDEO, COMMENT
    assert merged.behaviours.tolist() == [[v, v, c, c], [0, 0, 0, v], [0, 0, c, c], [0] * 4, [0, v, c, v]]
    wide = merge_events(videos, video_times, records, record_times, length=9)
    assert wide.items.shape == (5, 9) and wide.items[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 2, 7]
    # What stands in padding is not read.
    video_times[2], record_times[3] = 1e12, -1e12
    again = merge_events(videos, video_times, records, record_times, length=4)
    assert torch.equal(again.items, merged.items) and torch.equal(again.behaviours, merged.behaviours)


def test_seconds_apart_are_in_order_at_todays_times() -> None:
    now = 1_700_000_000.0
    merged = merge_events(
        torch.tensor([[1]]),
        torch.tensor([[now + 1]], dtype=torch.float64),
        torch.tensor([[2]]),
        torch.tensor([[now]], dtype=torch.float64),
        length=2,
    )
    assert merged.items.tolist() == [[2, 1]]


def test_batches_have_the_times_of_both_histories_only_if_asked() -> None:
    tables = make_tables(3)
    boundaries = {"time": [START + 6 * DAY, START + 9 * DAY]}
    plain, timed = (JointData(tables, split=boundaries, max_videos=6, max_records=4, times=t) for t in (False, True))
    rows = np.arange(len(plain.videos))
    without, batch = (data.gather("video", rows, training=False) for data in (plain, timed))
    assert not isinstance(without, TimedBatch) and isinstance(batch, TimedBatch)
    for name, value in vars(without).items():
        np.testing.assert_array_equal(getattr(batch, name), value, err_msg=name)
    events = list(zip(tables.inter_user.tolist(), tables.inter_time.tolist(), strict=True))
    for row in rows[::5]:
        user, item, now = int(batch.user[row]), int(batch.item[row]), float(batch.time[row])
        watched = [t for u, t in events if u == user and t < now][-6:]
        assert batch.video_times[row].tolist() == watched + [0.0] * (6 - len(watched))
        found = records_of(tables, user, DAY, plain.split.boundaries, before=now)
        ends = [r.end for r in found if not (r.item == item and now - r.end < DAY)][-4:]
        assert batch.record_times[row].tolist() == ends + [0.0] * (4 - len(ends))
        assert all(t < now for t in watched + ends)


# Masks -----------------------------------------------------------------------------------------------------------


def random_events(rows: int = 200, slots: int = 9, items: int = 12) -> Events:
    """Events with padding in front and a video in the last slot."""
    behaviours = torch.randint(1, 3, (rows, slots)) * exists_of(*torch.randint(1, slots, (rows,)).tolist(), slots=slots)
    behaviours[:, -1] = VIDEO
    return Events(torch.randint(1, items, (rows, slots)) * (behaviours > 0), behaviours)


def test_the_target_is_masked_always_and_other_videos_as_often_as_asked() -> None:
    events = random_events(4000)
    masked = draw_masks(events, 0.3)
    assert (events.behaviours[masked] == VIDEO).all() and masked[:, -1].all()
    videos = events.behaviours[:, :-1] == VIDEO
    assert masked[:, :-1][videos].float().mean() == pytest.approx(0.3, abs=0.03)
    alone = draw_masks(events, 0.0)
    assert alone[:, -1].all() and not alone[:, :-1].any()


def test_masks_hide_the_video_and_the_comments_that_name_it() -> None:
    v, c = VIDEO, COMMENT
    events = Events(torch.tensor([[0, 3, 3, 4, 3, 5, 5]]), torch.tensor([[0, v, c, v, v, c, v]]))
    masked = torch.tensor([[False, True, False, False, False, False, True]])
    hidden = hide(events, masked, MASK)
    # The comment under 3 goes; the same video watched again stays; what the history says of the target stays.
    assert hidden.items.tolist() == [[0, MASK, 0, 4, 3, 5, MASK]]
    assert hidden.behaviours.tolist() == [[0, v, 0, v, v, c, v]]
    assert events.items[0, 1] == 3  # the input is left as it is


# Layers against their equations ----------------------------------------------------------------------------------


def loop_attention(part: Any, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None = None) -> Tensor:
    """[n, d] of the projected `query` [n, d] and `key`, `value` [m, d], one number at a time."""
    size = D // HEADS
    query, key, value = query.detach(), key.detach(), value.detach()
    out = torch.zeros(len(query), D, dtype=query.dtype)
    for head in range(HEADS):
        some = slice(head * size, (head + 1) * size)
        for i in range(len(query)):
            use = [j for j in range(len(key)) if real is None or bool(real[j])]
            scores = [math.exp(float(query[i, some] @ key[j, some]) / math.sqrt(size)) for j in use]
            for score, j in zip(scores, use, strict=True):
                out[i, some] += score / sum(scores) * value[j, some]
    return out


def test_low_rank_attention_is_its_equation() -> None:
    layer = LowRankAttention(hidden_size=D, n_heads=HEADS, slots=J, low_rank=3, dropout=0.0).double()
    assert layer.fewer_keys.weight.shape == (3, J)  # ⌈7 / 3⌉
    hidden, exists = torch.randn(2, J, D, dtype=torch.float64), exists_of(7, 3)
    found = layer(hidden, exists)
    for b in range(2):
        key, value = (torch.zeros(3, D, dtype=torch.float64) for _ in range(2))
        for m in range(3):
            for j in range(J):
                if exists[b, j]:
                    key[m] += layer.fewer_keys.weight[m, j] * layer.key(hidden[b, j])
                    value[m] += layer.fewer_values.weight[m, j] * layer.value(hidden[b, j])
        expected = loop_attention(layer, layer.query(hidden[b]), key, value) * exists[b].unsqueeze(1)
        torch.testing.assert_close(found[b], expected)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_aggregation_is_the_mean_of_each_subsequence(size: int) -> None:
    hidden, exists = torch.randn(3, J, D), exists_of(7, 3, 1)
    exists[0, 5] = False  # a gap, as a hidden comment leaves it
    found, real = aggregate(hidden, exists, size)
    count = math.ceil(J / size)
    assert found.shape == (3, count, D) and real.shape == (3, count)
    for b in range(3):
        for part in range(count):
            end = J - (count - 1 - part) * size  # counted from the end
            there = [j for j in range(max(end - size, 0), end) if exists[b, j]]
            expected = torch.stack([hidden[b, j] for j in there]).mean(dim=0) if there else torch.zeros(D)
            torch.testing.assert_close(found[b, part], expected)
            assert bool(real[b, part]) == bool(there)


def test_attention_of_a_scale_is_its_equation() -> None:
    layer = ScaleAttention(hidden_size=D, n_heads=HEADS, scale=2, dropout=0.0).double()
    hidden, exists = torch.randn(2, J, D, dtype=torch.float64), exists_of(7, 3)
    found = layer(hidden, exists)
    pooled, real = aggregate(hidden, exists, 2)
    for b in range(2):
        query, key, value = layer.query(pooled[b]), layer.key(pooled[b]), layer.value(pooled[b])
        expected = loop_attention(layer, query, key, value, real[b]) * real[b].unsqueeze(1)
        torch.testing.assert_close(found[b], expected)
    assert not found[1, :2].any() and found[1, 2].any()


def make_layer(**changes: Any) -> MultiScaleLayer:
    sizes: dict[str, Any] = {"hidden_size": D, "n_heads": HEADS, "inner_size": 10, "slots": J, "low_rank": 2}
    rates = {"hidden_dropout": 0.0, "attn_dropout": 0.0, "hidden_act": "gelu", "eps": 1e-12}
    return MultiScaleLayer(**{**sizes, **rates, "scales": [2, 3], **changes}).eval()


def test_a_multi_scale_layer_fuses_all_scales_along_the_length() -> None:
    layer = make_layer().double()
    hidden, exists = torch.randn(2, J, D, dtype=torch.float64), exists_of(7, 4)
    found = layer(hidden, exists)
    for b in range(2):
        row, real = hidden[b : b + 1], exists[b : b + 1]
        parts = [layer.fine(row, real)[0], *(scale(row, real)[0] for scale in layer.coarse)]
        stacked = [vector for part in parts for vector in part]  # J + ⌈J/2⌉ + ⌈J/3⌉ vectors
        assert len(stacked) == 7 + 4 + 3
        for j in range(J):
            if not exists[b, j]:
                assert not found[b, j].any()
                continue
            fused = sum(layer.fuse.weight[j, m] * vector for m, vector in enumerate(stacked))
            after = layer.attention_norm(hidden[b, j] + layer.output(fused))
            forward = layer.outer(torch.nn.functional.gelu(layer.inner(after)))
            torch.testing.assert_close(found[b, j], layer.outer_norm(after + forward))


def test_the_gate_is_its_equation() -> None:
    layer, items = SelfGate(D), torch.randn(2, J, D)
    found = layer(items)
    for b, j in np.ndindex(2, J):
        open_ = 1 / (1 + torch.exp(-(layer.gate.weight @ items[b, j] + layer.gate.bias)))
        torch.testing.assert_close(found[b, j], items[b, j] * open_)


@pytest.mark.parametrize(("before", "after"), [(1, 0), (2, 3), (10, 6)])
def test_a_windows_mean_is_of_the_known_nodes_beside_a_slot(before: int, after: int) -> None:
    nodes, known = torch.randn(2, J, D, requires_grad=True), exists_of(7, 3)
    known[0, 3] = known[1, -1] = False  # masked
    found = window_means(nodes, known, before, after)
    for b, j in np.ndindex(2, J):
        near = [i for i in range(max(j - before, 0), min(j + after, J - 1) + 1) if i != j and known[b, i]]
        expected = torch.stack([nodes[b, i] for i in near]).mean(dim=0) if near else torch.zeros(D)
        torch.testing.assert_close(found[b, j], expected)
    found.sum().backward()
    assert nodes.grad is not None and nodes.grad.isfinite().all() and not nodes.grad[~known].any()


def test_similarity_is_the_mean_cosine_of_the_channels() -> None:
    metric = Similarity(hidden_size=D, channels=3).double()
    items = torch.randn(2, J, D, dtype=torch.float64)
    items[1, 0] = 0.0  # padding
    found = metric(items)
    for b, i, j in np.ndindex(2, J, J):
        x, y = (w * items[b, i] for w in metric.weight), (w * items[b, j] for w in metric.weight)
        cosines = [torch.cosine_similarity(p, q, dim=0) for p, q in zip(x, y, strict=True)]
        torch.testing.assert_close(found[b, i, j], sum(cosines) / 3)


def test_semantic_hyperedges_hold_the_most_similar_nodes() -> None:
    exists = exists_of(7, 2)
    similarity = Similarity(hidden_size=D, channels=2)(torch.randn(2, J, D)).detach()
    found = semantic_hyperedges(similarity, exists, 3)
    for b, j in np.ndindex(2, J):
        there = [i for i in range(J) if exists[b, i] and exists[b, j]]
        best = sorted(there, key=lambda i, b=b, j=j: -float(similarity[b, i, j]))[:3]
        for i in range(J):
            expected = max(float(similarity[b, i, j]), 0.0) if i in best else 0.0
            assert float(found[b, i, j]) == pytest.approx(expected)
        assert not there or found[b, j, j] > 0
    everything = semantic_hyperedges(similarity, exists, 50)
    assert torch.equal(everything > 0, (similarity > 0) & exists.unsqueeze(1) & exists.unsqueeze(2))
    # The same item everywhere: the node itself and those beside it.
    equal = semantic_hyperedges(torch.ones(1, J, J), exists_of(J), 1)
    assert torch.equal(equal[0], torch.eye(J))


def test_behaviour_hyperedges_join_an_item_met_under_both_behaviours() -> None:
    v, c = VIDEO, COMMENT
    items = torch.tensor([[0, 4, 5, 4, 6, 6, 4], [0, 0, 0, MASK, MASK, 8, 8]])
    behaviours = torch.tensor([[0, v, v, c, v, v, v], [0, 0, 0, v, c, c, v]])
    found = behaviour_hyperedges(items, behaviours, MASK)
    expected = torch.zeros(2, 7, 7)
    expected[0, [1, 3, 6], 1] = 1.0  # 4; not 5 and 6, which are only watched
    expected[1, [5, 6], 5] = 1.0  # 8; what is masked is of no item
    assert torch.equal(found, expected)


def test_convolution_is_its_equation_and_finite_without_hyperedges() -> None:
    nodes = torch.randn(2, J, D, dtype=torch.float64, requires_grad=True)
    incidence = torch.rand(2, J, 5, dtype=torch.float64) * (torch.rand(2, J, 5) < 0.4)
    incidence[0, 2] = 0.0  # a node without hyperedges
    incidence[1, :, 3] = 0.0  # an empty hyperedge
    incidence.requires_grad_()
    found = hypergraph_convolution(nodes, incidence)
    for b in range(2):
        m = incidence[b]
        for i in range(J):
            expected = torch.zeros(D, dtype=torch.float64)
            for e in range(5):
                if m[:, e].sum() > 0:
                    mean = sum(m[j, e] * nodes[b, j] for j in range(J)) / m[:, e].sum()
                    expected = expected + m[i, e] * mean
            expected = expected / m[i].sum() if m[i].sum() > 0 else torch.zeros(D, dtype=torch.float64)
            torch.testing.assert_close(found[b, i], expected)
    assert not found[0, 2].any()
    found.sum().backward()
    assert nodes.grad is not None and incidence.grad is not None
    assert nodes.grad.isfinite().all() and incidence.grad.isfinite().all()
    nothing = hypergraph_convolution(nodes.detach(), torch.zeros(2, J, 5, dtype=torch.float64))
    assert not nothing.any()


def test_the_views_are_weighted_by_their_attention() -> None:
    layer = CrossViewAggregation(D)
    h, x = torch.randn(2, J, D), torch.randn(2, J, D)
    found = layer(h, x)
    layer.requires_grad_(False)
    for b, j in np.ndindex(2, J):
        scores = [float(layer.weight.weight[0] @ (layer.inner.weight @ view[b, j])) for view in (h, x)]
        alpha = math.exp(scores[0]) / (math.exp(scores[0]) + math.exp(scores[1]))
        torch.testing.assert_close(found[b, j], alpha * h[b, j] + (1 - alpha) * x[b, j])


def test_the_loss_is_the_cross_entropy_of_dot_products() -> None:
    query, keys = torch.randn(5, D, requires_grad=True), torch.randn(9, D, requires_grad=True)
    targets = torch.tensor([0, 3, 3, 8, 1])
    ours, theirs = dot_product_loss(query, keys, targets), torch.nn.functional.cross_entropy(query @ keys.T, targets)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        torch.autograd.grad(ours, [query, keys]), torch.autograd.grad(theirs, [query, keys]), strict=True
    ):
        torch.testing.assert_close(one, other)


# The model -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tiny_config: Make) -> pipeline.Run:
    small = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "scales": [2, 5], "hyperedge_size": 3, "low_rank": 3}
    return pipeline.Run(tiny_config(model="MBHT", **small))


def batch_of(run: pipeline.Run, rows: Any = slice(0, 48)) -> Interaction:
    part = run.dataset.build()[0]
    return part[np.arange(len(part))[rows]]


def test_the_state_of_a_masked_video_in_the_hypergraph_is_that_of_its_neighbours(run: pipeline.Run) -> None:
    model = run.trainer().model.eval()
    v, c = VIDEO, COMMENT
    events = Events(torch.tensor([[0] * 11 + [3, 3, 4, 5, 6, 7]]), torch.tensor([[0] * 11 + [v, c, v, v, v, v]]))
    hidden = hide(events, torch.tensor([[False] * 14 + [True, False, True]]), model.mask_token)
    views: list[Tensor] = []
    model.aggregation.register_forward_pre_hook(lambda layer, given: views.append(given[1][0]))
    with torch.no_grad():
        model.encode(hidden)
        model.item_embedding.weight[model.mask_token] += 5.0
        model.encode(hidden)
    view, known = views[0], [11, 12, 13, 15]
    for masked in (14, 16):
        torch.testing.assert_close(view[masked], view[known].mean(dim=0))
    assert torch.equal(views[1][11:], view[11:])  # what the mask token is, nobody there sees


def test_the_states_after_each_convolution_are_averaged(tiny_config: Make) -> None:
    views: list[Tensor] = []
    v, events = VIDEO, torch.tensor([[0] * 11 + [3, 4, 5, 3, 6, 7]])
    for layers in (1, 2):
        model = (
            pipeline.Run(tiny_config(model="MBHT", hidden_size=8, n_hypergraph_layers=layers)).trainer().model.eval()
        )
        model.aggregation.register_forward_pre_hook(lambda layer, given: views.append(given[1]))
        with torch.no_grad():
            model.encode(Events(events, torch.where(events > 0, v, 0)))
    once, both = (view[0, 11:] for view in views)
    nodes = model.gate(model.item_embedding(events)).detach()
    incidence = torch.cat(
        [
            semantic_hyperedges(model.similarity(nodes), events > 0, model.hyperedge_size).detach(),
            behaviour_hyperedges(events, torch.where(events > 0, v, 0), model.mask_token),
        ],
        dim=2,
    )
    first = hypergraph_convolution(nodes, incidence)
    second = hypergraph_convolution(first, incidence)
    torch.testing.assert_close(once, first[0, 11:])
    torch.testing.assert_close(both, (first + second)[0, 11:] / 2)
    assert (both - once).abs().max() > 1e-6


def test_predict_and_full_sort_agree_and_a_row_does_not_depend_on_its_batch(run: pipeline.Run) -> None:
    model, batch = run.trainer().model.eval(), batch_of(run)
    assert isinstance(model, MBHT) and model.max_events == 16
    with torch.no_grad():
        scores, single = model.full_sort_predict(batch), model.predict(batch)
        assert scores.shape == (len(batch), model.n_items) and not scores[:, 0].any()
        torch.testing.assert_close(single, scores.gather(1, batch["item_id"][:, None]).squeeze(1))
        order = torch.randperm(len(batch))
        torch.testing.assert_close(model.full_sort_predict(batch[order]), scores[order], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.full_sort_predict(batch[order[:3]]), scores[order[:3]], rtol=1e-4, atol=1e-6)


def test_neither_the_target_nor_padding_is_read(run: pipeline.Run) -> None:
    model, batch = run.trainer().model.eval(), batch_of(run)
    other = Interaction({name: value.clone() for name, value in batch.interaction.items()})
    other["item_id"].fill_(1)
    other["timestamp"].fill_(0.0)
    for name, items in (("video_time_list", "item_id_list"), ("record_time_list", "record_item_list")):
        other[name][other[items] == 0] = 9e9
    assert (batch["record_item_list"] == 0).all(dim=1).any(), "users without comments are among them"
    with torch.no_grad():
        assert torch.equal(model.full_sort_predict(batch), model.full_sort_predict(other))
        events = model.events(batch)
        before = model.encode(append_video(events, torch.full((len(batch),), model.mask_token)))
        # What the embeddings of padding were would not matter either.
        for table in (model.item_embedding, model.behaviour_embedding):
            table.weight[0] = 5.0
        after = model.encode(append_video(events, torch.full((len(batch),), model.mask_token)))
    there = torch.cat([events.items > 0, torch.ones(len(batch), 1, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(after[there], before[there])


def test_the_loss_is_of_masked_videos_whose_ids_are_not_in_the_input(
    run: pipeline.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = run.trainer().model.eval(), batch_of(run)
    seen: list[Events] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda events: seen.append(events) or encode(events))
    loss = model.calculate_loss(batch)
    hidden, whole = seen[0], append_video(model.events(batch), batch["item_id"])
    masked = hidden.items == model.mask_token
    assert masked.any(dim=1).all() and (whole.behaviours[masked] == VIDEO).all()
    kept = ~masked & (hidden.items > 0)
    assert torch.equal(hidden.items[kept], whole.items[kept])
    logits = encode(hidden)[masked] @ model.item_embedding.weight[: model.n_items].T
    logits[:, 0] = -math.inf
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, whole.items[masked]))


def test_gradients_reach_every_parameter(run: pipeline.Run) -> None:
    model = run.trainer().model.train()
    model.calculate_loss(batch_of(run, slice(None))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    for table in (model.item_embedding, model.behaviour_embedding):
        assert not table.weight.grad[0].any()


def test_a_few_instances_can_be_learned_by_heart(tiny_config: Make) -> None:
    still = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "mask_ratio": 0.0}
    run = pipeline.Run(tiny_config(model="MBHT", hidden_size=32, inner_size=64, n_layers=1, **still))
    model, batch = run.trainer().model, batch_of(run, slice(0, 24))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
    with torch.no_grad():
        best = model.eval().full_sort_predict(batch)[:, 1:].argmax(dim=1) + 1
    assert (best == batch["item_id"]).float().mean() > 0.9


def test_the_order_of_the_two_behaviours_is_read(run: pipeline.Run) -> None:
    model, batch = run.trainer().model.eval(), batch_of(run, slice(None))
    later = Interaction({name: value.clone() for name, value in batch.interaction.items()})
    later["record_time_list"] += 1e9  # all comments after all videos
    before, after = model.events(batch), model.events(later)
    changed = ((before.items != after.items) | (before.behaviours != after.behaviours)).any(dim=1)
    with torch.no_grad():
        difference = (model.full_sort_predict(batch) - model.full_sort_predict(later)).abs().amax(dim=1)
    assert changed.any() and (difference[changed] > 1e-6).all() and not difference[~changed].any()


def test_a_shorter_sequence_is_asked_for_by_max_events(tiny_config: Make, tmp_path: Path) -> None:
    changes = {"max_events": 3, "epochs": 2, "hidden_size": 8, "inner_size": 16, "report_phases": ["test"]}
    run = pipeline.run(tiny_config(model="MBHT", **changes))
    assert run is not None and run["phases"]["test"]["protocols"]["all+full"]["instances"] > 0
    again = pipeline.run(tiny_config(model="MBHT", output=str(tmp_path / "again"), **changes))
    assert again is not None and again["phases"] == run["phases"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_events": 0},
        {"low_rank": 0},
        {"scales": []},
        {"scales": [0, 4]},
        {"n_hypergraph_layers": 0},
        {"hyperedge_size": 0.5},
        {"metric_channels": 0},
        {"mask_ratio": 1.5},
        {"window_before": 0},
        {"window_after": -1},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_a_wrong_value_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = .* is not accepted"):
        load_config(None, {"dataset": "lsvcr-sample", "model": "MBHT", **wrong})


def test_other_models_know_neither_its_keys_nor_its_times(tiny_config: Make) -> None:
    with pytest.raises(ConfigError, match="unknown configuration key 'low_rank'"):
        tiny_config(model="SASRec", low_rank=2)
    assert "video_time_list" not in batch_of(pipeline.Run(tiny_config(model="LSVCR")), slice(0, 2)).interaction


def test_another_data_set_is_refused(run: pipeline.Run) -> None:
    with pytest.raises(DataError, match="MBHT reads the joint data set"):
        MBHT(run.config, SimpleNamespace(num=lambda field: 3))
