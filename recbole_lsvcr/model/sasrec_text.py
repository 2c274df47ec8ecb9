"""`SASRecText`: RecBole's SASRec reading the frozen title vectors instead of ids; what text alone gives a
sequential model.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.errors import DataError


class _TitleEmbedding(nn.Module):
    """Item embeddings computed from frozen title vectors by LSVCR's own text layers: `H -> H/4 -> GELU -> E -> d`
    (Eq. 1-2).
    """

    titles: Tensor

    def __init__(self, titles: Tensor, text_size: int, hidden_size: int) -> None:
        super().__init__()
        size = titles.shape[1]
        self.register_buffer("titles", titles, persistent=False)  # [n_items, H]
        self.text_mlp = nn.Sequential(nn.Linear(size, size // 4), nn.GELU(), nn.Linear(size // 4, text_size))
        self.text_proj = nn.Linear(text_size, hidden_size, bias=False)

    @property
    def weight(self) -> Tensor:
        """[n_items, d]; empty titles and padding are zero."""
        exists = (self.titles != 0).any(dim=-1, keepdim=True)
        return self.text_proj(self.text_mlp(self.titles) * exists)

    def forward(self, items: Tensor) -> Tensor:
        return F.embedding(items, self.weight)


class SASRecText(SASRec):
    """SASRec (RecBole's, unmodified) whose item embedding is a projection of the title's text vector."""

    reads_text = True

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        if not isinstance(dataset, JointDataset):
            raise DataError(
                f"SASRecText reads the joint data set's text store, but was given a {type(dataset).__name__}; "
                "run it with run_lsvcr.py"
            )
        self.item_embedding = _TitleEmbedding(dataset.texts.titles, config["text_size"], self.hidden_size)
        self.item_embedding.apply(self._init_weights)
