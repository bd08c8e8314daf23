"""What a terminal, a pipe or the keyboard may do to a command: never a traceback."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from corobench.benchmark.cli import entry, main, terminal
from corobench.benchmark.executors.child import deaf_to_the_keyboard

CLI = [sys.executable, "-m", "corobench"]
PATIENCE_S = 120


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_any_terminal_shows_any_text(encoding: str) -> None:
    terminal.codecs.register_error(terminal.ERRORS, terminal._nearest)
    below = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    stream = terminal.NearestText(below)
    text = "ε ≤ 8/255 – a… → “b” 王"
    assert stream.write(text) == len(text)
    stream.flush()
    shown = below.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "8/255 - a... -> " in shown.replace("…", "...") and "\\u738b" in shown
    assert stream.encoding == encoding and not stream.isatty() and not hasattr(stream, "buffer")


@pytest.mark.parametrize("arguments", [["tracks"], ["--help"], ["train", "--help"]])
def test_ascii_output_is_ascii(arguments: list[str]) -> None:
    done = subprocess.run(
        [*CLI, *arguments],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.isascii() and len(done.stdout) > 200


@pytest.mark.parametrize("arguments", [["tracks"], ["--help"]])
def test_a_reader_that_goes_away_ends_a_command_quietly(arguments: list[str]) -> None:
    """As ``| head`` does: the pipe is closed before anything is written."""
    read, write = os.pipe()
    process = subprocess.Popen([*CLI, *arguments], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    os.close(read)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert (process.returncode, said) == (entry.UNREAD, b"")


@pytest.fixture
def heard() -> Iterator[None]:
    """A job in the background is deaf to the keyboard, and so are its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


_INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *rest):
        if name == NAME:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is deaf
sys.meta_path.insert(0, Finder())
sys.argv = ["corobench", "tracks"]
from corobench.benchmark.cli.entry import main
main()
"""


@pytest.mark.parametrize("name", ["rich.console", "corobench.benchmark.cli.listing"])
def test_the_keyboard_while_modules_are_loaded(name: str) -> None:
    script = _INTERRUPTED.replace("NAME", repr(name))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == entry.STOPPED
    assert "stopped; to continue" in done.stderr and "Traceback" not in done.stderr


def test_a_library_that_turns_the_keyboard_into_another_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("could not load") from error

    def broken(arguments: list[str]) -> int:
        raise ImportError("could not load")

    monkeypatch.setattr(terminal, "fit_streams", lambda: None)
    monkeypatch.setattr(main, "invoke", interrupted)
    assert entry.run([]) == entry.STOPPED
    assert "stopped" in capsys.readouterr().err
    monkeypatch.setattr(main, "invoke", broken)
    with pytest.raises(ImportError):  # a defect stays one
        entry.run([])


def test_processes_that_are_started_do_not_hear_the_keyboard() -> None:
    ask = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    before = signal.getsignal(signal.SIGINT)
    with deaf_to_the_keyboard():
        process = subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=PATIENCE_S)[0].strip() == "True"
    assert signal.getsignal(signal.SIGINT) == before


def test_the_keyboard_is_heard_once_they_are_started(heard: None) -> None:
    is_over = False
    with pytest.raises(KeyboardInterrupt):
        with deaf_to_the_keyboard():
            # To this thread: another one of the process could take it, and tell a moment later.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            is_over = True
        pytest.fail("Ctrl-C was lost")
    assert is_over
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
