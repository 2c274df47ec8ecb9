"""Every loss against its definition written out slowly, and what a mask or a zero vector does to it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_lsvcr.model import losses
from recbole_lsvcr.model.losses import (
    Steps,
    distinct_target_mask,
    id_text_regularization,
    info_nce,
    normalize,
    shared_negatives_contrast,
)

TAU = 0.07


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / (math.sqrt(float(a @ a)) * math.sqrt(float(b @ b)))


def slow_info_nce(x: Tensor, positive: Tensor, candidates: list[Tensor], temperature: float = TAU) -> float:
    """Eq. 12 as printed; `candidates` hold the positive."""
    total = sum(math.exp(cosine(x, y) / temperature) for y in candidates)
    return -math.log(math.exp(cosine(x, positive) / temperature) / total)


def per_row_regularization(ids: Tensor, text: Tensor, negatives: list[list[int]]) -> float:
    """Eq. 17, both directions, for one stream whose row i has the negatives `negatives[i]` of its own."""
    losses = []
    for i, others in enumerate(negatives):
        to_text = slow_info_nce(ids[i], text[i], [text[i], *(text[j] for j in others)])
        to_ids = slow_info_nce(text[i], ids[i], [ids[i], *(ids[j] for j in others)])
        losses.append((to_text + to_ids) / 2)
    return sum(losses) / len(losses)


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), torch.randn(9, 5, generator=generator)


def test_softmax_over_all_candidates(vectors: tuple[Tensor, Tensor]) -> None:
    x, candidates = vectors
    targets = torch.tensor([0, 8, 3, 3, 1, 7])
    slow = [slow_info_nce(x[i], candidates[t], list(candidates)) for i, t in enumerate(targets)]
    assert float(info_nce(x, candidates, targets)) == pytest.approx(sum(slow) / 6, rel=1e-5)


def test_in_batch_form_and_its_temperature(vectors: tuple[Tensor, Tensor]) -> None:
    x, y = vectors[0], vectors[1][:6]
    slow = [slow_info_nce(x[i], y[i], list(y), 0.5) for i in range(6)]
    assert float(info_nce(x, y, temperature=0.5)) == pytest.approx(sum(slow) / 6, rel=1e-5)


def test_masked_candidates_do_not_exist(vectors: tuple[Tensor, Tensor]) -> None:
    x, candidates = vectors
    targets = torch.tensor([0, 8, 3, 3, 1, 7])
    mask = torch.tensor([1, 1, 0, 1, 0, 0, 0, 1, 1], dtype=torch.bool)
    kept = mask.nonzero().flatten().tolist()
    slow = [slow_info_nce(x[i], candidates[t], [candidates[j] for j in kept]) for i, t in enumerate(targets)]
    assert float(info_nce(x, candidates, targets, mask=mask)) == pytest.approx(sum(slow) / 6, rel=1e-5)


@pytest.mark.parametrize("logits_at_once", [1, 25, 10_000], ids=["row by row", "two rows", "at once"])
@pytest.mark.parametrize("form", ["all", "mask", "mask per row", "in batch"])
def test_gradients_are_those_of_the_plain_softmax(
    form: str, logits_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", logits_at_once)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(7, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    y = torch.randn(7 if form == "in batch" else 11, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.arange(7) if form == "in batch" else torch.tensor([0, 10, 3, 3, 1, 7, 4])
    shape = {"mask": (11,), "mask per row": (7, 11)}.get(form, (7, len(y)))
    mask = torch.rand(shape, generator=generator) < 0.6 if "mask" in form else torch.ones(shape, dtype=torch.bool)
    if form == "mask":
        mask[targets] = True
    else:
        mask[torch.arange(7), targets] = True
    loss = info_nce(x, y, None if form == "in batch" else targets, mask=mask if "mask" in form else None)
    gradients = torch.autograd.grad(loss * 3.0, (x, y))
    logits = F.cosine_similarity(x.unsqueeze(1), y.unsqueeze(0), dim=-1) / TAU
    plain = F.cross_entropy(logits.masked_fill(~mask, -math.inf), targets)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradients, torch.autograd.grad(plain * 3.0, (x, y)))


def test_a_low_temperature_neither_overflows_nor_underflows() -> None:
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = info_nce(x, torch.tensor([[-1.0, 0.1], [1.0, 0.0]]), torch.tensor([0]), temperature=0.005)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(399.0, abs=1.0)
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_identical_targets_of_a_batch_are_not_each_others_negatives(vectors: tuple[Tensor, Tensor]) -> None:
    x, names = vectors[0], torch.tensor([4, 7, 4, 4, 9, 7])
    y = vectors[1][:6].clone()
    slow = [slow_info_nce(x[i], y[i], [y[j] for j in range(6) if j == i or names[j] != names[i]]) for i in range(6)]
    loss = info_nce(x, y, mask=distinct_target_mask(names))
    assert float(loss) == pytest.approx(sum(slow) / 6, rel=1e-5)
    assert float(loss) < float(info_nce(x, y))


def test_a_zero_vector_has_cosine_zero_and_no_nan_forward_or_backward() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-30, 0.0]], requires_grad=True)
    y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    assert torch.equal(normalize(x)[0], torch.zeros(2))
    loss = info_nce(x, y)
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()
    assert x.grad.abs().max() < 100.0
    assert x.grad[1].any()
    assert not x.grad[0].any()


def test_normalize_has_the_gradient_of_the_division_by_the_length() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.testing.assert_close(normalize(x), x / x.norm(dim=1, keepdim=True))
    assert torch.autograd.gradcheck(normalize, (x,))


def rows(count: int, *, seed: int = 3, videos: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids, text = torch.randn(count, 4, generator=generator), torch.randn(count, 4, generator=generator)
    return ids, text, torch.randperm(videos, generator=generator)[:count] + 1


def test_shared_negatives_equal_a_loss_per_row_given_the_same_negatives() -> None:
    ids, text, items = rows(12)
    items[5] = items[2]  # a drawn row of the same video, the row itself included, is nobody's negative
    drawn = torch.tensor([2, 7, 9, 11])
    negatives = [[int(j) for j in drawn if items[j] != items[i]] for i in range(12)]
    expected = per_row_regularization(ids, text, negatives)
    assert float(shared_negatives_contrast(ids, text, items, drawn)) == pytest.approx(expected, rel=1e-5)


def padded(count: int, *, width: int = 5, videos: int = 1000) -> Steps:
    """`count` steps in rows of unequal length, garbage in the padding."""
    ids, text, items = rows(count, videos=videos)
    lengths: list[int] = []
    left = count
    while left:
        lengths.append(min(left, len(lengths) % width + 1))
        left -= lengths[-1]
    mask = torch.arange(width) < torch.tensor([*lengths, 0])[:, None]
    full_ids, full_text = torch.full((*mask.shape, 4), 9.0), torch.full((*mask.shape, 4), -9.0)
    full_items = torch.full(mask.shape, 2000)
    full_ids[mask], full_text[mask], full_items[mask] = ids, text, items
    return Steps(full_ids, full_text, full_items, mask)


def test_regularization_sums_the_streams_and_uses_all_rows_when_there_are_few() -> None:
    first, second = padded(7), padded(11)
    expected = 0.0
    for steps in (first, second):
        count = int(steps.mask.sum())
        everybody_else = [[j for j in range(count) if j != i] for i in range(count)]
        expected += per_row_regularization(steps.ids[steps.mask], steps.text[steps.mask], everybody_else)
    assert float(id_text_regularization([first, second])) == pytest.approx(expected, rel=1e-5)


def test_negatives_follow_the_generator_and_their_number_is_respected() -> None:
    steps = padded(40)

    def loss(seed: int, negatives: int) -> float:
        return float(
            id_text_regularization([steps], negatives=negatives, generator=torch.Generator().manual_seed(seed))
        )

    assert loss(1, 6) == loss(1, 6)
    assert len({round(loss(seed, 6), 6) for seed in range(8)}) == 8
    assert loss(1, 6) < loss(1, 20) < loss(1, 40)
    drawn = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:6]
    ids, text, items = (value[steps.mask] for value in (steps.ids, steps.text, steps.items))
    assert loss(1, 6) == pytest.approx(float(shared_negatives_contrast(ids, text, items, drawn)), rel=1e-5)


def test_regularization_ignores_padding_and_survives_a_stream_without_steps() -> None:
    steps = padded(9)
    moved = steps._replace(ids=steps.ids.clone(), text=steps.text.clone())
    moved.ids[~steps.mask] = 0.0
    moved.text[~steps.mask] = math.inf
    assert float(id_text_regularization([moved])) == float(id_text_regularization([steps]))
    empty = Steps(
        torch.randn(2, 3, 4, requires_grad=True),
        torch.randn(2, 3, 4),
        torch.zeros(2, 3, dtype=torch.int64),
        torch.zeros(2, 3, dtype=torch.bool),
    )
    loss = id_text_regularization([empty, steps])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(id_text_regularization([steps])))
    assert empty.ids.grad is not None
    assert not empty.ids.grad.any()


def test_regularization_pulls_each_id_to_its_own_text() -> None:
    steps = padded(12)
    ids = steps.ids.clone().requires_grad_()
    optimizer = torch.optim.Adam([ids], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = id_text_regularization([steps._replace(ids=ids)])
        loss.backward()
        optimizer.step()
    similarity = torch.cosine_similarity(ids[steps.mask], steps.text[steps.mask], dim=-1)
    assert similarity.mean() > 0.8
    assert loss < 0.5
