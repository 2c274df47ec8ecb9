"""The losses of alignment equal slow versions written from their equations, on one process and on two."""

from __future__ import annotations

import math
from dataclasses import fields

import forks
import pytest
import torch
import torch.distributed as dist

from recbole_lsvcr.alignment.losses import (
    AlignmentObjective,
    Representations,
    average_over_processes,
    contrastive_losses,
    language_model_loss,
)
from recbole_lsvcr.errors import ConfigError

TAU = 0.07


def rows(n: int = 6, d: int = 5, seed: int = 0, keys: list[int] | None = None) -> Representations:
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(n, d, generator=generator, requires_grad=True) for _ in range(4)]
    return Representations(*vectors, torch.tensor(keys or range(n)))


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x @ y / (x.norm() * y.norm())).detach())


def slow_info_nce(x, candidates, own: int, left_out: set[int] = frozenset()) -> float:
    logits = {j: cosine(x, y) / TAU for j, y in enumerate(candidates) if j == own or j not in left_out}
    return math.log(sum(math.exp(value) for value in logits.values())) - logits[own]


def test_each_loss_is_its_equation():
    found = rows(keys=[4, 7, 4, 1, 7, 4])
    parts, health = contrastive_losses(found, AlignmentObjective())
    n, keys = len(found.key), found.key.tolist()
    same = [{j for j in range(n) if keys[j] == keys[i]} for i in range(n)]
    sr = [slow_info_nce(found.preference[i], found.target, i, same[i]) for i in range(n)]
    there = [slow_info_nce(found.preference[i], found.llm, i) for i in range(n)]
    back = [slow_info_nce(found.llm[i], found.preference, i) for i in range(n)]
    vcc = []
    for i in range(n):
        right, wrong = (math.exp(cosine(found.llm[i], side[i]) / TAU) for side in (found.preference, found.other))
        vcc.append(-math.log(right / (right + wrong)))
    assert parts["sr"].item() == pytest.approx(sum(sr) / n, rel=1e-5)
    assert parts["ssc"].item() == pytest.approx((sum(there) + sum(back)) / (2 * n), rel=1e-5)
    assert parts["vcc"].item() == pytest.approx(sum(vcc) / n, rel=1e-5)
    nearest = [max(range(n), key=lambda j, i=i: cosine(found.preference[i], found.llm[j])) == i for i in range(n)]
    assert health["retrieval"].item() == pytest.approx(sum(nearest) / n)


def test_vcc_is_ln_2_when_both_sequences_say_the_same():
    found = rows()
    same = Representations(found.preference, found.llm, found.target, found.preference, found.key)
    parts, health = contrastive_losses(same, AlignmentObjective())
    assert parts["vcc"].item() == pytest.approx(math.log(2), rel=1e-6)
    assert health["vcc_accuracy"].item() == 0.5


def test_perfect_rows_are_told_apart():
    eye = torch.eye(4)
    parts, health = contrastive_losses(Representations(eye, eye, eye, -eye, torch.arange(4)), AlignmentObjective())
    assert max(part.item() for part in parts.values()) < 1e-5
    assert health["retrieval"] == health["vcc_accuracy"] == health["cosine_own"] == 1.0
    assert health["cosine_others"] == 0.0


@pytest.mark.parametrize(
    ("loss", "touched"),
    [
        ("sr", {"preference", "target"}),
        ("ssc", {"preference", "llm"}),
        ("vcc", {"preference", "llm", "other"}),
    ],
)
def test_each_loss_sends_gradients_to_its_own_vectors_only(loss, touched):
    found = rows()
    parts, _ = contrastive_losses(found, AlignmentObjective())
    parts[loss].backward()
    names = [field.name for field in fields(found) if field.name != "key"]
    assert {name for name in names if getattr(found, name).grad is not None} == touched
    assert all(getattr(found, name).grad.abs().sum() > 0 for name in touched)


def test_switches_leave_losses_out():
    assert set(AlignmentObjective().weights) == {"lm", "sr", "ssc", "vcc"}
    assert AlignmentObjective(contrast=0.25).weights["vcc"] == 0.25
    assert set(AlignmentObjective(ssc=False, vcc=False, lm=0).weights) == {"sr"}
    parts, _ = contrastive_losses(rows(), AlignmentObjective(ssc=False, lm=0))
    assert set(parts) == {"sr", "vcc"}
    with pytest.raises(ConfigError, match="every alignment loss is switched off"):
        AlignmentObjective(lm=0, sr=0, contrast=0)
    with pytest.raises(ConfigError, match=r"sr=-1"):
        AlignmentObjective(sr=-1)


def test_language_model_loss_is_the_sum_over_target_tokens():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator)
    labels = torch.full((3, 5), -100)
    labels[0, 2:], labels[1, 4:], labels[2, 1:3] = torch.tensor([1, 2, 3]), 6, torch.tensor([0, 5])
    expected = 0.0
    for i in range(3):
        for t in range(1, 5):
            if labels[i, t] >= 0:
                expected -= logits[i, t - 1].log_softmax(0)[labels[i, t]].item()
    assert language_model_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def _on_a_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole = rows(8, keys=[0, 1, 2, 3, 0, 4, 2, 5])
    mine = Representations(*(getattr(whole, field.name)[rank * 4 : rank * 4 + 4] for field in fields(whole)))
    parts, health = contrastive_losses(mine, AlignmentObjective())
    (sum(parts.values()) / 2).backward()  # data-parallel training averages over the processes
    grads = [getattr(whole, name).grad for name in ("preference", "llm", "target", "other")]
    values = {name: average_over_processes(value) for name, value in {**parts, **health}.items()}
    torch.save((values, grads), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_losses_and_gradients_of_one(tmp_path):
    forks.on_two(_on_a_rank, str(tmp_path))
    whole = rows(8, keys=[0, 1, 2, 3, 0, 4, 2, 5])
    parts, health = contrastive_losses(whole, AlignmentObjective())
    sum(parts.values()).backward()
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, value in {**parts, **health}.items():
        assert results[0][0][name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name
    for place, name in enumerate(("preference", "llm", "target", "other")):
        both = results[0][1][place] + results[1][1][place]
        torch.testing.assert_close(both, getattr(whole, name).grad, rtol=1e-4, atol=1e-6)
