"""What a language model says of an instruction does not depend on the other instructions of its batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alignment_tiny import batch_of, make_instances, tiny_sr_config
from tiny_models import ALL, save, transformers

from recbole_lsvcr.alignment.load import add_lora, load_causal_lm
from recbole_lsvcr.alignment.losses import AlignmentObjective
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.errors import StoreError
from recbole_lsvcr.model.sr import SRModel


@pytest.mark.parametrize("objective", [AlignmentObjective(), AlignmentObjective(lm=0)], ids=["with head", "without"])
@pytest.mark.parametrize("kind", [*ALL, "roberta"])
def test_an_instruction_alone_or_padded_has_the_same_state_and_loss(
    kind: str, objective: AlignmentObjective, tmp_path: Path
) -> None:
    lm = load_causal_lm(save(tmp_path, kind))
    sr = SRModel(tiny_sr_config(encoder_size=lm.hidden_size))
    pair = AlignedPair(replace(lm, model=add_lora(lm.model)), sr, objective, batch_tokens=80).eval()
    known = [
        replace(
            instance, instruction=[4 + t % 9 for t in instance.instruction], answer=[4 + t % 9 for t in [*range(i)]]
        )
        for i, instance in enumerate(make_instances(), start=1)
    ]
    batch = batch_of(known, [], side="left")
    with torch.no_grad():
        states, lm_sum = pair.instruct(batch)
        alone = [pair.instruct(batch.instructions_of(torch.tensor([row]))) for row in range(len(known))]
    torch.testing.assert_close(states, torch.cat([one for one, _ in alone]), rtol=1e-4, atol=1e-4)
    assert lm_sum.item() == pytest.approx(sum(one.item() for _, one in alone), rel=1e-4)
    assert bool(lm_sum) == ("lm" in objective.weights)


def test_a_model_that_ignores_the_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gives a text other states when it is padded on the left.*RwkvForCausalLM"):
        load_causal_lm(save(tmp_path, "rwkv"))


def test_a_model_that_cannot_be_asked_for_some_logits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transformers.LlamaForCausalLM.forward

    def older(self: Any, input_ids: Any, attention_mask: Any, position_ids: Any = None, use_cache: bool = False) -> Any:
        return whole(self, input_ids, attention_mask, position_ids)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", older)
    with pytest.raises(StoreError, match=r"cannot read instructions: LlamaForCausalLM.*logits_to_keep"):
        load_causal_lm(save(tmp_path, "llama"))


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_enough(kind: str, precision: str, tmp_path: Path) -> None:
    assert load_causal_lm(save(tmp_path, kind, layers=12), precision=precision).hidden_size == 16
