"""UniSRec: its adaptor against the equations, what its scores may depend on, and a run from text to ranking."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_heart import quality_on_training
from conftest import Make
from recbole.data.interaction import Interaction

from recbole_lsvcr.errors import ConfigError, DataError
from recbole_lsvcr.model.layers import keep_mask
from recbole_lsvcr.model.unisrec import MoEAdaptor, UniSRec
from recbole_lsvcr.pipeline import Run

SMALL = {"hidden_size": 16, "inner_size": 32, "n_layers": 1, "n_experts": 4}
STILL = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "adaptor_dropout_prob": 0.0}
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tiny_config: Make, tmp_path: Any) -> MakeRun:
    def make(**changes: Any) -> Run:
        return Run(tiny_config(**{"model": "UniSRec", "text_store": str(tmp_path / "store"), **SMALL, **changes}))

    return make


def model_of(run: Run) -> tuple[UniSRec, Interaction]:
    """A model in evaluation mode, its weights large enough for differences to show, and a training batch."""
    run.encode()
    net = run.trainer().model.eval()
    with torch.no_grad():
        for weight in net.adaptor.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    return net, next(iter(run.loaders[0]))


def changed(rows: Interaction, **columns: torch.Tensor) -> Interaction:
    return Interaction({**{name: rows[name] for name in rows.columns}, **columns})


def scores_of(net: UniSRec, rows: Interaction) -> torch.Tensor:
    with torch.no_grad():
        return net.full_sort_predict(rows)


def by_the_equations(net: MoEAdaptor, x: np.ndarray, noise: np.ndarray | None, mask: np.ndarray) -> np.ndarray:
    """v [d] of one text vector [H], expert by expert; `noise` [G] are draws of N(0, 1), None outside training."""
    b, w1, w2, w3 = (part.detach().double().numpy() for part in (net.bias, net.whitening, net.gate, net.noise))
    logits = []
    for k in range(len(b)):
        logit = sum(x[h] * w2[h, k] for h in range(len(x)))
        if noise is not None:
            logit += noise[k] * math.log1p(math.exp(sum(x[h] * w3[h, k] for h in range(len(x)))))
        logits.append(logit)
    total = sum(math.exp(logit) for logit in logits)
    v = np.zeros(w1.shape[2])
    for k, logit in enumerate(logits):
        for j in range(len(v)):
            whitened = sum((mask[h] * x[h] - b[k, h]) * w1[h, k, j] for h in range(len(x)))
            v[j] += math.exp(logit) / total * whitened
    return v


@pytest.mark.parametrize("training", [False, True])
def test_the_adaptor_is_the_equations_written_out(training: bool) -> None:
    torch.manual_seed(3)
    net = MoEAdaptor(text_size=6, hidden_size=5, n_experts=3, dropout=0.4, initializer_range=0.5).train(training)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn_like(weight))
    x = torch.randn(7, 6)
    torch.manual_seed(11)
    found = net(x).detach().numpy()
    torch.manual_seed(11)
    noise = torch.randn(7, 3).double().numpy()
    mask = keep_mask(x.shape, 0.4, x).double().numpy() if training else np.ones(x.shape)
    assert not training or 0 < (mask == 0).sum() < mask.size
    for row in range(7):
        wanted = by_the_equations(net, x[row].double().numpy(), noise[row] if training else None, mask[row])
        np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transductive", [False, True])
def test_gradients_reach_every_parameter(make_run: MakeRun, transductive: bool) -> None:
    net, batch = model_of(make_run(transductive=transductive))
    net.train()
    net.calculate_loss(batch).backward()
    missing = {name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum()}
    # A softmax cancels a bias of the keys; what is left of its gradient is rounding.
    assert missing <= {name for name, _ in net.named_parameters() if name.endswith("key.bias")}
    assert ("id_embedding.weight" in dict(net.named_parameters())) == transductive


@pytest.mark.parametrize("transductive", [False, True])
def test_padding_and_order_change_nothing(make_run: MakeRun, transductive: bool) -> None:
    net, batch = model_of(make_run(transductive=transductive, MAX_ITEM_LIST_LENGTH=12))
    scores = scores_of(net, batch)
    assert scores.std(dim=1).min() > 0.1
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    shuffled = Interaction({name: batch[name][order] for name in batch.columns})
    torch.testing.assert_close(scores_of(net, shuffled), scores[order], atol=1e-4, rtol=1e-4)
    short = (batch["item_length"] <= 8).nonzero().squeeze(1)
    assert len(short) > 10
    rows = Interaction({name: batch[name][short] for name in batch.columns})
    cut = changed(rows, item_id_list=rows["item_id_list"][:, :8])
    torch.testing.assert_close(scores_of(net, cut), scores[short], atol=1e-4, rtol=1e-4)


def test_what_comes_later_is_not_seen_and_what_came_before_is(make_run: MakeRun) -> None:
    net, batch = model_of(make_run())
    items, length = batch["item_id_list"], batch["item_length"]
    rows = (length >= 4).nonzero().squeeze(1)
    early = changed(batch, item_length=torch.full_like(length, 3))
    before = scores_of(net, early)[rows]
    later = items.clone()
    later[:, 3:] = torch.where(later[:, 3:] > 0, later[:, 3:] % (net.n_items - 1) + 1, 0)
    torch.testing.assert_close(scores_of(net, changed(early, item_id_list=later))[rows], before)
    for place in range(3):
        other = items.clone()
        other[:, place] = other[:, place] % (net.n_items - 1) + 1
        assert not torch.allclose(scores_of(net, changed(early, item_id_list=other))[rows], before, atol=1e-2)


@pytest.mark.parametrize("transductive", [False, True])
def test_predict_is_a_column_of_the_full_ranking(make_run: MakeRun, transductive: bool) -> None:
    net, batch = model_of(make_run(transductive=transductive))
    full = scores_of(net, batch)
    assert full.shape == (len(batch), net.n_items) and full.abs().max() <= 1 / 0.07 + 1e-3
    with torch.no_grad():
        for item in range(net.n_items):
            found = net.predict(changed(batch, item_id=torch.full_like(batch["item_id"], item)))
            torch.testing.assert_close(found, full[:, item], atol=1e-4, rtol=1e-4)


def test_an_evaluation_makes_the_items_once_and_again_after_a_step(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = model_of(make_run())
    made = []
    make = net._make_items
    monkeypatch.setattr(net, "_make_items", lambda: made.append(1) or make())
    before = scores_of(net, batch)
    scores_of(net, batch)
    with torch.no_grad():
        net.predict(batch)
    assert len(made) == 1
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    net.calculate_loss(batch).backward()
    optimizer.step()
    after = scores_of(net, batch)
    assert len(made) == 3 and not torch.allclose(before, after)
    fresh = make_run().trainer().model.eval()
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(scores_of(fresh, batch), after)


@pytest.mark.parametrize("transductive", [False, True])
def test_a_video_unseen_in_training_is_scored_by_its_text_alone(make_run: MakeRun, transductive: bool) -> None:
    run = make_run(transductive=transductive)
    net, batch = model_of(run)
    unseen, other = np.flatnonzero(run.dataset.joint.train_item_count[1:] == 0)[:2] + 1
    before = scores_of(net, batch)
    net.titles[unseen] = net.titles[other]
    net._ranking = None
    found = scores_of(net, batch)
    torch.testing.assert_close(found[:, unseen], before[:, other])
    assert before[:, unseen].std() > 0.1 and not torch.allclose(before[:, unseen], before[:, other], atol=1e-2)
    with torch.no_grad():  # written out
        sequence = net(batch["item_id_list"], batch["item_length"], net.items())
        vector = net.adaptor(net.titles[[unseen]])
    torch.testing.assert_close(found[:, unseen], torch.cosine_similarity(sequence, vector) / 0.07)


def test_an_empty_title_has_the_zero_vector(make_run: MakeRun) -> None:
    net, batch = model_of(make_run())
    empty = int(batch["item_id_list"][0, 0])
    net.titles[empty] = 0.0
    scores = scores_of(net, batch)
    assert (scores[:, [0, empty]] == 0).all() and torch.isfinite(scores).all()
    with torch.no_grad():  # in training too, whatever noise and dropout draw
        items = net.train().items()
    assert (items[[0, empty]] == 0).all() and (items != 0).any(dim=1).sum() == net.n_items - 2


def test_an_id_that_training_never_saw_takes_no_part(make_run: MakeRun) -> None:
    run = make_run(transductive=True)
    net, batch = model_of(run)
    assert net.id_embedding is not None
    assert (net.seen.numpy() == (run.dataset.joint.train_item_count > 0)).all()
    unseen = int(batch["item_id_list"][0, 0])  # a video of the batch's histories
    net.seen[unseen] = False
    before = scores_of(net, batch)
    with torch.no_grad():
        net.id_embedding.weight[unseen] += 5.0
    torch.testing.assert_close(scores_of(net, batch), before)
    with torch.no_grad():
        text = net.adaptor(net.titles)
        torch.testing.assert_close(net.items()[unseen], text[unseen])
    loss = net.calculate_loss(batch)
    loss.backward()
    assert net.id_embedding.weight.grad is not None and not net.id_embedding.weight.grad[[0, unseen]].any()
    with torch.no_grad():
        net.id_embedding.weight[int(batch["item_id"][0])] += 5.0
    assert not torch.allclose(scores_of(net, batch), before, atol=1e-2)
    alone = make_run().trainer().model.eval()
    alone.load_state_dict({name: value for name, value in net.state_dict().items() if name != "id_embedding.weight"})
    assert not torch.allclose(scores_of(alone, batch), before, atol=1e-2)


@pytest.mark.parametrize("offered", ["all", "seen"])
def test_the_loss_is_the_cross_entropy_over_the_items_offered(make_run: MakeRun, offered: str) -> None:
    net, batch = model_of(make_run(train_candidates=offered, **STILL))
    net.seen[batch["item_id"][0]] = False  # a target is a candidate whatever it is
    net.seen[40:] = False
    rows = Interaction({name: batch[name][[0]] for name in batch.columns})
    logits = scores_of(net, rows)
    left_out = torch.arange(net.n_items) == 0
    if offered == "seen":
        left_out |= ~net.seen & (torch.arange(net.n_items) != rows["item_id"])
    wanted = F.cross_entropy(logits.masked_fill(left_out, -torch.inf), rows["item_id"])
    torch.testing.assert_close(net.calculate_loss(rows), wanted, atol=1e-5, rtol=1e-4)


def test_fifty_users_can_be_learned_by_heart(make_run: MakeRun) -> None:
    run = make_run(**STILL, hidden_size=32, transductive=True, learning_rate=0.005, epochs=80, eval_step=80)
    assert quality_on_training(run) > 0.7


@pytest.mark.parametrize("transductive", [False, True])
def test_all_stages_and_again_with_the_same_result(make_run: MakeRun, tmp_path: Any, transductive: bool) -> None:
    settings = {"transductive": transductive, "n_experts": 2, "adaptor_dropout_prob": 0.1, "temperature": 0.1}
    reports = []
    for name in ("one", "other"):
        run = make_run(**settings, train_candidates="seen", output=str(tmp_path / name), epochs=2)
        run.encode()
        run.finetune()
        reports.append(run.evaluate()["phases"])
    for found in reports[0]["test"]["protocols"].values():
        assert found["instances"] > 0 and all(np.isfinite(value) for value in found["metrics"].values())
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("transductive", "inductive", "True, False"),
        ("n_experts", 0, ">= 1"),
        ("adaptor_dropout_prob", 2, "0 to 1"),
        ("train_candidates", "some", "all, seen"),
        ("temperature", 0, "> 0"),
    ],
)
def test_a_setting_that_is_not_accepted_is_named(tiny_config: Make, key: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        tiny_config(model="UniSRec", **{key: value})
    assert told in str(caught.value)


def test_a_key_it_does_not_read_is_unknown(tiny_config: Make) -> None:
    for key in ("n_exps", "loss_type", "train_stage"):
        with pytest.raises(ConfigError, match=f"unknown configuration key '{key}'"):
            tiny_config(model="UniSRec", **{key: "x"})


def test_another_data_set_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(DataError, match="UniSRec reads the joint data set"):
        UniSRec(make_run().config, SimpleNamespace(num=lambda field: 4))
