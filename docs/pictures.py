"""Take the pictures of docs/report.md: `python -m docs.pictures REPORT.html [NAME ...]`.

All of them, or those of these names. It needs Chromium. They are taken by hand, after a change of
how the report looks.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGES = Path(__file__).parent / "images"
_WIDTH, _MARGIN = 1120, 16
# What each shows: from the first element to the last.
_PARTS = {
    "report-top": ("header", ".tiles"),
    "report-lists": ("#lists", "#lists .columns"),
    "report-users": ("#users", "details.user"),
    "report-diffusion": ("#diffusion", "#diffusion"),
}


def main(report: Path, names: Sequence[str]) -> None:
    """Write docs/images/report-*.png."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as page:
        page.use_color_scheme("light")
        page.use_width(_WIDTH)
        page.open(report.absolute().as_uri())
        page.until("document.readyState == 'complete'")
        for name in names:
            first, last = _PARTS[name]
            top = page.evaluate(f"document.querySelector('{first}').getBoundingClientRect().top")
            end = page.evaluate(f"document.querySelector('{last}').getBoundingClientRect().bottom")
            clip = {"x": 0, "y": top - _MARGIN, "width": _WIDTH, "height": end - top + 2 * _MARGIN}
            shot = page.call(
                "Page.captureScreenshot",
                clip={**clip, "scale": 0.8},
                captureBeyondViewport=True,
            )
            (IMAGES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(_PARTS))
