"""Work on two cores: what comes next is made while what came is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items in their order, each made by a thread while the one before it is used; an error comes at its place.

    When the loop over them is left early, the item in the making is waited for, and `items`, if a generator, closed.
    """
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(next, iterator, end)
            while (item := coming.result()) is not end:
                coming = pool.submit(next, iterator, end)
                yield item  # type: ignore[misc]
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                pool.submit(close).result()
