"""The aligned pair against a slow loop over single instances and texts; gradients; the cached step; two processes."""

from __future__ import annotations

import faulthandler
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import forks
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from alignment_tiny import (
    Instance,
    assert_same_gradients,
    batch_of,
    gradients,
    make_instances,
    make_pair,
    make_texts,
    of_lora,
)
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from recbole_lsvcr.alignment import pair as pair_module
from recbole_lsvcr.alignment.cached import _parts, average_gradients, cached_backward
from recbole_lsvcr.alignment.collate import AlignmentBatch
from recbole_lsvcr.alignment.load import base_model
from recbole_lsvcr.alignment.losses import AlignmentObjective, Representations, average_over_processes
from recbole_lsvcr.alignment.pair import AlignedPair, LLMStates
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.sr import StreamInput

TEXTS = make_texts()
ONLY = {
    "lm": AlignmentObjective(sr=0, contrast=0),
    "sr": AlignmentObjective(lm=0, contrast=0),
    "ssc": AlignmentObjective(lm=0, sr=0, vcc=False),
    "vcc": AlignmentObjective(lm=0, sr=0, ssc=False),
}


def representations(pair: AlignedPair, batch: AlignmentBatch, monkeypatch: pytest.MonkeyPatch, draw: int = 0) -> Any:
    """What the pair hands to the contrastive losses."""
    seen: list[Representations] = []
    original = pair_module.contrastive_losses

    def spy(rows: Representations, *others: Any, **options: Any) -> Any:
        seen.append(rows)
        return original(rows, *others, **options)

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(pair_module, "contrastive_losses", spy)
        pair(batch, draw=draw)
    return seen[0]


# Equality with a slow loop --------------------------------------------------------------------------------------------


def slow_vector(pair: AlignedPair, row: int) -> Tensor:
    """[E] of one text, encoded alone (Eq. 1, 2)."""
    if row == 0:
        return torch.zeros(pair.sr.config.text_size)
    ids = pair.texts.tokenizer(TEXTS[row - 1])["input_ids"]
    states = base_model(pair.llm)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return pair.sr.text_mlp(states.mean(0, keepdim=True))[0]


def slow_step(pair: AlignedPair, title: int, comments: list[int]) -> Tensor:
    vectors = [slow_vector(pair, row) for row in comments]
    mean = torch.stack(vectors).mean(0) if vectors else torch.zeros(pair.sr.config.text_size)
    project = pair.sr.text_proj
    return pair.sr.merge(torch.cat([project(slow_vector(pair, title)), project(mean)]))


def slow_stream(steps: list[Tensor], size: int, positions: Tensor | None) -> StreamInput:
    text = torch.stack(steps)[None] if steps else torch.zeros(1, 1, size)
    places = None if positions is None else positions[: text.shape[1]]
    return StreamInput(text, torch.tensor([len(steps)]), positions=places)


def slow_row(pair: AlignedPair, instance: Instance, positions: tuple[Tensor | None, Tensor | None]) -> list[Tensor]:
    """s, s̃, e and the extraction of the other sequence, of one instance alone."""
    sr, size = pair.sr, pair.sr.config.hidden_size
    videos = [slow_step(pair, title, [comment]) for title, comment in instance.videos]
    records = [slow_step(pair, title, list(comments)) for title, comments in instance.records]
    states = sr.encode(slow_stream(videos, size, positions[0]), slow_stream(records, size, positions[1]))
    sides = [(sr.fuse_video(states), states.video_mask), (sr.fuse_comment(states), states.comment_mask)]
    if instance.is_video:
        own, other = (sr.extract_video(*side)[0] for side in sides)
    else:
        query = sr.text_proj(slow_vector(pair, instance.watched))[None]
        other, own = (sr.extract_comment(*side, query)[0] for side in sides)
    read = base_model(pair.llm)(input_ids=torch.tensor([list(instance.instruction)])).last_hidden_state[0, -1]
    return [own, pair.contrast_adapter(read), sr.text_proj(slow_vector(pair, instance.target)), other]


