"""The text store: every text encoded once, a kill loses nothing, and a store of something else is named."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from recbole_lsvcr import folders
from recbole_lsvcr.encoding import TextStore, announce, build, build_store
from recbole_lsvcr.errors import ConfigError, StoreError
from recbole_lsvcr.folders import exclusive

ROOT = Path(__file__).resolve().parents[1]


class FakeEncoder:
    """A vector that any text decides alone; remembers what it was given."""

    def __init__(self, dim: int = 8, name: str = "fake", fingerprint: str = "f" * 64, unknown: float = 0.0) -> None:
        self.dim, self.name, self.fingerprint, self.unknown = dim, name, fingerprint, unknown
        self.seen: list[str] = []

    def describe(self) -> dict[str, Any]:
        own = {"encoder": self.name, "encoder_fingerprint": self.fingerprint, "pooling": "mean", "max_tokens": 512}
        return own | {"precision": "float32", "language_model": False}

    def encode(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        return vectors_of(texts, self.dim)

    def unknown_share(self, texts: list[str]) -> float:
        return self.unknown


def vectors_of(texts: list[str], dim: int = 8) -> np.ndarray:
    """The vectors that `FakeEncoder` gives."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=dim) for text in texts]
    return np.array(rows, np.float32).reshape(-1, dim)


def _series(pairs: dict[str, str]) -> tuple[pl.Series, pl.Series]:
    return pl.Series(list(pairs), dtype=pl.Utf8), pl.Series(list(pairs.values()), dtype=pl.Utf8)


TITLES = {"v1": "Best VGM 2201", "v2": "Best VGM 2202", "v0": "", "v3": "ゼルダの音楽 第３回"}
COMMENTS = {"c1": "so good", "c2": "NA", "c3": "so good", "c4": "  ", "c5": 'a\u200d"quote" 😀', "c6": "Best VGM 2201"}


def _texts(titles: dict[str, str] = TITLES, comments: dict[str, str] = COMMENTS):
    return {"title": _series(titles), "comment": _series(comments)}


def _many(count: int = 300, start: int = 0) -> dict[str, str]:
    return {f"c{i}": f"{'la ' * (i * 7 % 40)}comment number {i}" for i in range(start, start + count)}


def _stored(store: TextStore, kind: str, pairs: dict[str, str]) -> np.ndarray:
    return np.asarray(store.vectors()[store.lookup(kind, list(pairs), strict=True)])


def test_every_token_finds_the_vector_of_its_text(tmp_path):
    encoder = FakeEncoder()
    store = build_store(tmp_path, _texts(), encoder)
    for kind, pairs in (("title", TITLES), ("comment", COMMENTS)):
        expected = vectors_of(list(pairs.values()))
        expected[[not text.strip() for text in pairs.values()]] = 0  # an empty text is the zero vector
        np.testing.assert_array_equal(_stored(store, kind, pairs), expected)
    assert sorted(encoder.seen) == sorted({text for text in [*TITLES.values(), *COMMENTS.values()] if text.strip()})
    assert store.rows == len(encoder.seen) + 1 and not store.vectors()[0].any()
    assert store.vectors().flags.writeable is False


def test_lookup_says_what_is_empty_and_what_is_not_stored(tmp_path):
    store = build_store(tmp_path, _texts(), FakeEncoder())
    rows = store.lookup("comment", pl.Series(["c4", "nope", "c1", "c3", "v1"]))
    assert rows.dtype == np.int64
    assert rows[[0, 1, 4]].tolist() == [0, -1, -1] and rows[2] == rows[3] > 0
    assert store.lookup("title", []).tolist() == []
    with pytest.raises(StoreError, match="lacks 2 of 3 comments, the first 'x'"):
        store.lookup("comment", ["c1", "x", "y"], strict=True)
    with pytest.raises(StoreError, match="has no 'reply'; it has title, comment"):
        store.lookup("reply", ["r1"])


