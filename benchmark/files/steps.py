"""Steps of an evaluation: announced before they begin, and not tried again where one ended it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

#: Stands for every step that is left, once too many have ended a process.
EVERY_STEP = "*"
#: A certifier is not asked again once one of its steps ended a process, so that there are few such
#: steps. They say nothing about the others, and do not count among those after which no more is
#: tried: attacks go on where every certifier fails.
PROOF = "certify"
#: Kinds of jobs that are such steps: cheap certifiers, and those that close the bracket.
PROOF_KINDS = (PROOF, "close")
#: Steps without which there is no result at all.
NEEDED = ("start", "load", "measure", "validate")
#: Options of the limits, which the reason of a step that broke one names.
STEP_LIMIT, MEMORY_LIMIT = LIMIT_OPTIONS = ("--step-limit-s", "--memory-limit-gib")


class Ended(NamedTuple):
    """Why a step ended the process it ran in.

    Attributes:
        reason: for people, in one line.
        by_clock: a limit of time ended it, so that its images are a timeout and no error.
    """

    reason: str
    by_clock: bool


def counts(step: str) -> bool:
    """Whether the end of a step counts towards giving up all of them.

    >>> counts("certify-CROWN-2_16-0000"), counts("attack-pgd50-2_16-0000")
    (False, True)
    """
    return not step.startswith(f"{PROOF}-")


class StepEndedError(Exception):
    """A step is not tried, because it ended an earlier process."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.reason)
        self.ended = ended


class Steps:
    """The steps of one evaluation, by name.

    Args:
        announce: told the name of each step before it begins.
        ended: steps that ended an earlier process.
    """

    def __init__(
        self,
        announce: Callable[[str], None] = lambda name: None,
        ended: Mapping[str, Ended] | None = None,
    ) -> None:
        self._announce = announce
        self._ended = dict(ended or {})

    def begin(self, name: str) -> None:
        """Announce a step.

        Raises:
            StepEndedError: it ended an earlier process.
        """
        ended = self.why_ended(name)
        if ended is not None:
            raise StepEndedError(ended)
        self._announce(name)

    def why_ended(self, name: str) -> Ended | None:
        """Why a step is not tried; None where it may be."""
        ended = self._ended.get(name)
        if ended is None and name not in NEEDED:
            ended = self._ended.get(EVERY_STEP)
        return ended

    def note_ended(self, name: str, ended: Ended) -> None:
        """A step ended the process of a worker that did it for this one."""
        self._ended[name] = ended

    @property
    def ended(self) -> Mapping[str, Ended]:
        """Steps that ended an earlier process, and why."""
        return dict(self._ended)

    @property
    def ended_early(self) -> bool:
        """Whether any step ended an earlier process."""
        return bool(self._ended)
