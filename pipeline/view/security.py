"""Access to the viewer: token, Host, Origin, and the headers of every answer."""

from __future__ import annotations

import html
import secrets
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def make_token() -> str:
    """Return a random token of 256 bits for a URL."""
    return secrets.token_urlsafe(32)


class Guard:
    """Layer around the app that refuses requests without the token or from elsewhere.

    The first visit has the token in its URL and gets a cookie of this port; all others have the cookie. A name that resolves to
    127.0.0.1 (DNS rebinding) fails at the Host header, and a page of another origin at Origin and at the cookie, which is SameSite=Strict.

    Args:
        port: on which the app is served.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{host}:{port}" for host in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())
        self._cookie = f"hdm_view_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items())]
            await send(message)

        answer = self._refusal(Request(scope))
        await (self._app if answer is None else answer)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that is not passed on."""
        origin = request.headers.get("origin")
        if request.headers.get("host") not in self._hosts:
            return PlainTextResponse("the viewer answers to its own address alone; open the one that hdm view printed\n", 403)
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return PlainTextResponse("the viewer answers to its own pages alone\n", 403)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("the viewer only reads\n", 405)
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and all(self._is_token(value) for value in given):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            return self._welcome(request.url.path + (f"?{rest}" if rest else ""))
        if given or not self._is_token(request.cookies.get(self._cookie, "")):
            return PlainTextResponse("no or a wrong token; open the address that hdm view printed\n", 403)
        return None

    def _is_token(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(), self._token.encode())

    def _welcome(self, url: str) -> Response:
        """Set the cookie and go on to the page without the token.

        It is a page and no redirect: a strict cookie is not sent with a redirect that began at another site, such as a terminal in a
        browser.
        """
        url = html.escape("/" + url.lstrip("/"))  # //host would be another site
        answer = HTMLResponse(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>hdm view</title>'
            f'<link rel="icon" href="/static/icon.svg"><meta http-equiv="refresh" content="0;url={url}">'
            f'<p><a href="{url}">Open the run</a></p></html>'
        )
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return answer
