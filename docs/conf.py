"""How Sphinx renders the documentation: `make docs`."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.errors import ExtensionError

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# A plain link is not fetched; a script, an image, a style sheet and what a style names are.
_FETCHED = re.compile(
    r"""(src=["'](https?:)?//|<link[^>]*href=["'](https?:)?//|url\(["']?https?:)[^>]*"""
)
DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

project = "recsys-nightly"
author = "the maintainers of recsys-nightly"
project_copyright = "the maintainers of recsys-nightly. Apache-2.0"
release = metadata.version("recsys-nightly")

extensions = ["myst_parser"]
exclude_patterns = ["**/__pycache__", "*.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
nitpicky = True
highlight_language = "text"
smartquotes = False  # it makes a dash of the two of an option

html_theme = "furo"
html_title = "recsys-nightly"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e5f", "color-brand-content": "#0b6e5f"},
    "dark_css_variables": {"color-brand-primary": "#4fd1b5", "color-brand-content": "#4fd1b5"},
}
pygments_style = "default"
pygments_dark_style = "monokai"


def _inline_figures(app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """Put an SVG into the page itself: its text is then searched, selected and read aloud."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if image["uri"].endswith(".svg"):
            figure = Path(app.srcdir, image["uri"]).read_text(encoding="utf-8")
            html = f'<div class="drawing">{figure}</div>'
            image.replace_self(nodes.raw("", html, format="html"))


def _no_other_hosts(app: Sphinx, failure: Exception | None) -> None:
    """Fail when a page would fetch something from another host: the pages are read offline too."""
    if failure is not None or app.builder.format != "html":
        return
    for path in sorted([*app.outdir.rglob("*.html"), *app.outdir.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        if fetched := _FETCHED.search(text):
            raise ExtensionError(f"{path}: fetches {fetched[0]}")


def setup(app: Sphinx) -> None:
    """Register what Sphinx calls."""
    app.connect("doctree-resolved", _inline_figures)
    app.connect("build-finished", _no_other_hosts)