@pytest.mark.parametrize("training", [False, True], ids=["positions in order", "random positions"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_vector_equals_that_of_the_instance_alone(tiny_lm, monkeypatch, training, side):
    pair = make_pair(tiny_lm).train(training)
    instances = make_instances()
    batch = batch_of(instances, TEXTS, side=side)
    found = representations(pair, batch, monkeypatch, draw=4)
    positions = pair.positions(batch, 4)
    with torch.no_grad():
        slow = [slow_row(pair, instance, positions) for instance in instances]
    for name, expected in zip(("preference", "llm", "target", "other"), zip(*slow, strict=True), strict=True):
        torch.testing.assert_close(getattr(found, name), torch.stack(expected), rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize(("side", "columns"), [("left", 0), ("right", 5), ("left", 7)])
def test_side_and_amount_of_padding_change_no_loss(tiny_lm, side, columns):
    pair = make_pair(tiny_lm)
    expected = pair(batch_of(make_instances(), TEXTS))
    padded = batch_of(make_instances(), TEXTS, side=side, columns=columns)
    found = pair(padded)
    for name, value in {**expected.parts, **expected.health}.items():
        torch.testing.assert_close({**found.parts, **found.health}[name], value, rtol=1e-5, atol=1e-5, msg=name)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_l_lm_is_the_mean_cross_entropy_of_the_plain_model_at_the_target_positions(tiny_lm, side):
    pair = make_pair(tiny_lm).eval()
    instances = make_instances()
    batch = batch_of(instances, TEXTS, side=side)
    losses = []
    with torch.no_grad():
        for instance in instances:
            whole = torch.tensor([*instance.instruction, *instance.answer])
            logits = pair.llm(input_ids=whole[None]).logits[0]
            first = len(instance.instruction)
            losses.append(F.cross_entropy(logits[first - 1 : -1], whole[first:], reduction="none"))
        every = torch.cat(losses)
        _, lm_sum = pair.instruct(batch)
        parts = pair(batch).parts
    assert lm_sum.item() == pytest.approx(every.sum().item(), rel=1e-5)
    assert parts["lm"].item() == pytest.approx(every.mean().item(), rel=1e-5)


def test_the_total_is_the_weighted_sum_of_the_losses(tiny_lm):
    objective = AlignmentObjective(lm=0.5, sr=2.0, contrast=0.25)
    found = make_pair(tiny_lm, objective)(batch_of(make_instances(), TEXTS))
    parts = found.parts
    expected = 0.5 * parts["lm"] + 2 * parts["sr"] + 0.25 * (parts["ssc"] + parts["vcc"])
    torch.testing.assert_close(found.total.detach(), expected)


def test_untrained_lora_changes_nothing_about_the_base_model(tiny_lm):
    pair = make_pair(tiny_lm, untrained=True).eval()
    batch = batch_of(make_instances(), TEXTS)
    with torch.no_grad():
        found = pair.read(batch)
        with pair.llm.disable_adapter():
            expected = pair.read(batch)
    for field in fields(found):
        torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name))


def test_the_order_of_a_batch_permutes_the_vectors_and_changes_no_loss(tiny_lm, monkeypatch):
    pair = make_pair(tiny_lm)
    instances, order = make_instances(), [5, 0, 3, 7, 1, 6, 2, 4]
    batch, shuffled = batch_of(instances, TEXTS), batch_of([instances[i] for i in order], TEXTS)
    found, other = representations(pair, batch, monkeypatch), representations(pair, shuffled, monkeypatch)
    for field in fields(found):
        torch.testing.assert_close(getattr(other, field.name), getattr(found, field.name)[order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair(shuffled).total, pair(batch).total, rtol=1e-5, atol=1e-5)


# Positions ------------------------------------------------------------------------------------------------------------


def test_positions_are_a_rising_subset_that_the_draw_decides_and_in_order_outside_training(tiny_lm):
    pair = make_pair(tiny_lm)
    batch = batch_of(make_instances(), TEXTS)
    widths = batch.video_titles.shape[1], batch.record_titles.shape[1]
    seen = set()
    for draw in range(200):
        found = pair.positions(batch, draw)
        for places, width in zip(found, widths, strict=True):
            assert places is not None and len(places) == width
            assert bool((places.diff() > 0).all()) and places.min() >= 0 and places.max() < 14
            seen |= set(places.tolist())
        again = pair.positions(batch, draw)
        assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert seen == set(range(14)), "every row of the position tables is trained"
    assert not torch.equal(pair.positions(batch, 0)[0], pair.positions(batch, 1)[0])
    assert pair.eval().positions(batch, 3) == (None, None)
    assert make_pair(tiny_lm, random_positions=False).positions(batch, 3) == (None, None)


# Gradients ------------------------------------------------------------------------------------------------------------


def reached(pair: AlignedPair, batch: AlignmentBatch) -> set[str]:
    """Names of the parameters with a gradient that is more than rounding."""
    pair.zero_grad()
    pair(batch).total.backward()
    assert all(weight.grad is None for weight in pair.parameters() if not weight.requires_grad)
    found = gradients(pair)
    largest = max(float(value.abs().max()) for value in found.values())
    return {name for name, value in found.items() if float(value.abs().max()) > 1e-6 * largest}


def parts_of(pair: AlignedPair) -> dict[str, set[str]]:
    trained = {name for name, weight in pair.named_parameters() if weight.requires_grad}
    lora = {name for name in trained if name.startswith("llm.")}
    assert lora == {f"llm.{name}" for name, _ in of_lora(pair)} and all("lora_" in name for name in lora)
    sr = {name for name in trained if name.startswith("sr.")}
    return {"lora": lora, "sr": sr, "adapter": {"contrast_adapter.weight", "contrast_adapter.bias"}}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("lm", {"lora"}),
        ("sr", {"lora", "sr"}),
        ("ssc", {"lora", "sr", "adapter"}),
        ("vcc", {"lora", "sr", "adapter"}),
    ],
)
def test_each_loss_reaches_exactly_what_it_trains(tiny_lm, loss, expected):
    pair = make_pair(tiny_lm, ONLY[loss])
    parts = parts_of(pair)
    assert reached(pair, batch_of(make_instances(), TEXTS)) == set().union(*(parts[name] for name in expected))