def test_the_order_of_the_texts_changes_no_byte_of_the_vectors(tmp_path):
    backwards = [dict(reversed(pairs.items())) for pairs in (TITLES, COMMENTS)]
    build_store(tmp_path / "a", _texts(), FakeEncoder())
    build_store(tmp_path / "b", _texts(*backwards), FakeEncoder())
    assert (tmp_path / "a" / "vectors.bin").read_bytes() == (tmp_path / "b" / "vectors.bin").read_bytes()


def test_masked_digits_are_encoded_and_deduplicated_as_hashes(tmp_path):
    encoder = FakeEncoder()
    store = build_store(tmp_path, _texts(), encoder, transform="mask_digits")
    assert "Best VGM ####" in encoder.seen and "ゼルダの音楽 第#回" in encoder.seen
    rows = store.lookup("title", ["v1", "v2"])
    assert rows[0] == rows[1] == store.lookup("comment", ["c6"])[0]
    assert store.manifest["transform"] == "mask_digits"


def test_float16_halves_the_store_and_rounds_once(tmp_path):
    store = build_store(tmp_path, _texts(), FakeEncoder(), dtype="float16")
    assert store.vectors().dtype == np.float16
    assert (tmp_path / "vectors.bin").stat().st_size == store.rows * 8 * 2
    np.testing.assert_array_equal(_stored(store, "title", {"v1": ""})[0], vectors_of(["Best VGM 2201"])[0].astype("f2"))


def test_a_store_of_empty_texts_and_a_kind_without_texts(tmp_path):
    encoder = FakeEncoder()
    store = build_store(tmp_path, _texts({"v1": "", "v2": " "}, {}), encoder)
    assert encoder.seen == [] and store.rows == 1
    assert store.lookup("title", ["v1", "v2"]).tolist() == [0, 0]
    assert store.lookup("comment", ["c1"]).tolist() == [-1]


@pytest.mark.parametrize(
    ("value", "dtype", "says"), [(1e5, "float16", "beyond float16"), (np.nan, "float32", "is not finite")]
)
def test_vectors_that_are_not_finite_stop_the_build_and_name_the_text(tmp_path, value, dtype, says):
    encoder = FakeEncoder()
    encoder.encode = lambda texts: np.full((len(texts), 8), value, np.float32)
    with pytest.raises(StoreError, match=f"'.*' .*{says}"):
        build_store(tmp_path, _texts(), encoder, dtype=dtype)
    with pytest.raises(StoreError, match="unfinished"):
        TextStore.open(tmp_path)


