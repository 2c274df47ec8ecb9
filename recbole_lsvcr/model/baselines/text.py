"""The text side of the comment baselines: the text store's frozen vectors, or a Hugging Face encoder in training."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.texts import TextVectors
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.layers import TextMLP

Source = Literal["title", "comment"]


class TextSide(Protocol):
    """Vectors of texts by id."""

    def vectors(self, source: Source, ids: Tensor) -> Tensor:
        """[n, d] of distinct ids int64 [n]; the zero vector for padding (0) and empty texts."""


class FrozenText(nn.Module):
    """Text vectors of the store through LSVCR's own text layers (Eq. 1, 2): `H -> H/4 -> GELU -> E -> d`."""

    def __init__(self, texts: TextVectors, *, text_size: int, hidden_size: int) -> None:
        super().__init__()
        self.texts = texts
        self.text_mlp = None if texts.aligned else TextMLP(encoder_size=texts.size, text_size=text_size)
        self.text_proj = nn.Linear(texts.size if texts.aligned else text_size, hidden_size, bias=False)

    def vectors(self, source: Source, ids: Tensor) -> Tensor:
        """As `TextSide.vectors`."""
        stored = self.texts.titles[ids.cpu()].to(ids.device) if source == "title" else self.texts.comments(ids)
        return self.text_proj(stored if self.text_mlp is None else self.text_mlp(stored))


class TrainableText(nn.Module):
    """A Hugging Face encoder, trained with the model: the mean of a text's last hidden states, projected to d.

    Each distinct text of a batch is encoded once, texts of like length together. Outside training a text is encoded
    once for a state of the weights.
    """

    def __init__(self, encoder: Any, joint: JointData, *, hidden_size: int) -> None:
        """`encoder` is a `LanguageModelEncoder`, whose model is made trainable.

        Raises:
            ConfigError: an encoder that has no weights to train.
        """
        super().__init__()
        if not isinstance(encoder, LanguageModelEncoder):
            raise ConfigError(
                "trainable_text names an encoder without weights to train; give minilm, a name or a folder"
            )
        self.encoder = encoder
        self.model = encoder.model.requires_grad_(True)
        for name, weight in self.model.named_parameters():
            weight.requires_grad_("pooler" not in name)  # a pooler is never asked
        self.projection = nn.Linear(encoder.dim, hidden_size)
        self.texts = {"title": joint.tables.titles, "comment": joint.tables.contents}
        self._state: tuple[int, ...] = ()
        self._rows: dict[str, np.ndarray] = {}  # place of an id's vector among `_known`, -1: not encoded yet
        self._known: dict[str, Tensor] = {}

    def vectors(self, source: Source, ids: Tensor) -> Tensor:
        """As `TextSide.vectors`."""
        if self.training or torch.is_grad_enabled():
            return self._encode(source, ids.cpu().numpy()).to(ids.device)
        state = tuple(parameter._version for parameter in self.parameters())
        if state != self._state:
            self._state = state
            self._rows = {name: np.full(len(series), -1) for name, series in self.texts.items()}
            self._known = {name: torch.zeros(0, self.projection.out_features) for name in self.texts}
        wanted, rows = ids.cpu().numpy(), self._rows[source]
        new = wanted[rows[wanted] < 0]
        if len(new):
            have = self._known[source]
            rows[new] = len(have) + np.arange(len(new))
            self._known[source] = torch.cat([have, self._encode(source, new).cpu()])
        return self._known[source][torch.from_numpy(rows[wanted])].to(ids.device)

    def _encode(self, source: Source, ids: np.ndarray) -> Tensor:
        texts = self.texts[source].gather(ids).to_list()
        written = [place for place, text in enumerate(texts) if text]
        device = self.projection.weight.device
        result = torch.zeros(len(ids), self.projection.out_features, device=device)
        if not written:
            return result + 0.0 * self.projection.bias
        tokens = self.encoder.tokenize([texts[place] for place in written])
        encoded = self.projection(self.encoder.states(tokens, recompute=torch.is_grad_enabled()))
        return result.index_copy(0, torch.tensor(written, device=device), encoded)
