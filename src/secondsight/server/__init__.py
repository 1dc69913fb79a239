"""The local app: a photo, captions, the interactive view; a JSON API; a search through a folder of photographs."""

from secondsight.server.app import Limits, create_app, serve

__all__ = ["Limits", "create_app", "serve"]
