"""The HTML templates of pages."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def template(name: str) -> Template:
    """A template of the folder `web`; what it is filled with is escaped."""
    environment = Environment(
        loader=PackageLoader("secondsight.visual", "web"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
