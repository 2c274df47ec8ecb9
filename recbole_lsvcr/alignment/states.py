"""How a causal language model of any architecture is run over tokens: its last hidden states, and logits where wanted.

The states of a text must not depend on its neighbours in a batch, that is on the padding before it. Architectures
differ in where their states come from and in the number of the first position; what fits none of it is refused when the
model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_lsvcr.encoding.language_model import LanguageModelEncoder, positions_behind_padding
from recbole_lsvcr.encoding.pretrained import ModelSource
from recbole_lsvcr.errors import StoreError

PROBED = "A user has watched these videos, and written comments under some of them."
COLUMNS = 3  # of padding, in the check
TOLERANCE, HALF_TOLERANCE = 0.01, 0.1  # relative, of the states of one text, in float32 (TF32, perhaps) and in 16 bits


def base_model(model: Any) -> Any:
    """The module within a causal language model, be it wrapped by PEFT, that gives `last_hidden_state`, normed.

    It shares the weights and the LoRA layers of the whole.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


def first_position(model: Any) -> int:
    """The number that a causal language model gives a text's first position: 0, or what stands behind the padding row
    of its learned positions (RoBERTa)."""
    return max((first for first, _ in positions_behind_padding(base_model(model))), default=0)


def read_tokens(
    model: Any, input_ids: Tensor, attention_mask: Tensor, *, first: int = 0, logits_from: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Last hidden states [B, T, H], and logits [B, T - logits_from, V] from that column on (None: without the head).

    Args:
        model: a causal language model, be it wrapped by PEFT. input_ids, attention_mask: int64 [B, T], padded on either
            side. first: `first_position` of the model.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if not bool(attention_mask[:, 0].all()):  # padded on the left: positions begin behind the padding
        inputs["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0) + first
    base = base_model(model)
    # OPT's head reads from the decoder within the base model; elsewhere the two are one.
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else base
    with _last_hidden_state(decoder) as states:
        if logits_from is None:
            base(**inputs)
            logits = None
        else:
            logits = model(**inputs, logits_to_keep=input_ids.shape[1] - logits_from).logits
    (hidden,) = states
    return hidden, logits


@contextmanager
def _last_hidden_state(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the last hidden state that a module returns meanwhile, without keeping those of other layers."""
    states: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        states.append(output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0])

    handle = module.register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


@torch.no_grad()
def check_states(model: Any, probe: LanguageModelEncoder, wanted: ModelSource) -> None:
    """Raise StoreError for a model whose states stand in another order (ChatGLM's own code: [tokens, batch, H]), cannot
    be had as `read_tokens` asks for them, or depend on padding (RWKV, which ignores the mask)."""
    base = base_model(model)
    states = base(input_ids=torch.full((1, 2), probe.pad_id, device=base.device)).last_hidden_state
    if tuple(states.shape[:2]) != (1, 2):
        raise StoreError(
            f"{wanted.kind} {wanted.name} gives states of shape {list(states.shape)} for one text of two tokens, not "
            "[1, 2, H]; use a version of it that transformers has itself"
        )
    probed = probe.tokenize([PROBED])[0][: probe.max_tokens - COLUMNS] or [probe.pad_id]
    ids = torch.tensor([probed], device=base.device)  # [1, T]
    mask, first = torch.ones_like(ids), first_position(model)
    try:
        alone, _ = read_tokens(model, ids, mask, first=first, logits_from=0)
        padding = (COLUMNS, 0)
        filled = pad(ids, padding, value=probe.tokenizer.pad_token_id)
        padded, _ = read_tokens(model, filled, pad(mask, padding), first=first, logits_from=COLUMNS)
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{wanted.kind} {wanted.name} cannot read instructions: {type(model).__name__} gives no states and logits "
            f"of texts padded on the left ({' '.join(str(error).split())}); use another model, or a version of it that "
            "transformers has itself"
        ) from error
    difference = float((padded[:, COLUMNS:] - alone).float().norm() / alone.float().norm())
    if not difference <= (TOLERANCE if alone.dtype == torch.float32 else HALF_TOLERANCE):
        raise StoreError(
            f"{wanted.kind} {wanted.name} gives a text other states when it is padded on the left (they differ by "
            f"{difference:.1%}): {type(model).__name__} ignores the attention mask or counts positions in a way of its "
            "own, so that an instruction's meaning would depend on its neighbours; use another model"
        )
