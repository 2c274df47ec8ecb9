"""`DMT`: deep multifaceted transformers (Gu et al., CIKM 2020), ranking videos from two behaviours.

One Transformer a behaviour reads a user's history (encoder) and is asked about a candidate (decoder); a mixture of
experts over the answers and the candidate gives its logit. Where this is not the paper's model:

  * The behaviours are the videos watched and the videos under which comments were liked or replied to (the records), in
    place of clicks, carts and orders.
  * One objective, the video interaction, so one gate and one tower: a batch says nothing else of a target, and what
    other candidates a user could have commented under is not known. With one task, MMoE is a mixture of experts.
  * No bias network: the data has neither positions on a page nor the videos that were shown beside a candidate.
  * No dense features (counts, rates, matching of user and item); of the categorical ones a video's id and its
    attributes (`selected_features`, for category, brand and shop). An attribute of several tokens is their mean.
    The authors' program also gives the mixture the mean of each history's embeddings; here it has the answers and the
    candidate alone.
  * Impressions without a click are not in the data: negatives are drawn uniformly, with replacement, from the videos
    seen in training. Their number and the sizes of all layers are ours.
  * Positions count from the oldest video kept, as in this package's other models. An empty history is one step of the
    padding video: a zero vector at the first position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.errors import ConfigError, DataError
from recbole_lsvcr.model.layers import Dropout, TransformerLayer, init_weights, padding_bias, table_rows
from recbole_lsvcr.model.shell import require_joint

LOSSES = ("bce", "softmax")


class _MeanEmbedding(nn.Embedding):
    """The mean of the embeddings of some ids; zero of none."""

    def forward(self, ids: Tensor) -> Tensor:
        """[N, d] of the ids int64 [N, width], 0-padded."""
        return F.embedding_bag(ids, self.weight, mode="mean", padding_idx=0)


class ItemEmbedding(nn.Module):
    """The vector of a video: the embeddings of its id and of its attributes, side by side, as in the paper,
    times √d, as in the authors' code.

    `attributes` holds for each attribute its ids int64 [n_items, width], 0-padded, and how many different ones there
    are; each takes `attribute_size` of the `hidden_size` columns, the video's id the rest.
    """

    def __init__(
        self, n_items: int, attributes: Sequence[tuple[Tensor, int]], *, hidden_size: int, attribute_size: int
    ) -> None:
        super().__init__()
        id_size = hidden_size - attribute_size * len(attributes)
        if id_size < 1:
            raise ConfigError(
                f"hidden_size = {hidden_size} leaves no column for the id beside {len(attributes)} attributes of "
                f"attribute_size = {attribute_size}; lower attribute_size, or name fewer selected_features"
            )
        self.scale = hidden_size**0.5
        self.ids = nn.Embedding(n_items, id_size, padding_idx=0)
        self.attributes = nn.ModuleList(_MeanEmbedding(count, attribute_size, padding_idx=0) for _, count in attributes)
        for number, (values, _) in enumerate(attributes):
            self.register_buffer(f"values_{number}", values, persistent=False)  # [n_items, width]

    def forward(self, items: Tensor) -> Tensor:
        """[..., d] of the ids int64 [...]; zero for padding. Each different video is made once."""
        some, place = items.unique(return_inverse=True)
        parts = [self.ids(some)]
        for number, table in enumerate(self.attributes):
            parts.append(table(getattr(self, f"values_{number}")[some]))
        return table_rows(torch.cat(parts, dim=1) * self.scale, place)


class Memory(NamedTuple):
    """One behaviour of a batch after the encoder."""

    states: Tensor  # [B, n, d]
    bias: Tensor  # [B, 1, n] 0 at existing steps, -inf at padding


class InterestTransformer(nn.Module):
    """The deep interest transformer of one behaviour.

    Encoder: vectors and learned positions through layers of self-attention, without a causal mask. Decoder: layers in
    which the candidate is the query and the encoder's states are keys and values; its output is the user's interest in
    this behaviour as the candidate sees it. Candidates do not see one another, so any number is decoded at once.
    """

    def __init__(self, *, max_positions: int, n_layers: int, decoder_layers: int, dropout: float, **layer: Any) -> None:
        super().__init__()
        self.positions = nn.Embedding(max_positions, layer["hidden_size"])
        self.dropout = Dropout(dropout)
        self.encoder, self.decoder = (
            nn.ModuleList(TransformerLayer(hidden_dropout=dropout, **layer) for _ in range(count))
            for count in (n_layers, decoder_layers)
        )

    def encode(self, vectors: Tensor, length: Tensor) -> Memory:
        """The memory of `vectors` [B, n, d] (zero at padding) with `length` [B] steps, 0 for an empty history."""
        place = torch.arange(vectors.shape[1], device=vectors.device)
        bias = padding_bias(place < length.clamp(min=1).unsqueeze(1), vectors)
        states = self.dropout(vectors + self.positions(place))
        for layer in self.encoder:
            states = layer(states, None, bias)
        return Memory(states, bias)

    def decode(self, memory: Memory, candidates: Tensor) -> Tensor:
        """The user vectors [B, C, d] under the candidates [B, C, d]."""
        states = self.dropout(candidates)
        for layer in self.decoder:
            states = layer(states, memory.states, memory.bias)
        return states


class MixtureOfExperts(nn.Module):
    """The experts, gate and tower of one task (MMoE, Ma et al., KDD 2018): x -> logit.

    f(x) = Σ_i softmax(G x)_i e_i(x) over the experts, MLPs with ReLU; the logit is an MLP of f(x) with one hidden
    layer.
    """

    def __init__(self, size: int, *, n_experts: int, expert_sizes: Sequence[int], tower_size: int, dropout: float):
        super().__init__()
        self.experts = nn.ModuleList(self._expert((size, *expert_sizes), dropout) for _ in range(n_experts))
        self.gate = nn.Linear(size, n_experts)
        self.tower = nn.Sequential(nn.Linear(expert_sizes[-1], tower_size), nn.ReLU(), nn.Linear(tower_size, 1))

    @staticmethod
    def _expert(sizes: Sequence[int], dropout: float) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), Dropout(dropout)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [...] of `x` [..., size]."""
        shares = self.gate(x).softmax(dim=-1).unbind(dim=-1)
        mixed = sum(share.unsqueeze(-1) * expert(x) for share, expert in zip(shares, self.experts, strict=True))
        return self.tower(mixed).squeeze(-1)