def test_without_gradients_of_short_texts_lora_learns_from_the_instructions_only(tiny_lm):
    batch = batch_of(make_instances(), TEXTS)
    pair = make_pair(tiny_lm, ONLY["sr"], short_text_grad="none")
    parts = parts_of(pair)
    assert reached(pair, batch) == parts["sr"]
    pair = make_pair(tiny_lm, ONLY["ssc"], short_text_grad="none")
    assert reached(pair, batch) == parts["sr"] | parts["adapter"] | parts["lora"]


@pytest.mark.parametrize("task", ["video", "comment"])
@pytest.mark.parametrize("loss", ["sr", "vcc"])
def test_a_batch_of_one_task_leaves_the_other_tasks_parts_a_gradient_of_zero(tiny_lm, task, loss):
    pair = make_pair(tiny_lm, ONLY[loss])
    instances = [i for i in make_instances(12) if i.is_video == (task == "video")]
    found = reached(pair, batch_of(instances, TEXTS))  # every trained weight has a gradient there
    trained = {f"sr.{name}" for name in pair.sr.trained_parameters(task)}
    extractors = {"video": "sr.video_extractor.", "comment": "sr.comment_extractor."}
    other = extractors["comment" if task == "video" else "video"]
    assert not any(name.startswith(other) for name in found)
    of_sr = {name for name in found if name.startswith("sr.")}
    if loss == "sr":
        assert of_sr == parts_of(pair)["sr"] & trained
    else:  # the wrong sequence is fused too
        assert of_sr == {name for name in parts_of(pair)["sr"] if not name.startswith(other)}


