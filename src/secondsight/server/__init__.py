"""The local app: a photo, captions, the interactive view; a JSON API; a search through a folder of photographs."""

from secondsight.server.app import LOOPBACK, create_app, listen, serve
from secondsight.server.questions import Limits

__all__ = ["LOOPBACK", "Limits", "create_app", "listen", "serve"]