def test_size_unknown_share_and_time_are_said_before_the_work(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(announce, "TIMED", (4, 8))
    encoder = FakeEncoder(unknown=0.02)
    with caplog.at_level(logging.INFO):
        build_store(tmp_path, {"comment": _series(_many())}, encoder)
    said = caplog.text
    assert "300 comments (0 of them empty, 300 not yet stored), 300 distinct texts" in said
    assert "301 rows of 8 float32, 0.0 MB" in said and "Unknown tokens: 2.0%" in said and "texts per second" in said
    assert len(encoder.seen) == 300 + 4 + 8  # the estimate is taken from a sample


def test_the_wrong_language_stops_before_the_work_unless_allowed(tmp_path):
    encoder = FakeEncoder(unknown=0.31, name="latin")
    with pytest.raises(StoreError, match=r"31% of the tokens .* unknown to the text encoder latin \(limit 30%\)"):
        build_store(tmp_path, _texts(), encoder)
    assert encoder.seen == []
    build_store(tmp_path, _texts(), encoder, max_unknown_share=0.5)


# --- one store for many runs ------------------------------------------------------------------------------------------


def test_a_store_that_covers_the_texts_costs_no_encoding(tmp_path):
    build_store(tmp_path, _texts(), FakeEncoder())
    before = (tmp_path / "manifest.json").read_bytes()
    moved = FakeEncoder(name="the same model elsewhere")
    for texts in (_texts(), {"title": _series({"v2": TITLES["v2"]})}):
        build_store(tmp_path, texts, moved)
    assert moved.seen == [] and (tmp_path / "manifest.json").read_bytes() == before


def test_more_texts_extend_the_store_and_leave_what_is_there(tmp_path):
    first = build_store(tmp_path, {"title": _series(TITLES)}, FakeEncoder())
    old_rows, old_bytes = first.lookup("title", list(TITLES)), (tmp_path / "vectors.bin").read_bytes()
    encoder = FakeEncoder()
    titles = {**TITLES, "v9": "new title"}
    store = build_store(tmp_path, _texts(titles), encoder)
    assert sorted(encoder.seen) == sorted({"new title", "so good", "NA", COMMENTS["c5"]})
    assert store.lookup("title", list(TITLES)).tolist() == old_rows.tolist()
    assert (tmp_path / "vectors.bin").read_bytes()[: len(old_bytes)] == old_bytes
    np.testing.assert_array_equal(_stored(store, "comment", {"c1": ""}), vectors_of(["so good"]))
    assert store.lookup("comment", ["c6"]).tolist() == store.lookup("title", ["v1"]).tolist()
    assert store.manifest["kinds"] == {"title": 5, "comment": 6}
    # who was given the smaller store may go on using the larger one; and the old handle still reads its rows
    TextStore.open(tmp_path, expect={"text_hash": first.manifest["text_hash"]})
    np.testing.assert_array_equal(first.vectors(), store.vectors()[: first.rows])
    only_duplicates = build_store(tmp_path, {"comment": _series({"c77": "NA", "c78": ""})}, FakeEncoder())
    assert only_duplicates.rows == store.rows
    assert only_duplicates.lookup("comment", ["c77", "c78"]).tolist() == [store.lookup("comment", ["c2"])[0], 0]


STALE = {
    "encoder": ({"encoder": FakeEncoder(name="other", fingerprint="e" * 64)}, "encoder is 'fake', expected 'other'"),
    "dim": ({"encoder": FakeEncoder(dim=4)}, "dim is 8, expected 4"),
    "dtype": ({"dtype": "float16"}, "dtype is 'float32', expected 'float16'"),
    "transform": ({"transform": "mask_digits"}, "transform is 'none', expected 'mask_digits'"),
    "data set": ({"dataset_fingerprint": "b" * 64}, "dataset_fingerprint is 'a', expected bbbbbbbbbbbb"),
    "text": ({"texts": _texts({**TITLES, "v2": "changed"})}, "1 title texts have changed, the first of 'v2'"),
}


def _build(folder: Path, **changes: Any) -> TextStore:
    options = {"texts": _texts(), "encoder": FakeEncoder(), "dataset_fingerprint": "a", **changes}
    return build_store(folder, options.pop("texts"), options.pop("encoder"), **options)


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("key", STALE)
def test_a_store_of_something_else_is_named_and_overwritten_only_on_demand(tmp_path, key, unfinished, monkeypatch):
    changes, says = STALE[key]
    if unfinished:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(FakeEncoder, "encode", _interrupt)
            _build(tmp_path)
        says = {"encoder": "encoder_fingerprint is ffffffffffff", "text": "text_hash is"}.get(key, says)
    else:
        _build(tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    before = _contents(tmp_path)
    with pytest.raises(StoreError, match=says) as caught:
        _build(tmp_path, **changes)
    assert "overwrite" in str(caught.value) and _contents(tmp_path) == before
    store = _build(tmp_path, **changes, overwrite=True)
    fresh = _build(tmp_path.with_name(tmp_path.name + "-fresh"), **changes)
    assert store.manifest == fresh.manifest and (tmp_path / "notes.txt").read_text() == "kept"
    np.testing.assert_array_equal(store.vectors(), fresh.vectors())


def _interrupt(self: FakeEncoder, texts: list[str]) -> np.ndarray:
    raise KeyboardInterrupt


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_open_names_every_key_that_differs_with_both_values(tmp_path):
    _build(tmp_path)
    TextStore.open(tmp_path, expect={"encoder": "fake", "transform": "none", "max_tokens": 512})
    with pytest.raises(StoreError) as caught:
        TextStore.open(
            tmp_path, expect={"encoder": "minilm", "dtype": "float32", "transform": "mask_digits", "colour": 1}
        )
    for part in ("encoder is 'fake', expected 'minilm'", "transform is 'none', expected 'mask_digits'", "encode again"):
        assert part in str(caught.value)
    assert "colour is not recorded, expected 1" in str(caught.value) and "dtype" not in str(caught.value)
    with pytest.raises(StoreError, match=r"there is no text store in .*; run the encode stage first"):
        TextStore.open(tmp_path / "elsewhere")


@pytest.mark.parametrize("damage", ["cut vectors", "no vectors", "no index", "cut index", "manifest", "format", "keys"])
def test_a_damaged_store_is_named_and_can_be_overwritten(tmp_path, damage):
    manifest = _build(tmp_path).manifest
    if damage == "cut vectors":
        (tmp_path / "vectors.bin").write_bytes((tmp_path / "vectors.bin").read_bytes()[:-1])
    elif damage == "no vectors":
        (tmp_path / "vectors.bin").unlink()
    elif damage == "no index":
        (tmp_path / "comment-000.parquet").unlink()
    elif damage == "cut index":
        (tmp_path / "comment-000.parquet").write_bytes((tmp_path / "comment-000.parquet").read_bytes()[:50])
    else:
        broken = {"manifest": "{", "format": json.dumps({**manifest, "format": 99}), "keys": '{"format": 1}'}
        (tmp_path / "manifest.json").write_text(broken[damage])
    with pytest.raises(StoreError, match="overwrite"):
        TextStore.open(tmp_path).lookup("comment", ["c1"])
    with pytest.raises(StoreError, match="overwrite"):
        _build(tmp_path)
    assert _build(tmp_path, overwrite=True).manifest == manifest


@pytest.mark.parametrize(
    ("texts", "error", "says"),
    [
        ({}, StoreError, "no texts"),
        (
            {"title": (pl.Series(["a", "a"]), pl.Series(["x", "y"]))},
            StoreError,
            "title token 'a' occurs more than once",
        ),
        ({"title": (pl.Series(["a", "b"]), pl.Series(["x"]))}, StoreError, "2 title tokens came with 1 texts"),
        ({"title": (pl.Series(["a"]), pl.Series([None], dtype=pl.Utf8))}, StoreError, "null title tokens or texts"),
        ({"../x": (pl.Series(["a"]), pl.Series(["x"]))}, StoreError, "cannot name a kind"),
    ],
)
def test_texts_that_cannot_be_stored_are_named(tmp_path, texts, error, says):
    with pytest.raises(error, match=says):
        build_store(tmp_path, texts, FakeEncoder())


def test_overwriting_removes_nothing_before_the_new_texts_are_known_to_be_good(tmp_path):
    _build(tmp_path)
    before = _contents(tmp_path)
    for changes in ({"texts": {"title": (pl.Series(["a", "a"]), pl.Series(["x", "y"]))}}, {"transform": "upper"}):
        with pytest.raises((StoreError, ConfigError)):
            _build(tmp_path, **{"dtype": "float16", **changes}, overwrite=True)
        assert _contents(tmp_path) == before


def test_options_that_are_not_accepted_are_named(tmp_path):
    with pytest.raises(ConfigError, match="'int8'; accepted: float32, float16"):
        build_store(tmp_path, _texts(), FakeEncoder(), dtype="int8")
    with pytest.raises(ConfigError, match="'upper'; accepted: none, mask_digits"):
        build_store(tmp_path, _texts(), FakeEncoder(), transform="upper")


# --- kills, full disks, other processes -------------------------------------------------------------------------------

WORKER = """
    import logging, os, resource, signal, sys
    import polars as pl
    from recbole_lsvcr.encoding import build, build_store
    sys.path.insert(0, {tests!r})
    from test_text_store import FakeEncoder, _many, _series

    build.CHUNK_COST = 1000
    {before}
    build_store({folder!r}, {{"comment": _series(_many())}}, globals().get("encoder") or FakeEncoder())
"""
KILLS = {
    "while encoding": """
    class encoder(FakeEncoder):
        def encode(self, texts):
            if len(self.seen) > 100:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(texts)
    encoder = encoder()""",
    "vectors written, not recorded": """
    record, calls = build._Build._record, []
    def killed(self, file, rows):
        calls.append(rows)
        if len(calls) == 4:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return record(self, file, rows)
    build._Build._record = killed""",
    "before the manifest": """
    write = build.write_json
    def killed(path, value):
        if path.name == "manifest.json":
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, value)
    build.write_json = killed""",
    "after the manifest": """
    unlink = build.Path.unlink
    def killed(self, **options):
        if self.name == "progress.json":
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(self, **options)
    build.Path.unlink = killed""",
}


def _worker(folder: Path, *, before: str = "") -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(WORKER).format(tests=str(ROOT / "tests"), folder=str(folder), before=textwrap.dedent(before))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("moment", "extension"),
    [*((moment, False) for moment in KILLS), ("while encoding", True), ("before the manifest", True)],
)
def test_a_killed_build_continues_and_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path, moment, extension, monkeypatch
):
    monkeypatch.setattr(build, "CHUNK_COST", 1000)
    texts = {"comment": _series(_many(300))}
    for folder in ("killed", "undisturbed"):
        if extension:
            build_store(tmp_path / folder, {"comment": _series(_many(50))}, FakeEncoder())
    build_store(tmp_path / "undisturbed", texts, FakeEncoder())

    killed = _worker(tmp_path / "killed", before=KILLS[moment])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if extension:  # a killed extension leaves the store as it was
        rows = TextStore.open(tmp_path / "killed").lookup("comment", list(_many(50)), strict=True)
        assert (rows > 0).all()
    elif moment != "after the manifest":
        with pytest.raises(StoreError, match=r"is unfinished .* run the encode stage again"):
            TextStore.open(tmp_path / "killed")

    encoder = FakeEncoder()
    store = build_store(tmp_path / "killed", texts, encoder)
    assert len(encoder.seen) < (200 if extension else 290)
    (tmp_path / "killed" / "progress.json").unlink(missing_ok=True)
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "undisturbed")
    np.testing.assert_array_equal(_stored(store, "comment", _many(300)), vectors_of(list(_many(300).values())))


