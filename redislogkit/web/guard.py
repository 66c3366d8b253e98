"""Who may look, and what a browser may do with what it gets.

* A page elsewhere can have a name of its own point to this address (DNS rebinding), and then read the answers as its
  own. So the ``Host`` must be an address, this host's name, or one that was allowed: an address can not be rebound.
* Where a token is asked for, it comes once in the link, and then in a cookie that no script can read and no other site
  sends; or as ``Authorization: Bearer``. It is compared in constant time.
* Nothing is loaded from elsewhere, no inline script runs, nobody may put the page into a frame.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_ASK: Final = (
    "This page asks for a token. Open the whole link that 'redislogkit web' has printed, or send "
    "'Authorization: Bearer TOKEN'.\n"
)


class Guard:
    """An ASGI middleware: refuses, or adds headers to what ``app`` answers.

    Args:
        app: What is guarded.
        hosts: Names that may stand in ``Host``, beside addresses and ``localhost``.
        token: What has to be shown; empty: nothing.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.casefold() for host in hosts)}
        self._token = token
        # Cookies are the same for all ports of a host: another page's must not be taken for ours.
        self._cookie = f"redislogkit-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        answer = self._refusal(HTTPConnection(scope)) or self._app
        await answer(scope, receive, with_headers)

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        """Return what to answer instead, None for the thing itself."""
        host = _name(asked.headers.get("host", ""))
        if not (_is_address(host) or host in self._hosts):
            text = f"This host is not called {host!r} here. Use its address, or start it with --host-name {host}\n"
            return PlainTextResponse(text, 421)
        if not self._token:
            return None
        shown = asked.query_params.get("token")
        if shown is not None:
            return self._let_in(asked) if self._is_right(shown) else PlainTextResponse(_ASK, 401)
        bearer = asked.headers.get("authorization", "").partition("Bearer ")[2]
        if self._is_right(asked.cookies.get(self._cookie, "")) or self._is_right(bearer):
            return None
        return PlainTextResponse(_ASK, 401, {"www-authenticate": "Bearer"})

    def _is_right(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), self._token.encode())

    def _let_in(self, asked: HTTPConnection) -> Response:
        """Keep the token in a cookie, and take it out of the address."""
        rest = [pair for pair in parse_qsl(asked.url.query) if pair[0] != "token"]
        answer = RedirectResponse(asked.url.path + (f"?{urlencode(rest)}" if rest else ""), 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return answer


def _name(host: str) -> str:
    """Return the host without its port, an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].casefold() if ":" in host else host.casefold()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
