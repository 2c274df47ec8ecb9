"""An HTML page as its parts."""

from __future__ import annotations

from html.parser import HTMLParser

ALONE = ("meta", "br")  # tags that nothing closes
LOADS = ("src", "srcset", "data", "action", "background", "poster")


class Page(HTMLParser):
    """Tags with their attributes, and texts by the tag around them; every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ALONE:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def assert_nothing_is_loaded(self) -> None:
        """Neither by an attribute nor by a style."""
        assert not [attributes for _, attributes in self.tags if set(LOADS) & set(attributes)]
        assert not [style for style in self.texts["style"] if "url(" in style or "@import" in style]