def test_rows_with_equal_target_texts_do_not_push_each_other_away(tiny_lm):
    pair = make_pair(tiny_lm, ONLY["sr"])
    same = [replace(instance, target=3) for instance in make_instances(4)]
    losses = pair(batch_of(same, TEXTS))
    losses.total.backward()
    assert losses.total.item() == pytest.approx(0.0, abs=1e-6)
    assert all(float(value.abs().max()) < 1e-6 for value in gradients(pair).values())
    apart = pair(batch_of(make_instances(4), TEXTS))
    assert apart.total.item() > 0.01


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("texts", [TEXTS, []], ids=["texts", "no text at all"])
def test_empty_histories_and_titles_give_finite_losses_and_gradients(tiny_lm, texts, cached):
    pair = make_pair(tiny_lm)
    target = 1 if texts else 0
    blank = [replace(i, videos=[], records=[], watched=0, target=target) for i in make_instances(3)]
    if texts:
        blank[1] = replace(blank[1], videos=[(0, 0), (0, 0)], records=[(0, [])], target=2)
    batch = batch_of(blank, texts)
    if cached:
        losses = cached_backward(pair, batch, draw=0, seed=0, rows_at_once=2)
    else:
        losses = pair(batch)
        losses.total.backward()
    assert all(bool(torch.isfinite(value)) for value in {**losses.parts, **losses.health}.values())
    assert all(bool(torch.isfinite(value).all()) for value in gradients(pair).values())


def test_an_sr_model_of_another_width_or_an_unknown_switch_is_refused(tiny_lm):
    with pytest.raises(ConfigError, match="SRConfig\\(encoder_size=16\\)"):
        make_pair(tiny_lm, sr={"n_items": 5})
    with pytest.raises(ConfigError, match="accepted: full, none"):
        make_pair(tiny_lm, short_text_grad="half")