def test_an_extension_by_other_texts_than_the_killed_one_starts_from_the_finished_store(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CHUNK_COST", 1000)
    build_store(tmp_path, {"comment": _series(_many(50))}, FakeEncoder())
    assert _worker(tmp_path, before=KILLS["while encoding"]).returncode == -signal.SIGKILL
    other = _many(20, start=1000)
    store = build_store(tmp_path, {"comment": _series(other)}, FakeEncoder())
    for pairs in (other, _many(50)):
        np.testing.assert_array_equal(_stored(store, "comment", pairs), vectors_of(list(pairs.values())))


def test_a_full_disk_is_one_message_and_the_next_try_continues(tmp_path):
    """A limit on the size of files fails a write exactly as a full disk does, in the middle of the vectors."""
    limit = """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"""
    failed = _worker(tmp_path, before=limit)
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith("recbole_lsvcr.errors.StoreError: the text store")
    assert "File too large; mend that, and the same command continues" in failed.stderr
    with pytest.raises(StoreError, match="unfinished"):
        TextStore.open(tmp_path)
    encoder = FakeEncoder()
    store = build_store(tmp_path, {"comment": _series(_many())}, encoder)
    assert len(encoder.seen) < 200
    np.testing.assert_array_equal(_stored(store, "comment", _many()), vectors_of(list(_many().values())))


def test_a_disk_too_small_is_known_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(announce.shutil, "disk_usage", lambda path: SimpleNamespace(free=5000))
    encoder = FakeEncoder()
    with pytest.raises(StoreError, match=r"needs .* MB more, its disk has 0.0 MB free"):
        build_store(tmp_path, {"comment": _series(_many())}, encoder)
    assert encoder.seen == []


def test_a_folder_that_is_a_file_is_one_message(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be written: File exists"):
        build_store(tmp_path / "store", _texts(), FakeEncoder())


def test_a_second_process_waits_for_the_store_and_encodes_nothing_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, second = FakeEncoder(), FakeEncoder()
    with ThreadPoolExecutor(1) as pool:
        with exclusive(tmp_path, "text store"):
            waiting = pool.submit(build_store, tmp_path, _texts(), second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            with patch.object(build, "exclusive", lambda *_: nullcontext()):
                build_store(tmp_path, _texts(), first)
        assert waiting.result(timeout=30).rows > 1
    assert first.seen and not second.seen
    assert "waiting for it" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, caplog, monkeypatch, number):
    caplog.set_level(logging.INFO)

    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.fcntl, "flock", fail)
    assert build_store(tmp_path, _texts(), FakeEncoder()).rows > 1
    assert "let one process at a time use the text store" in caplog.text
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), exclusive(tmp_path, "text store"):
        pass


