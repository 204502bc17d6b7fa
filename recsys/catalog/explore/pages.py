"""The pages: what an address shows. Every answer is made on this machine, of the catalog alone."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from recsys.catalog.explore import lookups
from recsys.catalog.report import words
from recsys.catalog.report.charts import bar, sparkline
from recsys.catalog.report.pictures import picture_address
from recsys.catalog.report.templates import page_environment
from recsys.errors import ConfigurationError, MissingError, RecsysError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from recsys.catalog.explore.newest import Catalog, NewestCatalog, Row

HEADERS = {
    # No script, nothing of another host, and no other page may show these.
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",  # ids and what people did; and the newest night at the next load
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" '
    'rx="4" fill="#0b6e5f"/><path d="M4 5h8M4 8h6M4 11h4" stroke="#fff" stroke-width="1.6" '
    'stroke-linecap="round"/></svg>'
)


def make_app(newest: NewestCatalog) -> Starlette:
    """Return the application: GET alone, and only under a name of this machine."""
    pages = _Pages(newest)
    style = "\n".join(
        files("recsys.catalog").joinpath(path).read_text(encoding="utf-8")
        for path in ("report/page/style.css", "explore/page/explore.css")
    )
    shown: dict[str, Callable[[Request], Response]] = {
        "/": pages.start,
        "/search": pages.search,
        "/user": pages.user,
        "/user/neighbours": pages.user_neighbours,
        "/item": pages.item,
        "/item/neighbours": pages.item_neighbours,
        "/nights": pages.nights,
        "/style.css": lambda _: Response(style, media_type="text/css"),
        "/icon.svg": lambda _: Response(_ICON, media_type="image/svg+xml"),
    }
    return Starlette(
        routes=[Route(path, page, methods=["GET"]) for path, page in shown.items()],
        # The name stops a page of another host that lets its own name lead here (DNS rebinding).
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        ],
        exception_handlers={HTTPException: pages.refuse, RecsysError: pages.refuse},
    )


class _Headers:
    """Puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Pages:
    """Answers requests; each reads the newest catalog."""

    def __init__(self, newest: NewestCatalog) -> None:
        self._newest = newest
        loaders = [PackageLoader("recsys.catalog.explore", "page")]
        loaders.append(PackageLoader("recsys.catalog.report", "page"))
        lake = Path(newest.lake.root) if newest.lake.is_local else None
        embedded = partial(picture_address, lake)
        self._environment = page_environment(ChoiceLoader(loaders), embedded)
        self._environment.globals["url"] = address
        self._environment.globals["plural"] = words.plural
        self._environment.globals["share_bar"] = share_bar
        self._environment.globals["lake"] = newest.lake.root

    def start(self, _: Request) -> Response:
        """Show where to begin: the search, and a few users and items of the newest night."""
        with self._newest.read() as catalog:
            nights = lookups.read_nights(catalog)
            night = nights[0] if nights else None
            some = lookups.read_start(catalog, night)
        return self._page("start.html", nights=nights, night=night, some=some)

    def search(self, request: Request) -> Response:
        """Show what a text may mean; go to it where it can mean one thing alone."""
        text = request.query_params.get("q", "").strip()
        if not text:
            return RedirectResponse("/", 303)
        with self._newest.read() as catalog:
            found = lookups.read_search(catalog, text)
        hits = [("/user", "user_id", row) for row in found["users"]]
        hits += [("/item", "item_id", row) for row in found["items"]]
        if len(hits) == 1:
            ((path, name, row),) = hits
            return RedirectResponse(address(path, id=row[name]), 303)
        return self._page("search.html", text=text, found=found, most=lookups.FOUND)

    def user(self, request: Request) -> Response:
        """Show a user's history and list, or two lists side by side."""
        asked = request.query_params
        with self._newest.read() as catalog:
            user_id = _id(catalog, request, "user_id")
            nights = lookups.read_nights(catalog)
            night, against = _chosen(nights, request)
            page = int(text) if (text := asked.get("page", "1")).isdecimal() and text != "0" else 1
            user = lookups.read_user(catalog, user_id, night, against, min(page, 1_000_000))
        status = 200 if user.is_known else 404
        shown: dict[str, Any] = {"user": user, "nights": nights, "night": night, "against": against}
        return self._page("user.html", status, **shown, tab="lists")

    def user_neighbours(self, request: Request) -> Response:
        """Show the users who took the most similar items."""
        with self._newest.read() as catalog:
            user_id = _id(catalog, request, "user_id")
            alike = lookups.read_user_neighbours(catalog, user_id)
        shown: dict[str, Any] = {"user_id": user_id, "alike": alike, "own_items": lookups.OWN_ITEMS}
        return self._page("user_neighbours.html", **shown)

    def item(self, request: Request) -> Response:
        """Show what an item is, how often it is taken, and whose lists it is in."""
        with self._newest.read() as catalog:
            item_id = _id(catalog, request, "item_id")
            nights = lookups.read_nights(catalog)
            night, _ = _chosen(nights, request)
            item = lookups.read_item(catalog, item_id, nights)
            listed_to = lookups.read_listed_to(catalog, item_id, night)
        trend = (
            sparkline(item["use"]["days"], "Interactions a day, 30 days")
            if item["use"]["days"]
            else Markup("")
        )
        shown: dict[str, Any] = {"item_id": item_id, "item": item, "nights": nights, "night": night}
        status = 200 if item["is_known"] else 404
        return self._page("item.html", status, **shown, listed_to=listed_to, trend=trend)

    def item_neighbours(self, request: Request) -> Response:
        """Show the items that are taken, and listed, together with one."""
        with self._newest.read() as catalog:
            item_id = _id(catalog, request, "item_id")
            night, _ = _chosen(lookups.read_nights(catalog), request)
            described = catalog.one("item", item_id=item_id)
            found = lookups.read_item_neighbours(catalog, item_id, night)
        shown: dict[str, Any] = {"item_id": item_id, "described": described, "night": night}
        return self._page("item_neighbours.html", **shown, **found)

    def nights(self, request: Request) -> Response:
        """Show how the lists of two nights differ; the two newest where none are named."""
        with self._newest.read() as catalog:
            nights = lookups.read_nights(catalog)
            after, before = _chosen(nights, request)
            if after and before is None:
                earlier = [each for each in nights if each["run_date"] < after["run_date"]]
                before = earlier[0] if earlier else None
            differs = lookups.read_changes(catalog, before, after) if before and after else {}
        shown: dict[str, Any] = {
            "nights": nights,
            "night": after,
            "against": before,
            "differs": differs,
        }
        return self._page("nights.html", **shown)

    def refuse(self, _: Request, error: Exception) -> Response:
        """Say in a sentence why there is no such page."""
        status, sentence = 500, str(error)
        if isinstance(error, HTTPException):
            status, sentence = error.status_code, str(error.detail)
        elif isinstance(error, (ConfigurationError, MissingError)):
            status = 404
        return self._page("refusal.html", status, sentence=sentence)

    def _page(self, template: str, status: int = 200, **shown: Any) -> Response:
        text = self._environment.get_template(template).render(**shown)
        # An id may hold half of a pair of code units, which no page can.
        return HTMLResponse(text.encode("utf-8", "replace"), status)


def address(path: str, **asked: object) -> str:
    """Return the address of a page: what it asks for, in the query, where any id may stand."""
    named = {name: value for name, value in asked.items() if value is not None}
    return f"{path}?{urlencode(named, errors='replace')}" if named else path


def share_bar(part: float, whole: float, style: str = "a") -> Markup:
    """Draw a share as a bar."""
    share = part / whole if whole else 0.0
    return bar(share, 1.0, words.percent(share), style)


def _id(catalog: Catalog, request: Request, name: str) -> int | str:
    text = request.query_params.get("id")
    if text is None:
        raise HTTPException(404, f"This address names no {name}.")
    return catalog.read_id(name, text)


def _chosen(nights: list[Row], request: Request) -> tuple[Row | None, Row | None]:
    """Return the night that is asked for, the newest by default, and the one beside it, if any."""
    night = lookups.find_night(nights, request.query_params.get("night"))
    against = lookups.find_night(nights, request.query_params.get("against"))
    return night or (nights[0] if nights else None), against
