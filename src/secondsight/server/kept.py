"""Explanations on disk: links stay valid when the app is started again."""

from __future__ import annotations

import gzip
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondsight.server.explaining import Result
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder

log = logging.getLogger("secondsight.server")

_FORMAT = "secondsight-app-2"

_ID = re.compile(r"[A-Za-z0-9_-]{16}")

_LARGEST = 32 * 2**20
"""Bytes of one explanation before compression; larger ones are not kept."""


@dataclass(frozen=True)
class KeptResult:
    """An explanation as it was written."""

    explanations: list[dict[str, Any]]
    warnings: list[str]
    view: dict[str, Any]


class Shelf:
    """A folder with one file an explanation, the newest `most` of them. Files appear only when they are complete.

    Raises `InputError` for a folder that cannot be made or written.
    """

    def __init__(self, folder: Path, most: int = 1000) -> None:
        self.folder, self.most = ensure_folder(folder), most
        with atomic(self.folder / "README.txt") as file:
            file.write(
                b"Explanations that the app of secondsight keeps, one file a link. Delete what you do not need.\n"
            )

    def store(self, id: str, result: Result | KeptResult) -> None:
        """Write an explanation; the oldest ones make room."""
        record = {
            "format": _FORMAT,
            "explanations": result.explanations,
            "warnings": result.warnings,
            "view": result.view,
        }
        content = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        if len(content) > _LARGEST:
            log.warning("an explanation of %d MB is not kept", len(content) // 2**20)
            return
        with atomic(self._path(id)) as file:
            file.write(gzip.compress(content, 5, mtime=0))
        paths = sorted(self.folder.glob("*.json.gz"), key=lambda path: path.stat().st_mtime)
        for old in paths[: max(0, len(paths) - self.most)]:
            old.unlink(missing_ok=True)

    def get(self, id: str) -> KeptResult | None:
        """The explanation of that id, None where there is none; raises `InputError` for a damaged file."""
        if not _ID.fullmatch(id) or not self._path(id).is_file():
            return None
        try:
            record = json.loads(gzip.decompress(self._path(id).read_bytes()))
            if record["format"] != _FORMAT:
                raise ValueError(record["format"])
            return KeptResult(record["explanations"], record["warnings"], record["view"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as problem:
            log.warning("%s: %s", self._path(id), problem)
            raise InputError("this explanation's file is damaged: explain the pair again") from problem

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.json.gz"
