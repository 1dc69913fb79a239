"""The `secondsight` command, also as `python -m secondsight`."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def _stop(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command; whoever stops it finds one word instead of a traceback, and nothing half-written."""
    # Without this a termination ends the process at once, and what is being written stays behind.
    signal.signal(signal.SIGTERM, _stop)
    try:
        # Here, as loading takes a while in which people change their minds.
        from secondsight.cli import main as commands

        commands()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
