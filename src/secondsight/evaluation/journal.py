"""Records on disk as they are made, so that a run that was stopped can continue."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from secondsight.evaluation.experiments.base import Record
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder, no_room


class Journal:
    """Records as lines of JSON, one example a line, flushed to disk; a line cut off by a kill is dropped on reading.

    `head` identifies the run; the journal of another run is refused with an `InputError`. `records` holds what is known so
    far, by example.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.records: dict[str, list[Record]] = {}
        ensure_folder(path.parent)
        first_line = json.dumps(head, sort_keys=True)
        lines = self._whole_lines()
        if lines:
            if lines[0] != first_line:
                raise InputError(
                    f"{str(path.parent)!r} has records of another run (other data, options or method): "
                    "choose another --out, or remove it"
                )
            for line in lines[1:]:
                entry = json.loads(line)
                self.records[entry["key"]] = entry["records"]
        else:
            with atomic(path) as file:
                file.write((first_line + "\n").encode())
        self._stream = path.open("ab")

    def _whole_lines(self) -> list[str]:
        """The complete lines of an earlier run; an incomplete last line is cut from the file."""
        if not self.path.is_file():
            return []
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return whole.decode().splitlines()

    def add(self, key: str, records: list[Record]) -> None:
        """Add one example's records, which are on disk when this returns."""
        line = json.dumps({"key": key, "records": records}, sort_keys=True)
        # Parsed from the line, so that records are the same whether or not the run was resumed.
        self.records[key] = json.loads(line)["records"]
        try:
            self._stream.write((line + "\n").encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as problem:
            raise InputError(no_room(self.path, problem)) from problem

    def close(self) -> None:
        """Close the file; what a full disk did not take is left out."""
        with contextlib.suppress(OSError):
            self._stream.close()
