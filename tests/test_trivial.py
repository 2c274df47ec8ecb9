"""The trivial rankings: their order, and that RecBole's trainer runs them like any model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_tables
from recbole.data.interaction import Interaction

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.model.rankings import newest_scores, release_order, text_similarity
from recbole_lsvcr.model.trivial import Newest, Popularity, TextSim

CONFIG = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "NEG_PREFIX": "neg_",
    "MAX_ITEM_LIST_LENGTH": 6,
    "device": torch.device("cpu"),
}


@pytest.fixture(scope="module")
def joint() -> JointData:
    tables = make_tables(3, users=40, videos=70, comments=200, interactions=1000, comment_interactions=300, days=40)
    return JointData(tables, split={"time": [0.5, 0.75]}, max_videos=6, max_records=4)


@pytest.fixture(scope="module")
def dataset(joint: JointData) -> Any:
    """What the models read of `JointDataset`."""
    titles = np.random.default_rng(0).normal(size=(joint.n_items, 8)).astype(np.float32)
    titles[[0, 5]] = 0.0  # padding, and a video without a title
    return SimpleNamespace(
        num=lambda field: joint.n_items, joint=joint, item_time=joint.tables.item_time, title_vectors=lambda: titles
    )


def interaction_of(joint: JointData, rows: np.ndarray) -> Interaction:
    batch = joint.gather("video", rows, training=False)
    return Interaction(
        {
            "user_id": torch.from_numpy(batch.user).long(),
            "item_id": torch.from_numpy(batch.item).long(),
            "timestamp": torch.from_numpy(batch.time),
            "item_id_list": torch.from_numpy(batch.video_items).long(),
            "item_length": torch.from_numpy(batch.video_len).long(),
        }
    )


def test_newest_ranks_what_exists_by_age_and_what_does_not_last() -> None:
    # At today's Unix times float32 cannot tell seconds apart: the order must.
    now = 1_600_000_000.0
    item_time = np.array([-np.inf, now - 1, now, now + 1, now - 2, -np.inf, now, now + 5])
    moments, order = release_order(item_time)
    scores = newest_scores(torch.from_numpy(order), moments, np.array([now, now + 9, now - 100]))
    assert scores.dtype == torch.float32
    assert scores[0, 2] == scores[0, 6]
    assert torch.argsort(-scores[0, 1:], stable=True).add(1).tolist() == [2, 6, 1, 4, 5, 3, 7]
    assert torch.argsort(-scores[1, 1:], stable=True).add(1).tolist() == [7, 3, 2, 6, 1, 4, 5]
    assert torch.argsort(-scores[2, 1:], stable=True).add(1).tolist() == [5, 4, 1, 2, 6, 3, 7]


def test_text_similarity_is_the_cosine_with_the_mean_title() -> None:
    rng = np.random.default_rng(0)
    titles = rng.normal(size=(9, 4)).astype(np.float32)
    titles[[0, 3]] = 0.0
    history = np.array([[1, 2, 0], [4, 3, 5], [3, 0, 0], [0, 0, 0]])
    found = text_similarity(torch.from_numpy(history), torch.from_numpy(titles)).numpy()
    for row, items in enumerate(history):
        texts = titles[[item for item in items if titles[item].any()]]
        mean = texts.mean(axis=0) if len(texts) else np.zeros(4)
        for item in range(9):
            norm = np.linalg.norm(mean) * np.linalg.norm(titles[item])
            assert found[row, item] == pytest.approx(titles[item] @ mean / norm if norm else 0.0, abs=1e-6)


@pytest.mark.parametrize("model_class", [Popularity, Newest, TextSim])
def test_predict_agrees_with_the_full_ranking_and_training_changes_nothing(
    model_class: Any, joint: JointData, dataset: Any
) -> None:
    model = model_class(CONFIG, dataset)
    batch = interaction_of(joint, joint.rows("video", 2)[:20])
    full = model.full_sort_predict(batch)
    assert full.shape == (20, joint.n_items) and torch.isfinite(full).all()
    torch.testing.assert_close(model.predict(batch), full[torch.arange(20), batch["item_id"]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    loss = model.calculate_loss(batch)
    loss.backward()
    optimizer.step()
    assert loss.item() == 0.0
    torch.testing.assert_close(model.full_sort_predict(batch), full)
    full[:, 0] = -torch.inf  # RecBole's trainer masks in place: the next batch must not see it
    assert torch.isfinite(model.full_sort_predict(batch)).all()
    again = model_class(CONFIG, dataset)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.full_sort_predict(batch), model.full_sort_predict(batch))


def test_the_models_rank_as_their_names_say(joint: JointData, dataset: Any) -> None:
    rows = joint.rows("video", 2)[:5]
    batch = interaction_of(joint, rows)
    popular = Popularity(CONFIG, dataset).full_sort_predict(batch)
    assert (popular[:, 1:] == torch.from_numpy(joint.train_item_count[1:]).float()).all()
    newest = Newest(CONFIG, dataset).full_sort_predict(batch)[:, 1:].argmax(dim=1).numpy() + 1
    times = joint.tables.item_time
    for row, item in zip(rows, newest, strict=True):
        now = joint.videos.time[row]
        assert times[item] == times[times <= now].max()


@pytest.mark.parametrize(
    ("model_class", "named"), [(Popularity, "joint"), (Newest, "item_time"), (TextSim, "title_vectors")]
)
def test_without_the_joint_data_set_one_message_says_what_is_missing(model_class: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{model_class.__name__}.*{named}"):
        model_class(CONFIG, SimpleNamespace(num=lambda field: 4))


def test_a_target_that_is_the_newest_video_is_ranked_first_by_newest(joint: JointData, dataset: Any) -> None:
    model = Newest(CONFIG, dataset)
    rows = joint.rows("video", 2)

    class Scorer:
        name = "Newest"

        def score_full(self, batch: Any) -> torch.Tensor:
            return newest_scores(model.order, model.moments, batch.time)

    result = evaluate(Scorer(), joint, "video", 2, ["available+full"], progress=False)
    times, frame = joint.tables.item_time, result.instances
    exists = np.sort(times[1:])
    newest = exists[np.searchsorted(exists, joint.videos.time[rows], side="right") - 1]
    right = times[joint.videos.item[rows]] == newest
    alone = right & (np.searchsorted(exists, newest) == np.searchsorted(exists, newest, side="right") - 1)
    assert alone.sum() > 3
    assert (frame["rank"].to_numpy()[alone] == 1).all()


def test_recboles_trainer_runs_a_trivial_model_through_its_epochs(
    joint: JointData, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole.config import Config
    from recbole.trainer import Trainer

    from recbole_lsvcr.plugin import hidden_argv

    monkeypatch.chdir(tmp_path)
    settings = {"checkpoint_dir": str(tmp_path), "train_neg_sample_args": None, "epochs": 2, "use_gpu": False}
    with hidden_argv():
        config = Config(model="SASRec", dataset="ml-100k", config_dict=settings | {"show_progress": False})
    model = Popularity(CONFIG, dataset)
    batch = interaction_of(joint, joint.rows("video", 0)[:16])
    trainer = Trainer(config, model)
    loader = [batch, batch]
    losses = [trainer._train_epoch(loader, epoch) for epoch in range(2)]
    assert losses == [0.0, 0.0]
