"""ASGI middleware in front of the app: bounds on requests, allowed hosts and origins, security headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PATIENCE = 8
"""How many times the largest body is read before the connection of a sender is closed."""

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
"""Sent with every response."""


class Refused(Exception):
    """A request that the app does not get to see; `unread` where more of it is on its way."""

    def __init__(self, status: int, sentence: str, *, unread: bool = False) -> None:
        super().__init__(sentence)
        self.status, self.unread = status, unread


class Guard:
    """Lets requests to `hosts` through, with bodies of at most `body` bytes that arrive within `seconds`; adds `HEADERS`.

    A request that names another host comes from a page whose host name was rebound to this address; one with another
    origin comes from such a page as well. `hosts` None allows every name, for servers that others should reach.
    """

    def __init__(self, app: Any, *, body: int, seconds: float, hosts: frozenset[str] | None) -> None:
        self.app, self.body, self.seconds, self.hosts = app, body, seconds, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection, as ASGI asks for."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _adding_headers(send)
        try:
            self._check_sender(scope)
            self._check_length(scope)
            # Bodies are small enough to be read whole, so that no slow sender blocks the app.
            body = await self._read_body(receive)
        except Refused as problem:
            rest = self._drop_rest(receive) if problem.unread else None
            await _respond(send, problem.status, str(problem), rest)
            return
        if body is not None:
            await self.app(scope, _replay(body, receive), send)

    def _check_sender(self, scope: Message) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and _without_port(host) not in self.hosts:
            raise Refused(421, f"this server does not answer for {host[:100]!r}: use its own address")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and origin is not None and origin.split("://")[-1] != host:
            raise Refused(403, f"requests from {origin[:100]!r} are not answered: use the app's own page, or a script")

    def _check_length(self, scope: Message) -> None:
        """Refuse a body that is announced as too large before any of it is read."""
        lengths = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
        # A length that is no number is the server's own business.
        if any(value.isdigit() and int(value[:20]) > self.body for value in lengths):
            raise Refused(413, self._too_large(), unread=True)

    def _too_large(self) -> str:
        return f"the request is larger than {self.body / 2**20:g} MB: send a smaller image"

    async def _drop_rest(self, receive: Receive) -> None:
        """Read and drop what is still sent, within bounds: many senders look for an answer only afterwards."""
        size = 0
        try:
            async with asyncio.timeout(self.seconds):
                while size <= _PATIENCE * self.body:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The whole body, None after a disconnect."""
        content, incomplete = bytearray(), True
        clock = asyncio.get_running_loop().time
        end = clock() + self.seconds
        while incomplete:
            try:
                message = await asyncio.wait_for(receive(), end - clock())
            except TimeoutError:
                raise Refused(408, f"the request did not arrive within {self.seconds:g} s: send it again") from None
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            content += chunk
            incomplete = message.get("more_body", False)
            if len(content) > self.body:
                raise Refused(413, self._too_large(), unread=incomplete)
        return bytes(content)


def _adding_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return send_with_headers


async def _respond(send: Send, status: int, sentence: str, rest: Coroutine[Any, Any, None] | None = None) -> None:
    """Answer, wait for `rest`, and close the connection."""
    content = json.dumps({"error": sentence}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": rest is not None})
    if rest is not None:
        # The answer has left already; the connection is closed only after this.
        await rest
        await send({"type": "http.response.body", "body": b""})


def _replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read, and then the rest of the connection."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _without_port(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].split("]")[0].lower()
    return host.rsplit(":", 1)[0].lower()
