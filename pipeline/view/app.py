"""The viewer's routes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipeline.datasets.images import UnreadableError
from pipeline.errors import InputError, one_line
from pipeline.view.detail import detail_page, similar_page
from pipeline.view.grid import grid_page, page_values, progress
from pipeline.view.pictures import KINDS
from pipeline.view.run_view import RunView
from pipeline.view.security import Guard
from pipeline.view.state import State
from pipeline.view.templates import render

_log = logging.getLogger(__name__)

_STATIC = {"icon.svg": "image/svg+xml", "style.css": "text/css; charset=utf-8", "view.js": "text/javascript; charset=utf-8"}
_WAIT = 0.8  # seconds that a page waits for the first shards
_TYPES = {"jpg": "image/jpeg", "png": "image/png"}


def create_app(view: RunView, token: str, port: int) -> Starlette:
    """Return the app of a run.

    Args:
        token: that the first request has in its URL.
        port: on which the app is served; requests to another one are refused.
    """
    pages = {
        "/": _grid,
        "/image/{row:int}": _detail,
        "/image/{row:int}/similar": _similar,
        "/picture/{row:int}/{kind:str}": _picture,
        "/state.json": lambda view, request: JSONResponse(progress(view)),
    }
    routes = [Route(path, _endpoint(view, page)) for path, page in pages.items()]
    routes.append(Route("/static/{name:str}", _static))
    failures: Any = {HTTPException: lambda request, error: _failure(view, request, error)}
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token, port=port)], exception_handlers=failures)


Page = Callable[[RunView, Request], Response]


def _endpoint(view: RunView, page: Page) -> Callable[[Request], Response]:
    """Return a function, which Starlette calls in a thread of its own."""

    def answer(request: Request) -> Response:
        try:
            view.refresh(0.0 if view.catalogue.loaded else _WAIT)
            return page(view, request)
        except HTTPException:
            raise
        except Exception as error:  # here, inside the guard, so that this answer has its headers, too
            return _failure(view, request, error)

    return answer


def _state(view: RunView, request: Request) -> State:
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "step"]
    return State.parse(query, view.columns, view.methods)


def _grid(view: RunView, request: Request) -> Response:
    state = _state(view, request)
    try:
        return HTMLResponse(render("grid.html", grid_page(view, state)))
    except InputError as error:
        return HTMLResponse(render("grid.html", grid_page(view, state, str(error))), 400)


def _detail(view: RunView, request: Request) -> Response:
    step = request.query_params.get("step")
    if step is not None and not (step.isascii() and step.isdecimal() and len(step) < 6):
        raise InputError(f"step={step}: write a whole number")
    state, image = _state(view, request), _image(view, request)
    return HTMLResponse(render("detail.html", detail_page(view, state, image, None if step is None else int(step))))


def _similar(view: RunView, request: Request) -> Response:
    return HTMLResponse(render("similar.html", similar_page(view, _state(view, request), _image(view, request))))


def _picture(view: RunView, request: Request) -> Response:
    query = request.query_params
    shown = view.other if query.get("run") == "other" else view
    kind, method = request.path_params["kind"], query.get("method", "")
    texts = [query.get(name, "0") for name in ("rank", "number")]
    if shown is None or kind not in KINDS or not all(text.isascii() and text.isdecimal() and len(text) < 6 for text in texts):
        raise HTTPException(404, "no such picture")
    rank, number = map(int, texts)
    needs_map = kind not in ("photo.jpg", "truth.png")
    if needs_map and (method not in shown.methods or rank >= shown.pictures.maps.ranks(method)):
        raise HTTPException(404, "no such map")
    image = _image(shown, request)
    try:
        data = shown.pictures.picture(image, kind, method, rank, number)
    except (UnreadableError, LookupError) as error:
        raise HTTPException(404, f"no such picture: {one_line(error)}") from None
    return Response(data, media_type=_TYPES[kind.rpartition(".")[2]])


def _image(view: RunView, request: Request) -> dict[str, object]:
    image = view.image(request.path_params["row"])
    if image is None:
        raise HTTPException(404, f"row {request.path_params['row']}: no such image, or its shard is not done yet")
    return image


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404, "no such file")
    return Response((Path(__file__).parent / name).read_bytes(), media_type=_STATIC[name])


def _failure(view: RunView, request: Request, error: Exception) -> Response:
    """Return the page of an error: one line."""
    code, text = 500, f"the viewer failed: {type(error).__name__}: {one_line(error)}"
    if isinstance(error, HTTPException):
        code, text = error.status_code, error.detail
    elif isinstance(error, InputError):
        code, text = 400, str(error)
    elif isinstance(error, OSError):
        code, text = 503, f"the storage does not answer: {one_line(error)}"
    if code == 500:
        _log.warning("%s: %s", request.url.path, text, exc_info=error)
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(f"{text}\n", code)
    return HTMLResponse(render("message.html", {**page_values(view, State(view.methods[0])), "message": text}), code)
