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
    """Return `picture_address` for a page that is kept: each picture once, up to a limit in all.

    Args:
        root: the folder of the lake; None where it has none.
    """
    known: dict[object, str | None] = {}
    left = _MOST_IN_ALL

    def embed(image: object) -> str | None:
        nonlocal left
        if image in known:
            return known[image]
        known[image] = address = picture_address(root, image)
        if len(address or "") > left:
            known[image] = address = None
        left -= len(address or "")
        return address

    return embed


def picture_address(root: Path | None, image: object) -> str | None:
    """Return the `data:` address of an item's column `image`; None where it is no such picture.

    Only a path within the lake is looked at, whatever the column says.

    Args:
        root: the folder of the lake; None where it has none.
        image: what the column holds.
    """
    if root is None or not isinstance(image, str) or not image:
        return None
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
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return None