class DMT(SequentialRecommender):
    """Deep multifaceted transformers on the joint data set; see the module for what differs from the paper.

    Trained as in the paper by the binary cross-entropy of the logits, mean over every positive and its negatives, or
    (`train_loss: softmax`) by the softmax over a positive and its negatives. Negatives come from PyTorch's default
    generator, which the trainer seeds for every epoch.
    """

    input_type = InputType.POINTWISE
    reads_comments = True
    attributes_optional = True  # `selected_features: []`

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        joint = require_joint(self, dataset).joint
        self.train_loss = config["train_loss"]
        if self.train_loss not in LOSSES:
            raise ConfigError(f"train_loss = {self.train_loss!r} is not accepted; accepted: {', '.join(LOSSES)}")
        self.negatives = int(config["video_negatives"])
        self.pairs_at_once = int(config["pairs_at_once"])
        size, dropout = int(config["hidden_size"]), config["hidden_dropout_prob"]
        self.items = ItemEmbedding(
            joint.n_items,
            _attributes(dataset, config["selected_features"] or []),
            hidden_size=size,
            attribute_size=int(config["attribute_size"]),
        )
        layer = {
            "hidden_size": size,
            "n_heads": config["n_heads"],
            "inner_size": config["inner_size"],
            "attn_dropout": config["attn_dropout_prob"],
            "hidden_act": config["hidden_act"],
            "eps": config["layer_norm_eps"],
        }
        self.watched, self.commented = (
            InterestTransformer(
                max_positions=positions,
                n_layers=config["n_layers"],
                decoder_layers=config["decoder_layers"],
                dropout=dropout,
                **layer,
            )
            for positions in (joint.max_videos, joint.max_records)
        )
        init_weights(self, config["initializer_range"])
        # The experts keep PyTorch's own first weights: at `initializer_range` a logit would be nothing but its bias.
        self.mixture = MixtureOfExperts(
            3 * size,  # two user vectors and the candidate
            n_experts=config["n_experts"],
            expert_sizes=config["expert_sizes"],
            tower_size=config["tower_size"],
            dropout=dropout,
        )
        seen = torch.from_numpy(dataset.seen_items)
        pool = seen.nonzero().squeeze(1)
        if len(pool) < 2:
            raise DataError(
                f"data set '{dataset.dataset_name}' has {len(pool)} video in its training period; DMT needs another "
                "one as a negative: move the boundaries of the split"
            )
        self.register_buffer("pool", pool, persistent=False)  # the videos that negatives are drawn from, ascending
        self.register_buffer("place", seen.long().cumsum(0) - 1, persistent=False)  # of a video in the pool

    # ------------------------------------------------------------------ training

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of a batch, a scalar."""
        target = interaction[self.ITEM_ID]
        candidates = torch.cat([target.unsqueeze(1), self.draw_negatives(target)], dim=1)  # [B, 1 + n]
        logits = self.score_candidates(interaction, candidates)
        if self.train_loss == "softmax":
            return F.cross_entropy(logits, torch.zeros_like(target))
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1.0
        return F.binary_cross_entropy_with_logits(logits, labels)

    def draw_negatives(self, target: Tensor) -> Tensor:
        """int64 [B, n] videos of the training period, each other than its row's `target` int64 [B]."""
        drawn = torch.randint(len(self.pool) - 1, (len(target), self.negatives)).to(target.device)
        return self.pool[drawn + (drawn >= self.place[target].unsqueeze(1))]

    # ------------------------------------------------------------------ scores

    def encode(self, interaction: Interaction) -> list[Memory]:
        """The memory of every behaviour; what a batch needs once, whatever the candidates."""
        return [
            self._memory(self.watched, interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]),
            self._memory(self.commented, interaction["record_item_list"], interaction["record_length"]),
        ]

    def _memory(self, transformer: InterestTransformer, history: Tensor, length: Tensor) -> Memory:
        longest = max(int(length.max()), 1)
        return transformer.encode(self.items(history[:, :longest]), length)

    def interests(self, memories: Sequence[Memory], candidates: Tensor) -> list[Tensor]:
        """The user vector [B, C, d] of every behaviour under the candidates [B, C, d]."""
        watched, commented = memories
        return [self.watched.decode(watched, candidates), self.commented.decode(commented, candidates)]

    def _scores(self, memories: Sequence[Memory], candidates: Tensor) -> Tensor:
        """Logits [B, C] of candidates [B, C, d]: so many columns at a time that no more than `pairs_at_once` pairs of
        an instance and a candidate are in memory (one column at least); in training all, as autograd keeps them anyway.
        """
        step = candidates.shape[1] if self.training else max(self.pairs_at_once // len(candidates), 1)
        parts = [
            self.mixture(torch.cat([*self.interests(memories, some), some], dim=-1))
            for some in candidates.split(step, dim=1)
        ]
        return torch.cat(parts, dim=1)

    def score_candidates(self, interaction: Interaction, items: Tensor) -> Tensor:
        """Logits [B, C] of the videos int64 [B, C]."""
        return self._scores(self.encode(interaction), self.items(items))

    def forward(self, interaction: Interaction) -> Tensor:
        """Logits [B] of the videos in `item_id`."""
        return self.score_candidates(interaction, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of the videos in `item_id`."""
        return self.forward(interaction)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Logits of every video, [B, n_items]; -inf in column 0, which is padding."""
        everything = self.items(torch.arange(1, self.n_items, device=self.pool.device))
        scores = self._scores(self.encode(interaction), everything.expand(len(interaction), -1, -1))
        return F.pad(scores, (1, 0), value=-torch.inf)


def _attributes(dataset: JointDataset, fields: Sequence[str]) -> list[tuple[Tensor, int]]:
    """Ids int64 [n_items, width] and how many there are, of the attributes."""
    columns = [(dataset.item_feat[field], dataset.field2id_token[field]) for field in fields]
    return [(values.view(len(values), -1), len(names)) for values, names in columns]
