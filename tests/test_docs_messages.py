"""`docs/data.md` lists every message of `dataset_tools`; compared is the longest constant part of each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "data.md"
ERRORS = {"DataToolError", "ArgumentTypeError"}
KINDS = {"add": 0, "add_rows": 0, "add_counted": 0, "fault": 2, "_keep": 2}  # method: place of the kind of fault
RECORDERS = {"problems", "_problems", "engine", "self"}  # what these are methods of
TEXTS = (ast.Constant, ast.JoinedStr)

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a checkout: no docs")


def fragment(text: ast.AST) -> str:
    """The longest constant part of a text."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    constants = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return max((part.strip(" ,;:.()'\"\n") for part in constants), key=len, default="")


def values_of(tree: ast.AST, argument: ast.AST) -> Iterator[ast.AST]:
    """The texts that an argument can be: itself, what its name is given anywhere in the module, or the other's."""
    if isinstance(argument, TEXTS):
        yield argument
    elif isinstance(argument, ast.IfExp):
        yield from values_of(tree, argument.body)
        yield from values_of(tree, argument.orelse)
    elif isinstance(argument, ast.Name):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and any(
                ast.dump(to) == f"Name(id={argument.id!r}, ctx=Store())" for to in node.targets
            ):
                yield from (text for text in [node.value] if isinstance(text, TEXTS))


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Line and longest constant part of every message and kind of fault in a module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        found: list[ast.AST] = []
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            owner = function.value if isinstance(function, ast.Attribute) else None
            holder = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in ERRORS and node.args:
                found = [node.args[0]]
            elif len(node.args) > KINDS.get(name, 99) and (holder in RECORDERS or name == "_keep"):
                found = [node.args[KINDS[name]]]
        elif isinstance(node, ast.FunctionDef) and node.name == "fault_of":
            returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
            found = [value.elts[0] for value in returned if isinstance(value, ast.Tuple)]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            found = [node.value.elts[0]] if ast.unparse(node.targets[0]) == "self.damage" else []
        for argument in found:
            for text in values_of(tree, argument):
                if fragment(text):
                    yield text.lineno, fragment(text)


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("path", sorted((ROOT / "dataset_tools").glob("*.py")), ids=lambda path: path.name)
def test_every_message_is_listed(path: Path) -> None:
    page = plain(PAGE.read_text(encoding="utf-8"))
    lacking = [
        f"{path.name}:{line}: {text}"
        for line, text in messages(path.read_text(encoding="utf-8"))
        if plain(text) not in page
    ]
    assert not lacking, "not in docs/data.md:\n" + "\n".join(lacking)


def test_every_way_of_saying_something_is_seen() -> None:
    source = """
KIND = "row of the wrong width"
def read(self, problems, engine, path, name):
    problems.add(KIND, 0, 1)
    self._problems.add_rows(f"malformed number in .{name}", rows, [])
    what = f"second row of {name}" if name else "third row"
    kind = f"row of .{name} whose {name} was dropped"
    engine.fault("inter", "SELECT", kind, [])
    table = _keep(rows, good, "empty title in .item", [], problems)
    raise DataToolError(f"{path} is empty")
def fault_of(error):
    return "text that is not JSON", 1, 2, str(error)
def stream(self):
    self.damage = f"{self.kind} stream that is damaged", "why"
def checked(text):
    seen.add("no message")
    raise argparse.ArgumentTypeError(f"{text!r} is not a count (0, 1)")
"""
    assert {text for _, text in messages(source)} == {
        "row of the wrong width", "malformed number in", "was dropped", "empty title in .item", "is empty",
        "text that is not JSON", "stream that is damaged", "is not a count (0, 1",
    }  # fmt: skip
