"""Terminals and pipes that cannot show every letter get the nearest ones that they can."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import NoReturn, TextIO

from rich.console import Console

from corobench.benchmark.cli.entry import UNREAD

ERRORS = "corobench-nearest"
#: What the letters of our texts become where only ASCII can be shown.
_NEAREST = {
    **dict.fromkeys("‐‑‒–—−─━╌┄·•", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇", "+"),
    **dict.fromkeys("‘’‚", "'"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("\xa0\u2009\u202f", " "),
    **dict.fromkeys("█▉▊▋▌▍▎▏▓▒", "#"),
    **{"…": "...", "≤": "<=", "≥": ">=", "≠": "!=", "×": "x", "→": "->", "←": "<-", "±": "+-"},
    **{"ε": "eps", "α": "alpha", "∞": "inf", "✓": "ok", "✗": "x", "½": "1/2", "°": " deg"},
}


def fit_streams() -> None:
    """Let standard output and error show any text, in whatever encoding they have."""
    codecs.register_error(ERRORS, _nearest)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not _shows_everything(stream):
            setattr(sys, name, NearestText(stream))
    Console.on_broken_pipe = _unread  # type: ignore[method-assign]


def _shows_everything(stream: TextIO) -> bool:
    try:
        return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")
    except LookupError:
        return False


def _nearest(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    shown = "".join(
        _NEAREST.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        for letter in text
    )
    return shown, error.end


class NearestText(io.TextIOBase):
    """A text stream on top of one that cannot encode every letter.

    It has no `buffer`: whoever finds one, as click does, writes UTF-8 into it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream below."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write text, letters that cannot be shown as the nearest that can."""
        codec = self.encoding
        self._stream.write(text.encode(codec, ERRORS).decode(codec))
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Descriptor of the stream below."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True


def _unread(self: Console) -> NoReturn:
    """In the place of rich's way of ending, whose exit code 1 means a verdict here."""
    self.quiet = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(UNREAD)
