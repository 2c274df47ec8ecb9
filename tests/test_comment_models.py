"""Every comment model: trains, learns, ignores padding and batch order, and is ranked like any other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import recbole.model.context_aware_recommender as family
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import ContextRecommender
from recbole_models import names
from torch.utils.checkpoint import checkpoint

from recbole_lsvcr.data.dataset import CANDIDATES, COMMENT_ID
from recbole_lsvcr.encoding import language_model
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.pipeline import Run
from recbole_lsvcr.scorer import scorer_of

LEARNING = [
    "LSVCRComment",
    "CommentDSSM",
    "CommentGRU",
    "CommentATT",
    "CommentMHA",
    "CommentZAM",
    "CommentTEM",
]
RECBOLE = names(family, ContextRecommender)
RULES = ["CommentPop", "CommentNewest", "CommentTextSim"]


@pytest.fixture
def make_run(tiny_config: Callable[..., Any], tmp_path: Any) -> Callable[..., Run]:
    def make(model: str = "LSVCRComment", **changes: Any) -> Run:
        store = str(tmp_path / "store")
        return Run(tiny_config(model=model, text_store=store, output=str(tmp_path / model), **changes))

    return make


def model_of(run: Run) -> tuple[Any, Interaction]:
    """A model in evaluation mode and a training batch."""
    run.encode()
    train, _, _ = run.loaders
    return run.trainer().model.eval(), next(iter(train))


def chosen(rows: Interaction, order: Any) -> Interaction:
    return Interaction({name: rows[name][order] for name in rows.columns})


def changed(rows: Interaction, **columns: torch.Tensor) -> Interaction:
    return Interaction({**{name: rows[name] for name in rows.columns}, **columns})


def test_recbole_has_these() -> None:
    assert len(RECBOLE) == 18 and {"FM", "DeepFM", "AutoInt", "KD_DAGFM"} < set(RECBOLE)


@pytest.mark.parametrize("model", [*LEARNING, *RULES, *RECBOLE])
def test_all_stages(make_run, model):
    report = (run := make_run(model, epochs=2)) and _all(run)
    protocols = report["phases"]["test"]["protocols"]
    assert list(protocols) == ["available+uniform", "available+full"]
    for found in protocols.values():
        assert found["instances"] + found["left_out"] + found["too_long"] == len(run.loaders[2].dataset)
        assert 0 < found["metrics"]["recall@5"] <= found["metrics"]["recall@10"] <= 1
        assert all(np.isfinite(value) for value in found["metrics"].values())
    assert report["task"] == "comment"


def _all(run: Run) -> dict[str, Any]:
    run.encode()
    run.finetune()
    return run.evaluate()


@pytest.mark.parametrize("model", LEARNING)
def test_gradients_reach_every_parameter(make_run, model):
    run = make_run(model)
    net, batch = model_of(run)
    batch = changed(batch, item_length=batch["item_length"].index_fill(0, torch.arange(3), 0))  # some empty
    loss = net.calculate_loss(batch)
    (sum(loss) if isinstance(loss, tuple) else loss).backward()
    missing = {name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum()}
    expected = set()
    if model == "LSVCRComment":
        expected = {f"sr.{name}" for name, _ in net.sr.named_parameters()}
        expected -= {f"sr.{name}" for name in net.sr.trained_parameters("comment")}
    assert missing == expected


@pytest.mark.parametrize("model", LEARNING)
def test_a_small_batch_is_learnt_by_heart(make_run, model):
    run = make_run(model, hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    net, batch = model_of(run)
    batch = chosen(batch, torch.arange(8))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    first = None
    for _ in range(150):
        loss = net.calculate_loss(batch)
        loss = loss[0] if isinstance(loss, tuple) else loss
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first


@pytest.mark.parametrize("model", [*LEARNING, *RULES])
def test_padding_and_order_change_nothing(make_run, model):
    run = make_run(model)
    net, batch = model_of(run)
    candidates = batch[CANDIDATES]
    with torch.no_grad():
        scores = net.score_candidates(batch, candidates)
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
        turned = net.score_candidates(chosen(batch, order), candidates[order])
        pad = torch.nn.functional.pad
        names = ("record_item_list", "item_id_list", "video_comment_list")
        columns = {name: pad(batch[name], (0, 2)) for name in names if name in batch.columns}
        if "record_comment_list" in batch.columns:
            columns["record_comment_list"] = pad(batch["record_comment_list"], (0, 1, 0, 2))
        wide = changed(batch, **columns)
        padded = net.score_candidates(wide, pad(candidates, (0, 3)))[:, : candidates.shape[1]]
        some = chosen(batch, torch.arange(5))
        few = net.score_candidates(some, candidates[:5])
        single = net.predict(some)
    real = candidates > 0
    torch.testing.assert_close(turned[real[order]], scores[order][real[order]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[real], scores[real], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(few[real[:5]], scores[:5][real[:5]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single, scores[:5, 0], rtol=1e-4, atol=1e-5)  # `comment_id` is the positive


@pytest.mark.parametrize("model", LEARNING)
def test_users_without_records_are_ranked_by_what_is_learnt(make_run, model):
    run = make_run(model)
    net, batch = model_of(run)
    names = ("record_comment_list", "record_item_list", "record_length")
    empty = changed(batch, **{name: torch.zeros_like(batch[name]) for name in names})
    scores = net.score_candidates(empty, batch[CANDIDATES])
    assert scores.isfinite().all()
    assert scores.std() > 0


@pytest.mark.parametrize("video_context", [True, False])
def test_video_context_off_hides_the_videos(make_run, video_context):
    net, batch = model_of(make_run("LSVCRComment", video_context=video_context))
    other = changed(batch, item_id_list=batch["item_id_list"].roll(1, 0))
    with torch.no_grad():
        assert torch.allclose(net.predict(other), net.predict(batch), rtol=1e-4) is not video_context


def test_rows_of_recboles_own_models_carry_the_right_labels(make_run):
    run = make_run("FM")
    train, _, _ = run.loaders
    batch = next(iter(train))
    assert set(batch.columns) == {"user_id", "item_id", "timestamp", COMMENT_ID, "label", "tags"}
    joint = run.dataset.joint
    positive = batch["label"] == 1
    touched = set(zip(joint.tables.cinter_user.tolist(), joint.tables.cinter_comment.tolist(), strict=True))
    pairs = list(zip(batch["user_id"].tolist(), batch[COMMENT_ID].tolist(), strict=True))
    assert all(pair in touched for pair, own in zip(pairs, positive.tolist(), strict=True) if own)
    assert not any(pair in touched for pair, own in zip(pairs, positive.tolist(), strict=True) if not own)


def test_a_batch_without_any_candidate_is_scored(make_run):
    run = make_run("FM")
    test = run.loaders[2]
    scorer = scorer_of(run.trainer().model.eval(), run.dataset, torch.device("cpu"))
    batch = run.dataset.joint.gather("comment", test.dataset.rows[:2], training=False)
    assert scorer.score_candidates(batch, torch.zeros(2, 3, dtype=torch.int64)).tolist() == [[0.0] * 3] * 2


def test_zam_without_a_history_ranks_by_the_query_alone(make_run):
    net, batch = model_of(make_run("CommentZAM"))
    empty = changed(batch, record_length=torch.zeros_like(batch["record_length"]))
    empty = changed(empty, record_comment_list=torch.zeros_like(batch["record_comment_list"]))
    with torch.no_grad():
        titles = net.text.vectors("title", batch["item_id"])
        comments = net.text.vectors("comment", batch[COMMENT_ID])
        torch.testing.assert_close(net.predict(empty), (titles * comments).sum(dim=1))


def test_trainable_text_learns_and_caches(make_run, tiny_lm, monkeypatch):
    run = make_run("CommentATT", trainable_text=str(tiny_lm))
    assert run.encode() is None, "nothing reads the text store"
    net, batch = model_of(run)
    loss = net.train().calculate_loss(batch)
    loss.backward()
    assert all(weight.grad is not None for weight in net.parameters() if weight.requires_grad)
    net.eval()
    with torch.no_grad():
        first = net.predict(batch)
        monkeypatch.setattr(type(net.text), "_encode", lambda *_: pytest.fail("a known text was encoded again"))
        torch.testing.assert_close(net.predict(batch), first)


def test_trainable_text_keeps_no_activations_of_its_batches(make_run, tiny_lms, monkeypatch):
    """Batch by batch again for the gradients: the same ones, dropout and all, in float32 wherever it runs."""
    arguments = []

    def recorded(function, *given, **options):
        arguments.append(given)
        return checkpoint(function, *given, **options)

    monkeypatch.setattr(language_model, "checkpoint", recorded)
    gradients, sizes = [], []
    for recompute in (True, False):
        net, batch = model_of(make_run("CommentATT", trainable_text=str(tiny_lms["bert"])))
        assert {weight.dtype for weight in net.parameters()} == {torch.float32}
        net.text.encoder.batch_tokens = 32
        drop = [part for part in net.text.encoder.model.modules() if isinstance(part, torch.nn.Dropout)]
        assert any(part.p > 0 for part in drop)
        states = net.text.encoder.states
        net.text.encoder.states = partial(partial_states, states, recompute)
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes[-1].append(kept.nbytes) or kept, lambda x: x):
            sizes.append([])
            loss = net.train().calculate_loss(batch)
        loss.backward()
        gradients.append({name: weight.grad for name, weight in net.named_parameters() if weight.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)
    assert sum(sizes[0]) < sum(sizes[1]) / 5
    # On a GPU dropout is the GPU's, whose state is kept for tensors only.
    assert len(arguments) > 1
    assert all(isinstance(given[0], torch.Tensor) for given in arguments)


def partial_states(states, wanted, ids, *, recompute):
    assert recompute, "training recomputes"
    return states(ids, recompute=wanted)


def test_trainable_text_must_have_weights(make_run):
    with pytest.raises(ConfigError, match="without weights to train"):
        model_of(make_run("CommentATT", trainable_text="hashing"))
