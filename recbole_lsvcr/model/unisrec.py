"""`UniSRec`: items from their text alone, whitened and mixed by experts, in a causal Transformer (Hou et al., "Towards
Universal Sequence Representation Learning for Recommender Systems", KDD 2022, arXiv 2206.05941).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.layers import TransformerEncoder
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.layers import Dropout, has_text, init_weights, table_rows
from recbole_lsvcr.model.losses import cosine_logits, info_nce, normalize
from recbole_lsvcr.model.shell import require_joint


class MoEAdaptor(nn.Module):
    """Text vectors to item vectors: G parametric whitenings, mixed by a noisy gate.

        x̃_k = (x - b_k) W1_k        v = Σ_k g_k x̃_k
        g = softmax(x W2 + δ)        δ = N(0, 1) · softplus(x W3) in training, else 0

    Dropout thins the x of the whitenings, not the gate's; one mask serves all experts. W2 and W3 start at zero: the
    experts begin with equal shares.
    """

    def __init__(
        self, *, text_size: int, hidden_size: int, n_experts: int, dropout: float, initializer_range: float
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_experts, text_size))  # b
        self.whitening = nn.Parameter(torch.empty(text_size, n_experts, hidden_size))  # W1
        self.gate = nn.Parameter(torch.zeros(text_size, n_experts))  # W2
        self.noise = nn.Parameter(torch.zeros(text_size, n_experts))  # W3
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.whitening, std=initializer_range)

    def forward(self, vectors: Tensor) -> Tensor:
        """[N, d] of text vectors [N, H]. The zero vector (an empty text) is not treated apart here."""
        logits = vectors @ self.gate  # [N, G]
        if self.training:
            logits = logits + torch.randn_like(logits) * F.softplus(vectors @ self.noise)
        # (x - b) W = x W - b W: one product for all experts, and no copy of x for each.
        whitened = self.dropout(vectors) @ self.whitening.flatten(1)  # [N, G · d]
        shift = torch.einsum("gh,hgd->gd", self.bias, self.whitening)
        whitened = whitened.view(len(vectors), *shift.shape) - shift
        return torch.bmm(logits.softmax(dim=-1).unsqueeze(1), whitened).squeeze(1)


class UniSRec(SequentialRecommender):
    """UniSRec trained on one data set from scratch: adapted titles, SASRec's encoder, cosine scores at temperature τ.

    The paper first trains on sequences of several domains (sequence-item and sequence-sequence contrast) and then
    tunes the adaptor. There is one domain here, hence no pre-training: all weights are learnt by the fine-tuning loss,
    cross-entropy over the items.

    `transductive` adds an id embedding to an item's vector, in histories and among candidates. The id of a video that
    nobody watches in training would add noise: such a video is its text alone, in training and afterwards. An empty
    title has the zero vector, so that its candidate scores 0 (or by its id).
    Reads a `JointDataset` and its text store.
    """

    input_type = InputType.POINTWISE
    reads_text = True

    titles: Tensor
    seen: Tensor

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        joint, texts = require_joint(self, dataset).joint, dataset.texts
        size = config["hidden_size"]
        self.temperature = config["temperature"]
        self.train_candidates = config["train_candidates"]
        self.adaptor = MoEAdaptor(
            text_size=texts.size,
            hidden_size=size,
            n_experts=config["n_experts"],
            dropout=config["adaptor_dropout_prob"],
            initializer_range=config["initializer_range"],
        )
        self.id_embedding = nn.Embedding(self.n_items, size, padding_idx=0) if config["transductive"] else None
        self.position_embedding = nn.Embedding(self.max_seq_length, size)
        self.input_norm = nn.LayerNorm(size, eps=config["layer_norm_eps"])
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.encoder = TransformerEncoder(
            n_layers=config["n_layers"],
            n_heads=config["n_heads"],
            hidden_size=size,
            inner_size=config["inner_size"],
            hidden_dropout_prob=config["hidden_dropout_prob"],
            attn_dropout_prob=config["attn_dropout_prob"],
            hidden_act=config["hidden_act"],
            layer_norm_eps=config["layer_norm_eps"],
        )
        init_weights(self, config["initializer_range"])
        self.register_buffer("titles", texts.titles, persistent=False)  # [n_items, H]
        self.register_buffer("seen", torch.from_numpy(joint.train_item_count > 0))  # [n_items]
        self._ranking: tuple[tuple[int, ...], Tensor] | None = None

    def _make_items(self) -> Tensor:
        items = self.adaptor(self.titles) * has_text(self.titles).unsqueeze(1)
        return items if self.id_embedding is None else items + self.id_embedding.weight * self.seen.unsqueeze(1)

    def items(self) -> Tensor:
        """Vectors [n_items, d] of all items; row 0 is zero. In a training step noise and dropout are drawn once an
        item; in evaluation the vectors are made once for a state of the weights.
        """
        if torch.is_grad_enabled() or self.training:
            return self._make_items()
        state = tuple(parameter._version for parameter in self.parameters())
        if self._ranking is None or self._ranking[0] != state:
            self._ranking = (state, self._make_items())
        return self._ranking[1]

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, items: Tensor) -> Tensor:
        """Sequence vectors [B, d], the last step's state, of histories [B, L] and `items` [n_items, d]."""
        hidden = table_rows(items, item_seq) + self.position_embedding.weight[: item_seq.shape[1]]
        hidden = self.dropout(self.input_norm(hidden))
        layers = self.encoder(hidden, self.get_attention_mask(item_seq), output_all_encoded_layers=False)
        return self.gather_indexes(layers[-1], item_seq_len - 1)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Cross-entropy of the next item among all, or with `train_candidates: seen` among those seen: a scalar."""
        items = self.items()
        sequence = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], items)
        # Padding, id 0, is no candidate: it is cut off, and the targets move down by one.
        return info_nce(
            sequence,
            items[1:],
            interaction[self.POS_ITEM_ID] - 1,
            temperature=self.temperature,
            mask=self.seen[1:] if self.train_candidates == "seen" else None,
        )

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores cos/τ of every item, [B, n_items]; column 0 is padding."""
        items = self.items()
        sequence = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], items)
        return cosine_logits(sequence, items, self.temperature)

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of the videos in `item_id`."""
        items = self.items()
        sequence = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], items)
        wanted = table_rows(items, interaction[self.ITEM_ID])  # [B, d]
        return (normalize(sequence) * normalize(wanted)).sum(dim=-1) / self.temperature
