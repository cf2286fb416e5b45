"""HTML as text that cannot be mistaken: what comes from documents is escaped, what is built here is marked as built."""

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from miniinfer_cli.visible import visible


class Html(str):
    """Markup, as opposed to text, which has to be escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """Text as it may stand anywhere in a page: escaped, with control characters shown."""
    return Html(escape(visible(str(value)), quote=True))


def joined(parts: Iterable[Html]) -> Html:
    """Pieces of markup behind each other."""
    return Html("".join(parts))


def tag(name: str, /, *children: str, **attributes: object) -> Html:
    """An element. Children that are no Html are escaped, and so are attributes.

    ``class_`` is ``class``; ``_`` stands for ``-``; an attribute of None or False is left out, one of True has no value.
    """
    inner = joined(c if isinstance(c, Html) else text(c) for c in children)
    return Html(f"<{name}{_attributes(attributes)}>{inner}</{name}>")


def lone(name: str, /, **attributes: object) -> Html:
    """An element without contents, and without an end in HTML: ``meta``, ``input``."""
    return Html(f"<{name}{_attributes(attributes)}>")


def data_block(name: str, value: Any) -> Html:
    """A document for the page's script, which it finds by ``name``. No text in it can end the element: ``<`` is escaped."""
    written = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{text(name)}">{written}</script>')


def _attributes(attributes: dict[str, object]) -> str:
    written = []
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{text(value)}"')
    return "".join(written)
