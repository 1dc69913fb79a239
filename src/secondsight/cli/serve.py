"""`secondsight serve`: the app in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli.common import out, plain_errors, spinner, warn
from secondsight.support.errors import InputError


def serve(
    model: Annotated[
        list[str] | None, typer.Option(help="Offered models, the first by default; may be repeated.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="A folder of photographs for the search.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="A folder that keeps explanations, so that links outlive the app.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address; any but 127.0.0.1 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8337,
    seconds: Annotated[float, typer.Option(help="Time limit of one explanation.", min=1)] = 120.0,
    megabytes: Annotated[float, typer.Option(help="Size limit of one request.", min=0.1)] = 32.0,
) -> None:
    """Serve the app on this machine: photos and captions in the browser, a JSON API, a search through a folder."""
    with plain_errors():
        with spinner("loading libraries"):
            try:
                from secondsight.server import LOOPBACK, Limits, create_app, listen
                from secondsight.server import serve as run
            except ImportError as missing:
                raise InputError(f"the app needs {missing.name}: pip install 'secondsight[web]'") from None
            from secondsight.encoders.registry import known_name
        names = model or ["builtin"]
        for name in names:
            known_name(name)
        local = host in LOOPBACK
        # First the port: an address that is printed can be opened.
        listener = listen(host, port)
        limits = Limits(body=round(megabytes * 2**20), seconds=seconds)
        app = create_app(names, photos=photos, keep=keep, limits=limits, hosts=LOOPBACK if local else None)
        url_host = f"[{host}]" if ":" in host else host
        out.print(f"http://{url_host}:{port}  (Ctrl-C stops)", soft_wrap=True)
        if not local:
            warn("anybody who can reach this address can use the app")
        run(app, listener)
