"""Entry point of ``corobench``: what a terminal, a pipe or the keyboard may do to a command.

It imports almost nothing, so that Ctrl-C while the rest is loaded is no traceback either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

#: Exit code of a command that the keyboard stopped.
STOPPED = 130
#: Exit code of a command whose reader went away, as after ``| head``; that of SIGPIPE.
UNREAD = 141


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line; returns the exit code.

    Args:
        arguments: as after ``corobench``.
    """
    try:
        from corobench.benchmark.cli.main import invoke
        from corobench.benchmark.cli.terminal import fit_streams

        fit_streams()
        code = invoke(arguments)
        if code == STOPPED:
            _end_server()
        sys.stdout.flush()
        sys.stderr.flush()
        return code
    except SystemExit:
        # click ends with 1, which is a verdict here, and leaves this behind.
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            return UNREAD
        raise
    except KeyboardInterrupt:
        return _stopped()
    except BrokenPipeError:
        _stop_writing()
        return UNREAD
    except Exception as error:
        # A library that is interrupted while it is loaded may raise something else instead.
        if _is_of_the_keyboard(error):
            return _stopped()
        raise


def _is_of_the_keyboard(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_server() -> None:
    """End the process that others are forked from: it may load libraries for a while yet."""
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    number = getattr(server, "_forkserver_pid", None)
    if isinstance(number, int):
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGTERM)


def _stopped() -> int:
    _end_server()
    with contextlib.suppress(OSError):
        print("stopped; to continue, give the same command again", file=sys.stderr)  # noqa: T201
    return STOPPED


def _stop_writing() -> None:
    """Nobody reads any more: what Python still flushes at its end goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
