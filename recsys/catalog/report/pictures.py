"""Pictures of items that lie as files in the lake: small ones become a part of the page."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MOST_BYTES = 16_384
"""Of a picture."""
_MOST_IN_ALL = 1_000_000
"""Bytes of all pictures of a page."""
_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"""What a file begins with that is taken for a picture; SVG, which can hold scripts, is not."""


def embedder(root: Path | None) -> Callable[[object], str | None]:
    """Return what makes a `data:` address of an item's column `image`; None where there is none.

    Only a path within the lake is looked at, whatever the column says.

    Args:
        root: the folder of the lake; None where it has none.
    """
    known: dict[object, str | None] = {}
    left = _MOST_IN_ALL

    def embed(image: object) -> str | None:
        nonlocal left
        if image in known or root is None or not isinstance(image, str) or not image:
            return known.get(image)
        known[image] = address = _read(root, image, left)
        left -= len(address or "")
        return address

    return embed


def _read(root: Path, image: str, left: int) -> str | None:
    try:
        path = (root / image).resolve()
        if not (path.is_relative_to(root.resolve()) and path.is_file()):
            return None
        if path.stat().st_size > _MOST_BYTES:
            return None
        content = path.read_bytes()
    except (OSError, ValueError):  # no such file, or a text that can't be a path
        return None
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            address = f"data:{kind};base64,{base64.b64encode(content).decode()}"
            return address if len(address) <= left else None
    return None
