"""Who may ask the live page: a browser on the page itself, and for nothing but what the page does."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

#: Bytes of what the page sends: the values of its controls.
MOST_ASKED = 2**16
# What the page posts; all else that Gradio takes (files among it) is refused.
_POSTED = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")


class LocalOnly:
    """In front of the page's server: refuses what a foreign web page, or a foreign name for this machine, asks for.

    A browser sends any page's requests to 127.0.0.1. It names in Origin where the page came from, and in Host what it
    takes this machine for: a name of somebody else's that leads here (DNS rebinding) would make their page ours.

    Args:
        app: The server, an ASGI application.
        host: The address that it listens on.
        port: Its port.
    """

    def __init__(self, app: Any, host: str, port: int) -> None:
        self.app, self.host, self.port = app, host, port

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        refusal = self.refusal(scope) if scope["type"] in ("http", "websocket") else ""
        if not refusal:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"refused: {refusal}\n".encode()})

    def refusal(self, scope: Mapping[str, Any]) -> str:
        """Why a request is refused; "": it is not."""
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts, origins = ([value for name, value in headers if name == wanted] for wanted in ("host", "origin"))
        if len(hosts) != 1 or not self._is_here(f"http://{hosts[0]}"):
            return "the page is asked for by a name that is not this machine's"
        if any(not self._is_here(origin) for origin in origins):
            return "another page asks"
        if scope.get("method", "GET") in ("GET", "HEAD"):
            return ""
        length = next((value for name, value in headers if name == "content-length"), "")
        if scope.get("method") != "POST" or scope["path"].rstrip("/") not in _POSTED:
            return "the page takes no files, and nothing but what it sends itself"
        short = length.isascii() and length.isdecimal() and len(length) < 9 and int(length) <= MOST_ASKED
        return "" if short else f"more than {MOST_ASKED:,} bytes"

    def _is_here(self, address: str) -> bool:
        """Whether an address is that of the page.

        Where other machines may ask, too, any number stands for this machine: only names can be made to lead here.
        """
        try:
            parts = urlsplit(address)
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        plain = parts.scheme == "http" and not (parts.path or parts.query or parts.fragment or parts.username)
        if not plain or port != self.port:
            return False
        from_elsewhere = _number(name) is not None and not is_loopback(self.host)
        return name == self.host or is_loopback(name) or from_elsewhere


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    number = _number(host)
    return host == "localhost" if number is None else number.is_loopback


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address that is a number; None: it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