# The cached-gradient step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad", ["full", "none"])
@pytest.mark.parametrize(("rows_at_once", "side"), [(1, "right"), (3, "left"), (100, "right")])
def test_the_cached_step_has_the_losses_and_gradients_of_the_plain_one(tiny_lm, rows_at_once, side, grad):
    pair = make_pair(tiny_lm, short_text_grad=grad)
    batch = batch_of(make_instances(), TEXTS, side=side)
    plain = pair(batch, draw=6)
    (plain.total * 0.5).backward()
    expected = gradients(pair)
    found = cached_backward(pair, batch, draw=6, seed=1, rows_at_once=rows_at_once, scale=0.5)
    assert_same_gradients(gradients(pair), expected)
    torch.testing.assert_close(found.total, plain.total.detach(), rtol=1e-5, atol=1e-5)
    for name, value in {**plain.parts, **plain.health}.items():
        torch.testing.assert_close({**found.parts, **found.health}[name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("loss", sorted(ONLY))
def test_the_cached_step_leaves_out_the_losses_that_are_off(tiny_lm, loss):
    pair = make_pair(tiny_lm, ONLY[loss])
    batch = batch_of(make_instances(), TEXTS)
    pair(batch).total.backward()
    expected = gradients(pair)
    cached_backward(pair, batch, draw=0, seed=1, rows_at_once=3)
    assert_same_gradients(gradients(pair), expected)


def test_both_passes_of_the_cached_step_drop_the_same(tiny_lm):
    pair = make_pair(tiny_lm, lora_dropout=0.4)
    batch = batch_of(make_instances(), TEXTS)
    # One graph with the random numbers of the cached step.
    texts, instruction = torch.zeros(len(TEXTS), 16), torch.zeros(len(batch), 16)
    total = torch.zeros(())
    for part in _parts(pair, batch, 3):
        states, lm_sum = part.run(9)
        if part.is_text:
            texts = texts.index_put((part.rows,), states)
        else:
            instruction, total = instruction.index_put((part.rows,), states), total + lm_sum
    pair.align(batch, LLMStates(texts, instruction, total), 2).total.backward()
    expected = gradients(pair)
    cached_backward(pair, batch, draw=2, seed=9, rows_at_once=3)
    found = gradients(pair)
    assert_same_gradients(found, expected)
    cached_backward(pair, batch, draw=2, seed=10, rows_at_once=3)
    other = gradients(pair)
    assert any(not torch.allclose(other[name], found[name]) for name in found)


def test_the_same_seed_gives_the_same_gradients_with_dropout_everywhere(tiny_lm):
    pair = make_pair(tiny_lm, lora_dropout=0.3, sr={"hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.3})
    batch = batch_of(make_instances(), TEXTS)
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        cached_backward(pair, batch, draw=2, seed=9, rows_at_once=3)
        found.append(gradients(pair))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# Two processes --------------------------------------------------------------------------------------------------------


def _on_a_rank(rank: int, folder: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{results}/meet", rank=rank, world_size=2)
    pair = make_pair(Path(folder))
    mine = batch_of(make_instances()[rank * 4 : rank * 4 + 4], TEXTS)
    parallel = DistributedDataParallel(pair, find_unused_parameters=False)
    found = []
    for kind in ("plain", "cached"):
        if kind == "plain":
            losses = parallel(mine, draw=6)
            losses.total.backward()
        else:
            losses = cached_backward(pair, mine, draw=6, seed=rank, rows_at_once=3)
            average_gradients(pair)
        values = {"total": losses.total, **losses.parts, **losses.health}
        means = {name: average_over_processes(value.detach()) for name, value in values.items()}
        found.append((means, gradients(pair)))
    pair.eval()
    with torch.no_grad():
        found.append(({name: value for name, value in pair(held_out()).health.items()}, {}))
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def _sharded(rank: int, folder: str, results: str) -> None:
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(100, exit=True)  # processes with different numbers of passes wait for ever
    dist.init_process_group("gloo", init_method=f"file://{results}/meet", rank=rank, world_size=2)
    pair = make_pair(Path(folder), equal_passes=True)
    pair.texts.batch_tokens = (60, 25)[rank]  # more passes in the second process
    mesh = init_device_mesh("cpu", (2,))
    for layer in base_model(pair.llm).layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(pair, mesh=mesh)
    losses = pair(batch_of(make_instances()[rank * 4 : rank * 4 + 4], TEXTS), draw=6)
    losses.total.backward()
    grads = {name: weight.grad.full_tensor() for name, weight in pair.named_parameters() if weight.requires_grad}
    if rank == 0:
        torch.save(grads, f"{results}/sharded.pt")
    dist.destroy_process_group()


def test_two_processes_that_share_the_weights_give_the_gradients_of_one(tiny_lm, tmp_path):
    forks.on_two(_sharded, str(tiny_lm), str(tmp_path))
    pair = make_pair(tiny_lm)
    pair(batch_of(make_instances(), TEXTS), draw=6).total.backward()
    assert_same_gradients(torch.load(tmp_path / "sharded.pt", weights_only=True), gradients(pair))


def held_out() -> AlignmentBatch:
    return batch_of(make_instances(6, seed=1), TEXTS)


def test_two_processes_with_half_the_batch_each_give_the_losses_and_gradients_of_one(tiny_lm, tmp_path):
    forks.on_two(_on_a_rank, str(tiny_lm), str(tmp_path))
    pair = make_pair(tiny_lm)
    instances = make_instances()
    halves = [batch_of(instances[:4], TEXTS), batch_of(instances[4:], TEXTS)]
    assert halves[0].video_titles.shape != halves[1].video_titles.shape, "the processes' batches differ in width"
    assert (halves[0].labels != -100).sum() != (halves[1].labels != -100).sum()
    whole = pair(batch_of(instances, TEXTS), draw=6)
    whole.total.backward()
    expected = gradients(pair)
    with torch.no_grad():
        health = pair.eval()(held_out()).health
    for rank in range(2):
        plain, cached, evaluated = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for means, grads in (plain, cached):
            assert_same_gradients(grads, expected)
            for name, value in {"total": whole.total, **whole.parts, **whole.health}.items():
                assert means[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-5), name
        for name, value in health.items():  # every process looks at the same held-out batch
            assert evaluated[0][name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-5), name
