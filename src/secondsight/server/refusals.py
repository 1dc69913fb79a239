"""Refusals in one sentence: problems of requests, and what the schema finds wrong, in this package's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

from secondsight.support.files import one_line

_SENTENCES = {
    "missing": "{place} is missing",
    "extra_forbidden": "there is no field {place}; GET /openapi.json lists the fields",
    "json_invalid": "the request is not valid JSON",
    "model_attributes_type": "the request must be a JSON object with content-type application/json",
    "dict_type": "the request must be a JSON object",
    "list_type": "{place} must be a list",
    "string_type": "{place} must be a text",
    "string_unicode": "{place} is not valid Unicode",
    "string_too_short": "{place} is empty: give at least one character",
    "too_short": "{place} is empty: give at least one",
    "bool_type": "{place} must be true or false",
    "bool_parsing": "{place} must be true or false",
    "int_type": "{place} must be a whole number",
    "int_parsing": "{place} must be a whole number",
    "int_parsing_size": "{place} is too large a number",
    "int_from_float": "{place} must be a whole number",
    "float_type": "{place} must be a number",
    "float_parsing": "{place} must be a number",
    "finite_number": "{place} must be a finite number",
    "greater_than": "{place} must be greater than {gt:g}",
    "greater_than_equal": "{place} must be at least {ge:g}",
    "less_than": "{place} must be less than {lt:g}",
    "less_than_equal": "{place} must be at most {le:g}",
    "literal_error": "{place} must be {expected}",
}
"""What the schema's kinds of errors mean."""


class Problem(HTTPException):
    """An error response of one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)


def schema_sentence(error: Mapping[str, Any]) -> str:
    """One sentence for an error of the schema."""
    path = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    if path[:1] == ["layer"]:
        return "layer must be the number of a block, “input” or “grounded”"
    place = one_line(".".join(path)) or "the request"
    if error["type"] == "missing" and not path:
        return "the request is empty: send a JSON object"
    sentence = _SENTENCES.get(error["type"], "{place} is not what is expected; GET /openapi.json describes it")
    return sentence.format(**{**error.get("ctx", {}), "place": place})
