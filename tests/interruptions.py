"""Conversions that Ctrl-C stops in the middle of a raw file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dataset_tools import blocks, reading
from dataset_tools.__main__ import main
from dataset_tools.blocks import Position

WORK = ".x.converting"

# Reads raw files in blocks of so many bytes by a function of `reading`, and is killed at the n-th file that it opens or
# renames for the data set: python -c KILLED N FUNCTION BYTES SOURCE RAW OUT …
KILLED = """
import functools, os, signal, sys
from dataset_tools import reading
from dataset_tools.__main__ import main
left = int(sys.argv[1])
def count(event, args):
    global left
    if event in ("open", "os.rename", "os.chmod") and ".x." in str(args[0]):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
read = getattr(reading, sys.argv[2])
setattr(reading, sys.argv[2], functools.partial(read, block_bytes=int(sys.argv[3])))
reading._ENOUGH = 1
main(sys.argv[4:])
"""


@dataclass
class Interrupting:
    """`read_blocks` or `read_values` in blocks of `block_bytes`, with Ctrl-C after block number `after` (never if
    negative)."""

    name: str
    block_bytes: int
    after: int = -1
    given: int = 0
    starts: list[Position] = field(default_factory=list)  # where each reading began

    def __call__(self, *args: Any, **options: Any) -> Iterator[Any]:
        if "start" in options:
            self.starts.append(options["start"])
        for block in getattr(blocks, self.name)(*args, **{"block_bytes": self.block_bytes, **options}):
            yield block
            self.given += 1
            if self.given == self.after:
                raise KeyboardInterrupt

    @property
    def lines(self) -> list[int]:
        """Where each reading began."""
        return [start.line for start in self.starts]

    def use(self, monkeypatch: pytest.MonkeyPatch, after: int = -1) -> Interrupting:
        """Another of its kind, with which the conversions to come read."""
        other = replace(self, after=after, given=0, starts=[])
        monkeypatch.setattr(reading, self.name, other)
        return other


def interrupt(monkeypatch: pytest.MonkeyPatch, reader: Interrupting, after: int, *command: str) -> Interrupting:
    """Stop the conversion of the command SOURCE RAW OUT … after a block; the reader for the next one."""
    reader.use(monkeypatch, after)
    assert main([*command]) == 130
    raw, out = map(Path, command[1:3])
    assert [path.name for path in out.parent.iterdir() if path != raw] == [WORK]
    return reader.use(monkeypatch)
