"""DMT: its equations as slow loops, its scores whichever way they are asked for, its training and its runs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import Make
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_lsvcr import pipeline, trainer
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.model.dmt import DMT, InterestTransformer, MixtureOfExperts
from recbole_lsvcr.scorer import RecBoleScorer, VideoCandidateScorer, scorer_of

SMALL: dict[str, Any] = {
    "model": "DMT",
    "hidden_size": 12,
    "attribute_size": 4,
    "inner_size": 16,
    "n_experts": 3,
    "expert_sizes": [10, 6],
    "tower_size": 5,
    "video_negatives": 4,
    "initializer_range": 0.2,
}
STILL = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


@pytest.fixture
def run(tiny_config: Make) -> pipeline.Run:
    return pipeline.Run(tiny_config(**SMALL, decoder_layers=2))


@pytest.fixture
def model(run: pipeline.Run) -> DMT:
    made = run.trainer().model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases of 0 and norms that do nothing would hide one that is left out
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def batch_of(run: pipeline.Run, phase: int = 2, size: int = 24) -> Interaction:
    part = run.dataset.of_phase(phase)
    return part[torch.linspace(0, len(part) - 1, min(size, len(part))).long().numpy()]


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def block(layer: Any, query: Tensor, steps: list[Tensor]) -> Tensor:
    """One query [d] against some steps: attention head by head, then the feed-forward network."""
    size, heads = layer.attention.hidden_size, layer.attention.n_heads
    weights, biases = layer.attention.projection.weight.split(size), layer.attention.projection.bias.split(size)
    q = weights[0] @ query + biases[0]
    keys, values = ([weights[i] @ step + biases[i] for step in steps] for i in (1, 2))
    context = []
    for first in range(0, size, size // heads):
        part = slice(first, first + size // heads)
        scores = [math.exp(float(q[part] @ key[part]) / math.sqrt(size // heads)) for key in keys]
        context.append(sum(s / sum(scores) * value[part] for s, value in zip(scores, values, strict=True)))
    hidden = norm(layer.attention_norm, query + affine(layer.attention.output, torch.cat(context)))
    return norm(layer.outer_norm, hidden + affine(layer.outer, affine(layer.inner, hidden).relu()))


def interest(transformer: InterestTransformer, history: list[Tensor], candidate: Tensor) -> Tensor:
    steps = [step + transformer.positions.weight[place] for place, step in enumerate(history)]
    for layer in transformer.encoder:
        steps = [block(layer, step, steps) for step in steps]
    for layer in transformer.decoder:
        candidate = block(layer, candidate, steps)
    return candidate


def mixed(mixture: MixtureOfExperts, x: Tensor) -> Tensor:
    shares = [math.exp(float(value)) for value in affine(mixture.gate, x)]
    total = torch.zeros(1)
    for share, expert in zip(shares, mixture.experts, strict=True):
        hidden = x
        for layer in expert:
            if isinstance(layer, nn.Linear):
                hidden = affine(layer, hidden).relu()
        total = total + share / sum(shares) * hidden
    return affine(mixture.tower[2], affine(mixture.tower[0], total).relu())[0]


def video_vector(run: pipeline.Run, model: DMT, item: int) -> Tensor:
    tags = [tag for tag in run.dataset.item_feat["tags"][item].tolist() if tag]
    table = model.items.attributes[0].weight
    mean = torch.stack([table[tag] for tag in tags]).mean(dim=0) if tags else torch.zeros(4)
    return torch.cat([model.items.ids.weight[item], mean]) * math.sqrt(12)


@torch.no_grad()
def test_scores_are_those_of_the_equations(run: pipeline.Run, model: DMT) -> None:
    batch = batch_of(run, size=6)
    batch["record_length"][0] = 0  # a user without records: one step, the zero vector
    batch["record_item_list"][0] = 0
    candidates = torch.tensor([[3, 17, 40]]).expand(len(batch), -1)
    found = model.score_candidates(batch, candidates)
    vectors = [video_vector(run, model, item) for item in range(run.dataset.item_num)]
    torch.testing.assert_close(model.items(torch.arange(len(vectors))), torch.stack(vectors))
    assert not vectors[0].any()
    for row in range(len(batch)):
        for column, item in enumerate(candidates[row].tolist()):
            users = []
            for transformer, items, length in (
                (model.watched, "item_id_list", "item_length"),
                (model.commented, "record_item_list", "record_length"),
            ):
                ids = batch[items][row, : max(int(batch[length][row]), 1)].tolist()
                users.append(interest(transformer, [vectors[i] for i in ids], vectors[item]))
            expected = mixed(model.mixture, torch.cat([*users, vectors[item]]))
            assert float(found[row, column]) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)


def test_the_loss_is_the_papers_or_the_softmax(run: pipeline.Run, model: DMT) -> None:
    batch = batch_of(run, 0)
    target = batch["item_id"]
    torch.manual_seed(3)
    negatives = model.draw_negatives(target)
    logits = model.score_candidates(batch, torch.cat([target[:, None], negatives], dim=1)).double()
    torch.manual_seed(3)
    bce = model.calculate_loss(batch)
    expected = -(logits[:, 0].sigmoid().log().sum() + (1 - logits[:, 1:].sigmoid()).log().sum()) / logits.numel()
    torch.testing.assert_close(bce.double(), expected, rtol=1e-5, atol=1e-7)
    model.train_loss = "softmax"
    torch.manual_seed(3)
    expected = -logits.softmax(dim=1)[:, 0].log().mean()
    torch.testing.assert_close(model.calculate_loss(batch).double(), expected, rtol=1e-5, atol=1e-7)


def test_negatives_are_other_videos_of_the_training_period_and_all_of_them(run: pipeline.Run, model: DMT) -> None:
    seen = set(run.dataset.seen_items.nonzero()[0].tolist())
    assert 0 not in seen and set(run.dataset.of_phase(0).flat_columns()["item_id"].tolist()) <= seen
    model.negatives = 50
    for target in (min(seen), max(seen), sorted(seen)[len(seen) // 2]):
        torch.manual_seed(0)
        drawn = model.draw_negatives(torch.full((100,), target))
        assert drawn.shape == (100, 50) and set(drawn.flatten().tolist()) == seen - {target}
        counts = drawn.flatten().bincount()[list(seen - {target})]
        assert counts.min() > 0.5 * counts.float().mean() and counts.max() < 1.6 * counts.float().mean()
        torch.manual_seed(0)
        assert torch.equal(drawn, model.draw_negatives(torch.full((100,), target)))


@pytest.mark.parametrize("pairs", [1, 24, 24 * 7 + 5, 24 * 50, 10**9])
def test_scores_do_not_depend_on_how_many_are_made_at_once(run: pipeline.Run, model: DMT, pairs: int) -> None:
    batch = batch_of(run)
    whole = model.full_sort_predict(batch)
    widest: list[int] = []
    model.mixture.register_forward_pre_hook(lambda _, inputs: widest.append(inputs[0].shape[:2].numel()))
    model.pairs_at_once = pairs
    found = model.full_sort_predict(batch)
    assert max(widest) <= max(pairs, len(batch))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)


def test_every_way_to_ask_gives_the_same_score(run: pipeline.Run, model: DMT) -> None:
    batch = batch_of(run)
    scores = model.full_sort_predict(batch)
    assert scores.shape == (len(batch), run.dataset.item_num)
    assert (scores[:, 0] == -math.inf).all() and scores[:, 1:].isfinite().all()
    own = scores.gather(1, batch["item_id"][:, None]).squeeze(1)
    torch.testing.assert_close(model.predict(batch), own, rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    items = torch.randint(1, run.dataset.item_num, (len(batch), 11))
    torch.testing.assert_close(model.score_candidates(batch, items), scores.gather(1, items), rtol=1e-5, atol=1e-6)


def test_padding_the_batch_and_its_order_change_nothing(run: pipeline.Run, model: DMT) -> None:
    batch = batch_of(run)
    whole = model.full_sort_predict(batch)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.full_sort_predict(batch[order]), whole[order], rtol=1e-5, atol=1e-6)
    alone = torch.cat([model.full_sort_predict(batch[row : row + 1]) for row in range(len(batch))])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)
    for items, length in (("item_id_list", "item_length"), ("record_item_list", "record_length")):
        behind = torch.arange(batch[items].shape[1]) >= batch[length].clamp(min=1)[:, None]
        assert behind.any()
        batch.update(Interaction({items: batch[items].masked_fill(behind, 5)}))
    torch.testing.assert_close(model.full_sort_predict(batch), whole, rtol=1e-5, atol=1e-6)


def test_empty_histories_have_scores_that_depend_on_the_candidate(run: pipeline.Run, model: DMT) -> None:
    batch = batch_of(run)
    for items, length in (("item_id_list", "item_length"), ("record_item_list", "record_length")):
        batch.update(Interaction({items: batch[items] * 0, length: batch[length] * 0}))
    scores = model.full_sort_predict(batch)[:, 1:]
    assert scores.isfinite().all() and scores[0].std() > 0
    torch.testing.assert_close(scores, scores[:1].expand_as(scores))


def test_the_user_depends_on_the_candidate_and_on_both_behaviours(run: pipeline.Run, model: DMT) -> None:
    batch = batch_of(run)
    memories = model.encode(batch)
    candidates = model.items(torch.tensor([[3, 17]])).expand(len(batch), -1, -1)
    for vectors in model.interests(memories, candidates):
        assert ((vectors[:, 0] - vectors[:, 1]).norm(dim=-1) > 0.1).all()
    # What a candidate attends to in a history: each has its own weights, not only its own residual.
    layer, some = model.watched.decoder[0], memories[0]
    asked = layer.attention(candidates, some.states, some.bias)
    several = batch["item_length"] > 1
    assert several.any() and ((asked[:, 0] - asked[:, 1]).norm(dim=-1) > 1e-4)[several].all()
    before = model.full_sort_predict(batch)[:, 1:]
    for items in ("item_id_list", "record_item_list"):
        other = Interaction(dict(batch.interaction))
        other.update(Interaction({items: torch.where(batch[items] > 0, batch[items] % 40 + 1, 0)}))
        assert not torch.allclose(model.full_sort_predict(other)[:, 1:], before)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_gradients_reach_every_parameter(tiny_config: Make, loss: str) -> None:
    run = pipeline.Run(tiny_config(**SMALL, decoder_layers=2, n_layers=2, train_loss=loss))
    model = run.trainer().model
    torch.manual_seed(0)
    model.calculate_loss(batch_of(run, 0, 200)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not model.items.ids.weight.grad[0].any() and not model.items.attributes[0].weight.grad[0].any()


@pytest.mark.parametrize(("loss", "rate", "steps"), [("bce", 0.003, 300), ("softmax", 0.01, 100)])
def test_some_instances_can_be_learned_by_heart(tiny_config: Make, loss: str, rate: float, steps: int) -> None:
    changes = {"hidden_size": 24, "video_negatives": 20, "train_loss": loss, "expert_sizes": [32, 16]}
    model = pipeline.Run(tiny_config(**{**SMALL, **STILL, **changes})).trainer().model
    run = pipeline.Run(tiny_config(**SMALL))
    batch = batch_of(run, 0, 40)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
    model.eval()
    best = model.full_sort_predict(batch)[:, torch.from_numpy(run.dataset.seen_items)].argmax(dim=1)
    hit = model.pool[best] == batch["item_id"]
    assert hit.float().mean() > 0.9


def test_runs_repeat_and_go_on_exactly(tiny_config: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "epochs": 2, "report_phases": ["test"]}
    whole = pipeline.run(tiny_config(**settings))
    again = pipeline.run(tiny_config(**settings, output=str(tmp_path / "again")))
    assert whole is not None and again is not None and whole["phases"] == again["phases"]
    save, left = trainer.save_checkpoint, [2]

    def stopping(path: Any, state: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        save(path, state)

    stopped = {**settings, "output": str(tmp_path / "stopped")}
    monkeypatch.setattr(trainer, "save_checkpoint", stopping)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tiny_config(**stopped))
    monkeypatch.setattr(trainer, "save_checkpoint", save)
    ended = pipeline.run(tiny_config(**stopped, pairs_at_once=100))
    assert ended is not None and ended["phases"] == whole["phases"]


def test_sampled_rankings_score_the_stored_candidates_alone(run: pipeline.Run, model: DMT) -> None:
    data, device = run.dataset.joint, torch.device("cpu")
    scorer = scorer_of(model, run.dataset, device)
    assert isinstance(scorer, VideoCandidateScorer)
    sampled, settings = ["all+uniform", "available+period"], {"slices": False, "progress": False}
    calls: list[int] = []
    stock, model.full_sort_predict = model.full_sort_predict, lambda batch: calls.append(1)  # type: ignore[assignment]
    found = evaluate(scorer, data, "video", 2, sampled, **settings)
    assert not calls
    model.full_sort_predict = stock  # type: ignore[method-assign]
    full = evaluate(RecBoleScorer(model, run.dataset, device), data, "video", 2, sampled, **settings)
    for protocol in sampled:
        assert found.metrics(protocol) == pytest.approx(full.metrics(protocol), abs=1e-9)


def test_attributes_are_those_asked_for(tiny_config: Make) -> None:
    with pytest.raises(ConfigError, match="leaves no column for the id"):
        pipeline.Run(tiny_config(**{**SMALL, "attribute_size": 12})).trainer()
    model = pipeline.Run(tiny_config(**SMALL, selected_features=[])).trainer().model
    assert model.items.ids.weight.shape[1] == 12 and not len(model.items.attributes)
    model = pipeline.Run(tiny_config(**SMALL, selected_features=["author_id", "tags"])).trainer().model
    assert [table.weight.shape[1] for table in model.items.attributes] == [4, 4]


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_loss", "bpr"), ("expert_sizes", []), ("n_experts", 0), ("video_negatives", 0), ("pairs_at_once", 0)],
)
def test_values_that_are_not_accepted_are_named(tiny_config: Make, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        tiny_config(**{**SMALL, key: value})
