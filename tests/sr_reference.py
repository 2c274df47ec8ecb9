"""Small SR models and batches, and the SR model read off the equations one user and one position at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recbole_lsvcr.model.sr import SRConfig, SRModel
from recbole_lsvcr.model.streams import SRBatch

N_ITEMS, N_COMMENTS, WIDTH = 30, 60, 8
SMALL = SRConfig(
    hidden_size=8,
    text_size=6,
    encoder_size=WIDTH,
    n_layers=2,
    n_heads=2,
    inner_size=12,
    max_positions=7,
    initializer_range=0.3,
    n_items=N_ITEMS,
)


def build(config: SRConfig = SMALL, *, seed: int = 0) -> SRModel:
    """A model whose biases and LayerNorms are random too, so that a forgotten one is seen."""
    torch.manual_seed(seed)
    model = SRModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        if model.id_embedding is not None:
            model.id_embedding.weight[0] = 0.0
    return model.eval()


def text_tables(width: int = WIDTH, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Title and comment vectors; row 0 is padding, title 3 and comment 5 are empty texts."""
    generator = torch.Generator().manual_seed(seed)
    titles = torch.randn(N_ITEMS, width, generator=generator)
    comments = torch.randn(N_COMMENTS, width, generator=generator)
    titles[[0, 3]] = 0.0
    comments[[0, 5]] = 0.0
    return titles, comments


LENGTHS = [(0, 0), (0, 4), (5, 0), (1, 1), (7, 7), (3, 5), (7, 2)]


def make_batch(lengths: list[tuple[int, int]] = LENGTHS, *, width: int = 7, k: int = 3, seed: int = 2) -> SRBatch:
    generator = torch.Generator().manual_seed(seed)

    def ids(top: int, *shape: int) -> Tensor:
        return torch.randint(1, top, shape, generator=generator)

    rows = len(lengths)
    video_len, record_len = torch.tensor(lengths).T
    place = torch.arange(width)
    written = ids(N_COMMENTS, rows, width, k) * (torch.arange(k) < ids(k + 1, rows, width, 1))
    return SRBatch(
        video_items=ids(N_ITEMS, rows, width) * (place < video_len[:, None]),
        video_comments=torch.randint(0, N_COMMENTS, (rows, width), generator=generator) * (place < video_len[:, None]),
        video_len=video_len,
        record_items=ids(N_ITEMS, rows, width) * (place < record_len[:, None]),
        record_comments=written * (place < record_len[:, None])[:, :, None],
        record_len=record_len,
        target=ids(N_ITEMS, rows),
    )


def rows_of(batch: SRBatch, rows: list[int]) -> SRBatch:
    return SRBatch(**{name: value[rows] for name, value in vars(batch).items()})


class Reference:
    """Eq. 1-9 for one user, step by step, in plain loops over Python lists of vectors."""

    def __init__(self, model: SRModel, titles: Tensor, comments: Tensor) -> None:
        self.w = {name: value.double() for name, value in model.state_dict().items()}
        self.config, self.titles, self.comments = model.config, titles.double(), comments.double()

    def linear(self, name: str, x: Tensor) -> Tensor:
        out = self.w[f"{name}.weight"] @ x
        return out + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else out

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean()
        scaled = centred / (centred.square().mean() + self.config.layer_norm_eps).sqrt()
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    @staticmethod
    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))

    def text_mlp(self, vector: Tensor) -> Tensor:
        if not vector.any():
            return torch.zeros(self.config.text_size, dtype=torch.float64)
        if self.config.encoder_size is None:
            return vector
        return self.linear("text_mlp.outer", self.gelu(self.linear("text_mlp.inner", vector)))

    def proj(self, embedded: Tensor) -> Tensor:
        return self.linear("text_proj", embedded)

    def identity(self, item: int) -> Tensor:
        if self.config.n_items is None:
            return torch.zeros(self.config.hidden_size, dtype=torch.float64)
        return self.w["gate"] * self.w["id_embedding.weight"][item] * self.w["seen"][item]

    def attend(self, name: str, query: Tensor, memory: list[Tensor]) -> Tensor:
        d, h = self.config.hidden_size, self.config.n_heads
        weight, bias = self.w[f"{name}.projection.weight"], self.w[f"{name}.projection.bias"]
        q = weight[:d] @ query + bias[:d]
        keys = [weight[d : 2 * d] @ x + bias[d : 2 * d] for x in memory]
        values = [weight[2 * d :] @ x + bias[2 * d :] for x in memory]
        heads = []
        for head in range(h):
            part = slice(head * d // h, (head + 1) * d // h)
            exps = [math.exp(float(q[part] @ key[part]) / math.sqrt(d / h)) for key in keys]
            heads.append(sum(e / sum(exps) * value[part] for e, value in zip(exps, values, strict=True)))
        return self.linear(f"{name}.output", torch.cat(heads))

    def layer(self, name: str, query: Tensor, memory: list[Tensor]) -> Tensor:
        x = self.norm(f"{name}.attention_norm", query + self.attend(f"{name}.attention", query, memory))
        return self.norm(
            f"{name}.outer_norm", x + self.linear(f"{name}.outer", self.gelu(self.linear(f"{name}.inner", x)))
        )

    def stream(self, name: str, steps: list[tuple[Tensor, int]]) -> list[Tensor]:
        hidden = [
            self.norm(f"input_norm_{name}", z + self.w[f"position_{name}.weight"][i] + self.identity(item))
            for i, (z, item) in enumerate(steps)
        ]
        for number in range(self.config.n_layers):
            hidden = [self.layer(f"encoder_{name}.{number}", x, hidden[: i + 1]) for i, x in enumerate(hidden)]
        return hidden or [self.w[f"null_{name}"]]

    def states(self, batch: SRBatch, user: int) -> tuple[list[Tensor], list[Tensor]]:
        videos, records = [], []
        for i in range(int(batch.video_len[user])):
            item = int(batch.video_items[user, i])
            comment = self.comments[batch.video_comments[user, i]]
            parts = [self.proj(self.text_mlp(self.titles[item])), self.proj(self.text_mlp(comment))]
            videos.append((self.linear("merge", torch.cat(parts)), item))
        for j in range(int(batch.record_len[user])):
            item = int(batch.record_items[user, j])
            written = [self.text_mlp(self.comments[c]) for c in batch.record_comments[user, j] if c > 0]
            parts = [self.proj(self.text_mlp(self.titles[item])), self.proj(sum(written) / len(written))]
            records.append((self.linear("merge", torch.cat(parts)), item))
        return self.stream("video", videos), self.stream("comment", records)

    def fuse(self, name: str, own: list[Tensor], other: list[Tensor]) -> list[Tensor]:
        return [self.linear(f"fuse_linear_{name}", torch.cat([x, self.layer(f"fusion_{name}", x, other)])) for x in own]

    def extract_video(self, sequence: list[Tensor]) -> Tensor:
        name = "video_extractor"
        f = [
            float(self.linear(f"{name}.weight", self.gelu(self.norm(f"{name}.norm", self.linear(f"{name}.inner", x)))))
            for x in sequence
        ]
        return sum(math.exp(a) / sum(math.exp(b) for b in f) * x for a, x in zip(f, sequence, strict=True))

    def extract_comment(self, sequence: list[Tensor], query: Tensor) -> Tensor:
        return self.norm("comment_extractor.norm", query + self.attend("comment_extractor.attention", query, sequence))

    def query(self, item: int) -> Tensor:
        return self.proj(self.text_mlp(self.titles[item])) + self.identity(item)
