"""What ended the processes of one task, and whether another one is started; imports no torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.executors.child import End
from corobench.benchmark.executors.limits import MAX_ENDED
from corobench.benchmark.executors.scheduling import MAX_TRIES
from corobench.benchmark.files.steps import EVERY_STEP, NEEDED, Ended, counts

#: Processes of one task in all.
MAX_PROCESSES = 300


class Attempts:
    """The processes of one task.

    A step that a limit of ours ended is not tried again. Neither is one that died otherwise
    `MAX_TRIES` times: once may be a machine that ran out of memory, or an operator.

    Args:
        what: the stranger's path.
        goes_on: whether the task goes on without a step that ended its process.

    Attributes:
        ended: step -> why it is not tried again.
    """

    def __init__(self, what: Path, *, goes_on: bool) -> None:
        self._what, self._goes_on = what, goes_on
        self._num_tries: Counter[str] = Counter()
        self.ended: dict[str, Ended] = {}

    def note(self, step: str, end: End) -> str:
        """A process ended in a step.

        Returns:
            What happens now, for people.

        Raises:
            SubmissionError: nothing more is tried.
        """
        reason = end.ended.reason
        self._num_tries[step] += 1
        if self._num_tries.total() >= MAX_PROCESSES or not self._goes_on:
            raise self._refusal(step, reason)
        if not end.by_limit and self._num_tries[step] < MAX_TRIES:
            return f"{step} lost its process: {reason}; trying again"
        if step in NEEDED or step in self.ended or EVERY_STEP in self.ended:
            raise self._refusal(step, reason)
        self.note_ended(step, end.ended)
        return f"{step} ended its process: {reason}; continuing without it"

    def note_ended(self, step: str, ended: Ended) -> None:
        """A step is not tried again; after too many, no other one is begun."""
        self.ended[step] = ended
        if sum(map(counts, self.ended)) >= MAX_ENDED:
            self.ended.setdefault(EVERY_STEP, ended)

    def _refusal(self, step: str, reason: str) -> SubmissionError:
        return SubmissionError(self._what, [f"{step}: its process ended: {reason}"])
