"""A checkpoint of alignment survives whatever happens, gives back what was saved, and says what is wrong with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import ALL, LAYERS, logits, save, transformers

from recbole_lsvcr.alignment import checkpoint as checkpoint_module
from recbole_lsvcr.alignment.checkpoint import load_alignment, load_sr_weights, read_description, save_alignment
from recbole_lsvcr.alignment.load import LoadedLM, add_lora, load_causal_lm
from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.folders import replaced_folder

pytest.importorskip("peft", reason="LoRA needs peft")


def trained(folder: Path, seed: int = 0, **options: int) -> tuple[LoadedLM, object]:
    """A model with LoRA weights as training might leave them."""
    lm = load_causal_lm(folder)
    model = add_lora(lm.model, **{"dropout": 0.0, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return lm, model


def pair_state(seed: int = 0, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, width, generator=generator)
    return {"sr.merge.weight": weight, "sr.tied.weight": weight, "contrast_adapter.weight": weight[:2].clone()}


def write(folder: Path, base: Path, seed: int = 0) -> tuple[LoadedLM, object]:
    lm, model = trained(base, seed)
    description = {
        "base_model": lm.name,
        "base_fingerprint": lm.fingerprint,
        "settings": {"seed": seed},
        "sizes": (6, 4),
    }
    save_alignment(folder, pair_state=pair_state(seed), peft_model=model, description=description)
    return lm, model


def read(folder: Path, base: Path, **options: object):
    lm = load_causal_lm(base)
    return load_alignment(folder, lm.model, name=lm.name, fingerprint=lm.fingerprint, **options)


@pytest.fixture(scope="module")
def saved(tiny_lms, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "alignment"
    write(folder, tiny_lms["llama"])
    return folder


@pytest.mark.parametrize("kind", ALL)
def test_a_checkpoint_gives_back_what_was_saved(tiny_lms, tmp_path, kind):
    _, model = write(tmp_path / "alignment", tiny_lms[kind])
    found = read(tmp_path / "alignment", tiny_lms[kind], pair_shapes=pair_state(), expect={"sizes": (6, 4)})
    torch.testing.assert_close(logits(found.model), logits(model), rtol=0, atol=0)
    torch.testing.assert_close(found.pair_state, pair_state(), rtol=0, atol=0)
    assert found.description["format"] == 1 and "recbole-lsvcr" in found.description["written_by"]
    assert not any(p.requires_grad for p in found.model.parameters())
    files = {path.name: path.stat().st_size for path in (tmp_path / "alignment").iterdir()}
    assert files.keys() == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "alignment.safetensors",
        "alignment.json",
    }
    assert max(files.values()) < 2**24
    assert [path.name for path in tmp_path.iterdir()] == ["alignment"]


def test_an_adapter_goes_on_training_in_a_model_that_has_one_or_none(saved, tiny_lms):
    _, expected = trained(tiny_lms["llama"])
    lm, model = trained(tiny_lms["llama"], seed=9)
    found = load_alignment(saved, model, name=lm.name, fingerprint=lm.fingerprint)
    assert found.model is model
    for loaded in (model, read(saved, tiny_lms["llama"], trainable=True).model):
        torch.testing.assert_close(logits(loaded), logits(expected))
        assert sum(p.requires_grad for p in loaded.parameters()) == 2 * 2 * len(LAYERS["llama"])


def test_the_adapter_is_one_that_peft_alone_loads(saved, tiny_lms):
    import peft

    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_lms["llama"], dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(base, saved)
    torch.testing.assert_close(logits(loaded.eval()), logits(trained(tiny_lms["llama"])[1]))


def test_the_sr_weights_need_neither_transformers_nor_peft_nor_recbole(saved):
    program = (
        "import sys\n"
        "for name in ('transformers', 'peft', 'recbole'): sys.modules[name] = None\n"
        "from recbole_lsvcr.alignment.checkpoint import load_sr_weights\n"
        f"print(sorted(load_sr_weights({str(saved)!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['merge.weight', 'tied.weight']", done.stderr
    torch.testing.assert_close(load_sr_weights(saved)["merge.weight"], pair_state()["sr.merge.weight"])


def _damaged(saved: Path, folder: Path, defect: str) -> Path:
    if defect == "missing":
        return folder
    shutil.copytree(saved, folder)
    manifest = folder / "alignment.json"
    if defect == "no checkpoint":
        manifest.unlink()
    elif defect == "other file":
        manifest.write_text("[1]")
    elif defect == "cut manifest":
        manifest.write_text(manifest.read_text()[:-9])
    elif defect == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    elif defect.startswith("no "):
        (folder / defect.removeprefix("no ")).unlink()
    else:
        path = folder / defect.removeprefix("cut ")
        path.write_bytes(path.read_bytes()[:-4])
    return folder


@pytest.mark.parametrize(
    ("defect", "says"),
    [
        ("missing", "there is no alignment checkpoint .* align first"),
        ("no checkpoint", "is no alignment checkpoint .it has no alignment.json."),
        ("other file", "is that of something else"),
        ("cut manifest", "has a damaged alignment.json"),
        ("format", "has format 2 .*this version reads format 1"),
        ("no adapter_config.json", "lacks adapter_config.json"),
        ("no adapter_model.safetensors", "lacks adapter_model.safetensors"),
        ("no alignment.safetensors", "lacks alignment.safetensors"),
        ("cut adapter_model.safetensors", "damaged: adapter_model.safetensors is cut short"),
        ("cut alignment.safetensors", "damaged: alignment.safetensors is cut short"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_message(saved, tiny_lms, tmp_path, defect, says):
    folder = _damaged(saved, tmp_path / "alignment", defect)
    lm = load_causal_lm(tiny_lms["llama"])
    with pytest.raises(CheckpointError, match=says) as caught:
        load_alignment(folder, lm.model, name=lm.name, fingerprint=lm.fingerprint)
    assert "\n" not in str(caught.value)


def test_what_differs_is_said(saved, tiny_lms, tmp_path):
    other = save(tmp_path / "other", "llama", seed=6)
    with pytest.raises(CheckpointError, match=r"belongs to the base model .*llama .*, not to .*other"):
        read(saved, other)
    wider = {**pair_state(width=7), "sr.more": torch.zeros(1)}
    with pytest.raises(
        CheckpointError, match=r"merge.weight has shape \[4, 6\], expected \[4, 7\]; sr.more is missing"
    ):
        read(saved, tiny_lms["llama"], pair_shapes=wider)
    with pytest.raises(CheckpointError, match="another one: seed is 0 there, 1 here; choose"):
        read(saved, tiny_lms["llama"], expect={"settings": {"seed": 1}})
    lm, model = trained(tiny_lms["llama"], r=4)
    with pytest.raises(CheckpointError, match=r"lora_A.weight has shape \[8, \d+\], expected \[4, \d+\]"):
        load_alignment(saved, model, name=lm.name, fingerprint=lm.fingerprint)
    lm, model = trained(tiny_lms["llama"])
    fewer = add_lora(load_causal_lm(tiny_lms["llama"]).model, targets=["q_proj"])
    with pytest.raises(CheckpointError, match="is not expected"):
        load_alignment(saved, fewer, name=lm.name, fingerprint=lm.fingerprint)


def test_a_folder_of_something_else_is_not_replaced(tiny_lms, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        write(tmp_path, tiny_lms["llama"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_save_that_fails_leaves_the_former_checkpoint(saved, tiny_lms, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "alignment")
    lm, model = trained(tiny_lms["llama"], seed=1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    description = {"base_model": lm.name, "base_fingerprint": lm.fingerprint}
    with pytest.raises(OSError, match="No space left"):
        save_alignment(tmp_path / "alignment", pair_state=pair_state(1), peft_model=model, description=description)
    assert [path.name for path in tmp_path.iterdir()] == ["alignment"]
    torch.testing.assert_close(read(tmp_path / "alignment", tiny_lms["llama"]).pair_state, pair_state())


def _killed(folder: Path, new: Path, at: str, number: int) -> None:
    """Replace the checkpoint in a process that dies, as by kill -9, right before its `number`-th call of `at`."""
    child = os.fork()
    if child == 0:
        calls = iter(range(1, 100))
        owner, name = (shutil, "rmtree") if at == "rmtree" else (Path, at)
        original: Callable = getattr(owner, name)

        def dying(*args: object, **kwargs: object) -> object:
            return os._exit(9) if next(calls) == number else original(*args, **kwargs)

        setattr(owner, name, dying)
        try:
            with replaced_folder(folder, checkpoint_module.MANIFEST) as temporary:
                shutil.copytree(new, temporary, dirs_exist_ok=True)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize(("at", "number", "seed"), [("rename", 1, 0), ("rename", 2, 0), ("rmtree", 2, 1)])
def test_a_kill_at_any_point_leaves_a_checkpoint_that_loads_and_can_be_replaced(
    saved, tiny_lms, tmp_path, at, number, seed
):
    folder, new = tmp_path / "here" / "alignment", tmp_path / "new"
    shutil.copytree(saved, folder)
    write(new, tiny_lms["llama"], seed=1)
    _killed(folder, new, at, number)
    assert len(list(folder.parent.iterdir())) == 2  # something was left behind
    assert read_description(folder)["settings"] == {"seed": seed}
    assert torch.equal(load_sr_weights(folder)["merge.weight"], pair_state(seed)["sr.merge.weight"])
    write(folder, tiny_lms["llama"], seed=2)
    assert [path.name for path in folder.parent.iterdir()] == ["alignment"]
    torch.testing.assert_close(read(folder, tiny_lms["llama"]).pair_state, pair_state(2))