def test_a_store_is_read_without_transformers_peft_and_recbole(tmp_path):
    build_store(tmp_path, _texts(), FakeEncoder())
    code = f"""
    import sys
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("transformers", "tokenizers", "peft", "recbole", "sentence_transformers"):
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Absent())
    from recbole_lsvcr.encoding import TextStore, build_store, load_encoder
    store = TextStore.open({str(tmp_path)!r}, expect={{"encoder": "fake"}})
    assert store.vectors()[store.lookup("title", ["v1"])].any()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_language_models_store_is_the_same_after_a_break(tmp_path, monkeypatch):
    """Float arithmetic depends on the batch: what is encoded after a break must come from the same batches."""
    import torch  # here, since the workers above import this file and have no use for it

    from recbole_lsvcr.encoding.language_model import LanguageModelEncoder

    class Letters:
        """As little of a tokenizer as the encoder asks for: one token per letter."""

        unk_token_id = pad_token_id = None
        model_max_length = 128

        def num_special_tokens_to_add(self) -> int:
            return 0

        def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, list[list[int]]]:
            return {"input_ids": [list(text.encode())[:max_length] for text in texts]}

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(256, 16)
            self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

        def get_input_embeddings(self) -> torch.nn.Module:
            return self.embedding

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> SimpleNamespace:
            padding = None if attention_mask is None else attention_mask == 0
            return SimpleNamespace(
                last_hidden_state=self.layer(self.embedding(input_ids), src_key_padding_mask=padding)
            )

    monkeypatch.setattr(build, "CHUNK_COST", 1000)
    torch.manual_seed(0)
    encoder = LanguageModelEncoder(Model(), Letters(), name="tiny", fingerprint="t", batch_tokens=256)
    texts = {"comment": _series(_many())}
    build_store(tmp_path / "whole", texts, encoder)

    encode, calls = encoder.encode, []

    def broken(texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(texts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder, "encode", broken)
        build_store(tmp_path / "broken", texts, encoder)
    assert (tmp_path / "broken" / "progress.json").exists()
    build_store(tmp_path / "broken", texts, encoder)
    assert _contents(tmp_path / "whole") == _contents(tmp_path / "broken")
