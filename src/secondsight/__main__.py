"""The `secondsight` command, also as `python -m secondsight`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raises, so that what is being written is taken away; within an import it ends the process at once.

    Libraries call Python from C++ while they are loaded, where an exception cannot pass and the process would abort.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            for path in tuple(getattr(sys.modules.get("secondsight.support.files"), "unfinished", ())):
                path.unlink(missing_ok=True)
            if number == signal.SIGINT:
                os.write(2, b"stopped\n")
            os._exit(128 + number)
        frame = frame.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command; whoever stops it finds one word instead of a traceback, and nothing half-written."""
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, _stop)
    try:
        # Here, as loading takes a while in which people change their minds.
        from secondsight.cli import main as commands

        commands()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None
    finally:
        # All is written. Libraries that take themselves down can be raised in no more than when they are loaded.
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
