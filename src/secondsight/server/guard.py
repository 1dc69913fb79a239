"""What stands before the app: bounds on requests, who may ask, and headers that keep a page to its own origin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PATIENCE = 8
"""How many times the largest body is read before a sender is cut off."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Sent with every answer."""


class Guard:
    """ASGI middleware: bodies of at most `body` bytes within `seconds`, requests for `hosts` only, our own headers.

    Requests that name another host reach a loopback server when somebody's page rebinds its name to it; those with
    another origin come from such a page. `hosts` None lets every name through, for servers that are meant to be reached.
    """

    def __init__(self, app: Any, *, body: int, seconds: float, hosts: frozenset[str] | None) -> None:
        self.app, self.body, self.seconds, self.hosts = app, body, seconds, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, as ASGI asks for."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        async def refuse(status: int, sentence: str) -> None:
            content = json.dumps({"error": sentence}).encode()
            own = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
            own.append((b"connection", b"close"))
            await sending({"type": "http.response.start", "status": status, "headers": own})
            await sending({"type": "http.response.body", "body": content})

        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            await refuse(421, f"this server does not answer for {host[:100]!r}: use its own address")
            return
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and origin is not None and origin.split("://")[-1] != host:
            await refuse(403, f"requests from {origin[:100]!r} are not answered: use the app's own page, or a script")
            return
        too_large = f"the request is larger than {self.body / 2**20:g} MB: send a smaller image"
        # Small enough to be read whole: then what follows cannot be kept waiting, and nothing is half-answered. What is
        # too large is read on without being kept, as senders look for an answer only when they have sent everything.
        content, read, more = bytearray(), 0, True
        end = asyncio.get_running_loop().time() + self.seconds
        while more:
            try:
                message = await asyncio.wait_for(receive(), end - asyncio.get_running_loop().time())
            except TimeoutError:
                await refuse(408, f"the request did not arrive within {self.seconds:g} s: send it again")
                return
            if message["type"] == "http.disconnect":
                return
            read += len(message.get("body", b""))
            if read <= self.body:
                content += message.get("body", b"")
            more = message.get("more_body", False) and read <= _PATIENCE * self.body
        if read > self.body:
            await refuse(413, too_large)
            return
        given = False

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(content), "more_body": False}

        await self.app(scope, receiving, sending)


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].split("]")[0].lower()
    return host.rsplit(":", 1)[0].lower() if ":" in host else host.lower()
