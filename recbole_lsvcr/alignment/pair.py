"""The aligned pair: a language model and the SR model over the same instances (Eq. 1, 10-16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_lsvcr.alignment.collate import AlignmentBatch
from recbole_lsvcr.alignment.load import LoadedLM
from recbole_lsvcr.alignment.losses import (
    AlignmentObjective,
    Representations,
    average_over_processes,
    contrastive_losses,
    language_model_loss,
    largest_over_processes,
)
from recbole_lsvcr.alignment.states import base_model, first_position, read_tokens
from recbole_lsvcr.encoding.batches import token_batches
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.layers import table_rows
from recbole_lsvcr.model.sr import SRModel, StreamInput

LLM = "llm."  # what the names of the language model's tensors begin with


@dataclass(frozen=True)
class LLMStates:
    """All that the language model says of a batch; the rest of a step is small."""

    texts: Tensor  # [U, H] pooled states of the distinct short texts
    instruction: Tensor  # [B, H] states of the last instruction tokens
    lm_sum: Tensor  # scalar: cross-entropies of the target tokens, summed (Eq. 10)


@dataclass(frozen=True)
class AlignmentLosses:
    """Scalars of one step: `total` is Eq. 16; `parts` the losses by name, unweighted; `health` what to watch."""

    total: Tensor
    parts: Mapping[str, Tensor]
    health: Mapping[str, Tensor]


class AlignedPair(nn.Module):
    """A causal language model (with LoRA) as a supplemental recommender, beside the SR model.

    Every short text of a batch (titles, comments, targets) and every instruction goes through the same adapted model.
    Trained: the language model's trainable weights (LoRA), `sr` with its `text_mlp`, and `contrast_adapter`.

    Args:
        lm: from `load_causal_lm`, with LoRA added. sr: without ids, `encoder_size` the language model's width.
        objective: Eq. 16. short_text_tokens: short texts are cut there.
        batch_tokens: tokens of one pass over short texts, padding included; None: what suits the device.
        short_text_grad: `full` sends the gradients of the short texts into LoRA; `none` reads them without.
        random_positions: draw the SR model's positions anew for each batch (Section 3 of the method).
        equal_passes: run the language model as often in every process, as FSDP and ZeRO 3 need, which gather weights in
            each pass.

    Raises:
        ConfigError: an SR model of another width or with ids, an unknown `short_text_grad`.
    """

    def __init__(
        self,
        lm: LoadedLM,
        sr: SRModel,
        objective: AlignmentObjective | None = None,
        *,
        short_text_tokens: int = 256,
        batch_tokens: int | None = None,
        short_text_grad: Literal["full", "none"] = "full",
        random_positions: bool = True,
        equal_passes: bool = False,
    ) -> None:
        super().__init__()
        if sr.config.encoder_size != lm.hidden_size or sr.id_embedding is not None:
            raise ConfigError(
                f"the SR model reads text of width {sr.config.encoder_size} "
                f"{'with' if sr.id_embedding is not None else 'without'} ids, but the states of {lm.name} have width "
                f"{lm.hidden_size}: build it with SRConfig(encoder_size={lm.hidden_size}) and no n_items"
            )
        if short_text_grad not in ("full", "none"):
            raise ConfigError(f"short_text_grad is {short_text_grad!r}; accepted: full, none")
        self.llm = lm.model
        self.first_position = first_position(lm.model)
        self.sr = sr
        self.contrast_adapter = nn.Linear(lm.hidden_size, sr.config.hidden_size)
        self.objective = objective or AlignmentObjective()
        self.short_text_grad = short_text_grad
        self.random_positions = random_positions
        self.equal_passes = equal_passes
        # Holds the language model's inner module without registering it a second time.
        self.texts = LanguageModelEncoder(
            base_model(lm.model),
            lm.tokenizer,
            name=lm.name,
            fingerprint=lm.fingerprint,
            max_tokens=short_text_tokens,
            batch_tokens=batch_tokens,
        )

    def forward(self, batch: AlignmentBatch, *, draw: int = 0) -> AlignmentLosses:
        """Losses of a batch; in training, contrasted with the rows of all processes. `draw` seeds the positions: the
        same on each process."""
        return self.align(batch, self.read(batch), draw)

    def read(self, batch: AlignmentBatch) -> LLMStates:
        """The language model's part of a step: one pass over the distinct short texts, one over the instructions."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.short_text_grad == "full"):
            texts = self.read_texts(batch.texts)
        instruction, lm_sum = self.instruct(batch)
        return LLMStates(texts, instruction, lm_sum)

    def align(self, batch: AlignmentBatch, states: LLMStates, draw: int) -> AlignmentLosses:
        """Everything after the language model: `text_mlp`, the SR model, the adapter and Eq. 16."""
        weight = self.contrast_adapter.weight
        empty = weight.new_zeros(1, self.sr.config.hidden_size)
        table = torch.cat([empty, self.sr.embed_text(states.texts.to(weight.dtype))])  # [U + 1, d]; 0: empty text
        own, other = self.prefer(batch, table, self.positions(batch, draw))
        llm = self.contrast_adapter(states.instruction.to(weight.dtype))
        rows = Representations(own, llm, table_rows(table, batch.target), other, batch.target_key)
        parts, health = contrastive_losses(rows, self.objective, gather=self.training)
        if "lm" in self.objective.weights:
            parts = {"lm": states.lm_sum / self.target_tokens(batch), **parts}
        total = sum((weight * parts[name] for name, weight in self.objective.weights.items()), self._untouched())
        return AlignmentLosses(total, {name: value.detach() for name, value in parts.items()}, health)

    def read_texts(self, texts: list[str]) -> Tensor:
        """Pooled states [U, H] of short texts, length-sorted within a token budget."""
        ids = self.texts.tokenize(texts) if texts else []
        batches = token_batches(np.fromiter(map(len, ids), np.int64, len(ids)), self.texts.batch_tokens) if ids else []
        missing = self._missing(len(batches))
        states = self.contrast_adapter.weight.new_zeros(0, self.contrast_adapter.in_features)
        if ids:
            states = self.texts.states(ids, batches=batches)
        for _ in range(missing):
            states = states + 0.0 * self.texts.states([[self.texts.pad_id]])
        return states

    def target_tokens(self, batch: AlignmentBatch) -> Tensor:
        """Target tokens of a process, on average over the processes: the mean of their L_LM is that of all tokens."""
        return average_over_processes((batch.labels != -100).sum().float()).clamp(min=1)

    def positions(self, batch: AlignmentBatch, draw: int) -> tuple[Tensor | None, Tensor | None]:
        """Positions of the video and of the record stream, int64 [n] and [m]: random and rising while training.

        They are drawn for the longest histories of all processes, so that the same step has the same place in each.
        """
        if not (self.training and self.random_positions):
            return None, None
        generator = torch.Generator().manual_seed(draw)
        size = self.sr.config.max_positions
        device = batch.video_titles.device
        widths = (batch.video_titles.shape[1], batch.record_titles.shape[1])
        widest = largest_over_processes(torch.tensor(widths, device=device)).tolist()
        drawn = [torch.randperm(size, generator=generator)[:width].sort().values.to(device) for width in widest]
        return drawn[0][: widths[0]], drawn[1][: widths[1]]

    def instruct(self, batch: AlignmentBatch) -> tuple[Tensor, Tensor]:
        """States [B, H] of the last instruction tokens and the sum of L_LM; instructions of like length together."""
        groups = token_batches(batch.attention_mask.sum(1).cpu().numpy(), self.texts.batch_tokens)
        rows = [torch.from_numpy(group).to(batch.input_ids.device) for group in groups]
        missing = self._missing(len(rows))
        parts = [self._instruct(batch.instructions_of(some)) for some in rows]
        for _ in range(missing):
            states, lm_sum = self._instruct(batch.instructions_of(rows[0][:1]))
            parts[0] = (parts[0][0] + 0.0 * states, parts[0][1] + 0.0 * lm_sum)
        states = torch.cat([part for part, _ in parts]).index_select(0, torch.cat(rows).argsort())
        return states, torch.stack([lm_sum for _, lm_sum in parts]).sum()

    def _missing(self, passes: int) -> int:
        """How many passes fewer this process will run than the one that runs most; 0 unless `equal_passes`."""
        if not self.equal_passes:
            return 0
        most = largest_over_processes(torch.tensor([passes], device=self.texts.device))
        return int(most) - passes

    def _instruct(self, batch: AlignmentBatch) -> tuple[Tensor, Tensor]:
        first = int(batch.last_instruction.min())
        hidden, logits = read_tokens(
            self.llm,
            batch.input_ids,
            batch.attention_mask,
            first=self.first_position,
            # The head runs from the first target on: over whole instructions its logits would fill the memory.
            logits_from=first if "lm" in self.objective.weights else None,
        )
        lm_sum = self.contrast_adapter.weight.new_zeros(())
        if logits is not None:
            lm_sum = language_model_loss(logits, batch.labels[:, first:])
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, batch.last_instruction], lm_sum

    def prefer(
        self, batch: AlignmentBatch, table: Tensor, positions: tuple[Tensor | None, Tensor | None] = (None, None)
    ) -> tuple[Tensor, Tensor]:
        """F_o of the right and of the wrong fused sequence, both [B, d] (Eq. 8, 9, 15).

        `table` [U + 1, d]: the embedded texts behind a row of zeros. `positions` of the two streams; None: 0, 1, …
        """
        title, comment = self.sr.merge_title(table), self.sr.merge_comment(table)
        written = batch.record_comments
        total = F.embedding_bag(written.flatten(0, 1), comment, mode="sum", padding_idx=0).view(*written.shape[:2], -1)
        mean = total / batch.record_counts.clamp(min=1).unsqueeze(2)
        states = self.sr.encode(
            StreamInput(
                table_rows(title, batch.video_titles) + table_rows(comment, batch.video_comments),
                batch.video_len,
                positions=positions[0],
            ),
            StreamInput(
                table_rows(title, batch.record_titles) + mean,
                batch.record_len,
                positions=positions[1],
            ),
        )
        video = self.sr.fuse_video(states), states.video_mask
        record = self.sr.fuse_comment(states), states.comment_mask
        query = table_rows(table, batch.watched)
        own = self._extract(batch.is_video, video, record, query)
        return own, self._extract(batch.is_video, record, video, query)

    def _extract(
        self, is_video: Tensor, videos: tuple[Tensor, Tensor], records: tuple[Tensor, Tensor], query: Tensor
    ) -> Tensor:
        """[B, d]: F_v of `videos` for video instances, F_c of `records` for comment instances."""
        of_video, of_comment = is_video.nonzero().squeeze(1), (~is_video).nonzero().squeeze(1)
        parts = []
        if len(of_video):
            parts.append(self.sr.extract_video(videos[0][of_video], videos[1][of_video]))
        if len(of_comment):
            parts.append(self.sr.extract_comment(records[0][of_comment], records[1][of_comment], query[of_comment]))
        return torch.cat(parts).index_select(0, torch.cat([of_video, of_comment]).argsort())

    def _untouched(self) -> Tensor:
        """Zero, with a gradient path to every trained weight: a batch of one task, or a loss that is off, leaves some
        out, and data-parallel training waits for all (sharded training does not, and its weights are not here)."""
        if self.equal_passes:
            return self.contrast_adapter.weight.new_zeros(())
        return torch.stack([weight.float().sum() * 0.0 for weight in self.parameters() if weight.requires_grad]).sum()

    def small_state(self) -> dict[str, Tensor]:
        """The tensors beside the language model, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(LLM)}

    def load_small_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `small_state` gave."""
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        assert not unexpected and all(name.startswith(LLM) for name in missing)
