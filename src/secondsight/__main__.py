"""The `secondsight` command, also as `python -m secondsight`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raise, so that unfinished files are removed; within an import, remove them and end the process at once.

    Libraries call Python from C++ while they are imported, where an exception would abort the process.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end_at_once(number)
        frame = frame.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _end_at_once(number: int) -> NoReturn:
    """Remove unfinished files and end the process without raising an exception."""
    for path in tuple(getattr(sys.modules.get("secondsight.support.files"), "unfinished", ())):
        path.unlink(missing_ok=True)
    if number == signal.SIGINT:
        os.write(2, b"stopped\n")
    os._exit(128 + number)


def _swallowed(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python drops the exception of `_stop`: in finalizers and callbacks of weak references."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _end_at_once(signal.SIGINT)
    if isinstance(unraisable.exc_value, SystemExit):
        _end_at_once(signal.SIGTERM)
    sys.__unraisablehook__(unraisable)


def main() -> None:
    """Run the command; Ctrl-C prints one word instead of a traceback and leaves no half-written file."""
    # A signal that the parent process ignores stays ignored.
    signals = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    for number in signals:
        signal.signal(number, _stop)
    sys.unraisablehook = _swallowed
    try:
        # Imported late so that Ctrl-C during the slow import is handled.
        from secondsight.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None
    finally:
        # From here on signals act as usual: an exception raised inside a library's exit handler would abort the process.
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        sys.unraisablehook = sys.__unraisablehook__


if __name__ == "__main__":
    main()
