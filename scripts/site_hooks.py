"""What the documentation's site needs beside MkDocs: formulas as MathML, the commands' help, links of included files."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from typer.main import get_command
from typer.testing import CliRunner

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_page_markdown(markdown: str, page, **_) -> str:
    """Put the help of every command in its place, and let links of files above docs/ lead to their pages."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", commands())
    # Snippets are put in later, so their links are mended here.
    for name in re.findall(r'^--8<-- "(.*)"$', markdown, re.M):
        with open(name, encoding="utf-8") as file:
            text = re.sub(r"\]\(docs/", "](", file.read())
        markdown = markdown.replace(f'--8<-- "{name}"', text)
    return markdown


def on_page_content(content: str, **_) -> str:
    """TeX as MathML: no script, no font and no request for a formula."""

    def formula(match: re.Match[str]) -> str:
        element, kind, tex = match.groups()
        mathml = convert(html.unescape(tex), display="block" if kind == "[" else "inline")
        return f'<{element} class="arithmatex">{mathml}</{element}>'

    return _FORMULA.sub(formula, content)


def commands() -> str:
    """Every command with its help."""
    from secondsight.cli import app

    parts = []
    for name in sorted(get_command(app).commands):
        result = CliRunner().invoke(app, [name, "--help"], prog_name="secondsight", terminal_width=82)
        parts.append(f"## {name}\n\n```text\n{result.output.strip()}\n```")
    return "\n\n".join(parts)
