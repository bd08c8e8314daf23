"""What a user can fix, as one family of exceptions.

The command line turns every :class:`CorobenchError` into one message without a traceback and
the exit code of its class. Anything else that escapes is a defect of corobench itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

#: Most words that a message lists.
MAX_NAMED = 16
#: Faults of one file that a message lists.
MAX_FAULTS = 50
#: Words that it names of a longer list.
NUM_SIMILAR = 3


class CorobenchError(Exception):
    """Base class: says what was expected, what was found and what to do.

    Args:
        message: one or more lines for the user, naming the file and key at fault.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SubmissionError(CorobenchError):
    """A submission breaks rules; carries every fault found, not only the first.

    Args:
        path: the submission folder or file the faults belong to.
        faults: one line per fault.
    """

    def __init__(self, path: object, faults: Sequence[str]) -> None:
        self.path = str(path)
        self.faults = tuple(printable(fault) for fault in faults)
        told = self.faults[:MAX_FAULTS]
        lines = "\n".join(f"  - {fault}" for fault in told)
        if len(told) < len(self.faults):
            lines += f"\n  - and {len(self.faults) - len(told)} more"
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{printable(self.path)}: {len(self.faults)} {noun}\n{lines}")


class ContractError(SubmissionError):
    """A loaded model breaks a clause of the model contract (RULES.md)."""


class DatasetError(CorobenchError):
    """A dataset is missing, incomplete or not what its name says."""


class ConfigError(CorobenchError):
    """A recipe or an option has an unknown key or a value outside its range."""


class ResultError(CorobenchError):
    """A result file or outcome table cannot be read, or contradicts itself."""


class OutputError(CorobenchError):
    """An output folder or file cannot be written."""


class DependencyError(CorobenchError):
    """A package that this command needs is missing or does not work here."""


class ContradictionError(CorobenchError):
    """An image was certified and attacked at the same epsilon: the result is frozen."""

    exit_code = 3


def printable(text: str) -> str:
    """Text from a stranger on one line: control and invisible characters are written out.

    A name in a file must not move the cursor of a terminal, nor begin a line of its own in the log
    of a job, where it could be a command.

    >>> printable("a\\x1b[2J\\n::warning::b")
    'a\\\\x1b[2J\\\\n::warning::b'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def shown(text: str) -> str:
    """Lines of ours, in which the names of a stranger's files do nothing.

    Whatever moves a cursor is written out, and so is the end of a line before what a job would take
    for a command.

    >>> shown("a\\x1b[2J.json: no result\\n  - b\\n::error::c")
    'a\\\\x1b[2J.json: no result\\n  - b\\\\n::error::c'
    """
    lines = text.split("\n")
    found = [printable(line) if not line.isprintable() else line for line in lines]
    joined = found[0]
    for line in found[1:]:
        is_command = line.lstrip().startswith(("::", "##["))
        joined += ("\\n" if is_command else "\n") + line
    return joined


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or those that are known when nothing is close.

    Of many words only the most similar are named.

    >>> nearest("titel", ["title", "id"])
    "did you mean 'title'?"
    >>> nearest("zzz", ["title", "id"])
    "expected one of 'id', 'title'"
    """
    candidates = sorted(known)
    close = difflib.get_close_matches(word, candidates, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(candidates) <= MAX_NAMED:
        return "expected one of " + ", ".join(repr(name) for name in candidates)
    similar = difflib.get_close_matches(word, candidates, n=NUM_SIMILAR, cutoff=0.0)
    named = ", ".join(repr(name) for name in similar)
    return f"none of the {len(candidates)} known ones is close; the most similar are {named}"


class NotCertifiable(Exception):  # noqa: N818 - a verdict on a model, not a fault of the program
    """A certifier cannot bound this model soundly; reported as such, never as 0 %.

    Args:
        rule: short kebab-case name of the rule, such as "padded-average-pool".
        message: what was found and what to do, for the person who submitted the model.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule
        self.message = message
