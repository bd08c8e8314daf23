"""What an evaluation finds out about each image; arrays, no files and no mathematics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.files.steps import Ended
from corobench.benchmark.scoring.statistics import wilson

BoolArray = NDArray[np.bool_]


@dataclass
class EpsilonFacts:
    """All that is known of n images at one epsilon; arrays of length n.

    Attributes:
        certified: certifier -> proven right (only for those asked); for the costly ones that close
            the bracket: proven by it or by a cheaper one.
        margin: best certified lower bound, NaN where unknown.
        proven_by: cheapest certifier that proved the image, or empty.
        proven_from: larger epsilon that the proof was carried from, or empty.
        broken: attack -> broken at this epsilon or a smaller one.
        broken_by: part of the attack that broke the image, or empty.
        broken_from: smaller epsilon that the attack was carried from, or empty.
        failed: why a stage ended without an answer, or empty.
        by_clock: of those, the ones that a limit of time ended.
        adversarial: row in `Facts.adversarial`, or -1.
        seconds: spent on the image.
        flags: named health flags.
        audited: certified images that are attacked here all the same.
        stopped: open images whose search the clock ended.
        unanswered: certifier -> open images it was not asked about, because it gave up before;
            attack -> images on which it ended without an answer.
        doubts: flag -> rows of the images that raised it, for flags that know them.
    """

    certified: dict[str, BoolArray]
    margin: NDArray[np.float32]
    proven_by: NDArray[np.object_]
    proven_from: NDArray[np.object_]
    broken: dict[str, BoolArray]
    broken_by: NDArray[np.object_]
    broken_from: NDArray[np.object_]
    failed: NDArray[np.object_]
    by_clock: BoolArray
    adversarial: NDArray[np.int32]
    seconds: NDArray[np.float32]
    flags: set[str]
    audited: BoolArray
    stopped: BoolArray
    unanswered: dict[str, BoolArray]
    doubts: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def empty(cls, n: int) -> EpsilonFacts:
        """Nothing is known yet."""

        def text() -> NDArray[np.object_]:
            return np.full(n, "", dtype=object)

        return cls(
            certified={},
            margin=np.full(n, np.nan, dtype=np.float32),
            proven_by=text(),
            proven_from=text(),
            broken={},
            broken_by=text(),
            broken_from=text(),
            failed=text(),
            by_clock=np.zeros(n, dtype=bool),
            adversarial=np.full(n, -1, dtype=np.int32),
            seconds=np.zeros(n, dtype=np.float32),
            flags=set(),
            audited=np.zeros(n, dtype=bool),
            stopped=np.zeros(n, dtype=bool),
            unanswered={},
        )

    def doubt(self, flag: str, rows: Iterable[int]) -> None:
        """Raise a flag for images, if there are any."""
        rows = {int(row) for row in rows}
        if rows:
            self.flags.add(flag)
            self.doubts.setdefault(flag, set()).update(rows)

    @property
    def attacked(self) -> BoolArray:
        """Broken by anything at this epsilon or a smaller one."""
        return np.asarray(self.broken_by != "", dtype=bool)

    @property
    def proven(self) -> BoolArray:
        """Proven right by any certifier."""
        return np.asarray(self.proven_by != "", dtype=bool)


@dataclass
class BrokenSoFar:
    """What one attack has broken, while it goes from the smallest epsilon to the largest.

    Attributes:
        broken: bool (n,).
        broken_by: part of the attack that broke the image, or empty.
        broken_from: epsilon at which it did, or empty.
        source: row in `Facts.adversarial`, or -1.
    """

    broken: BoolArray
    broken_by: NDArray[np.object_]
    broken_from: NDArray[np.object_]
    source: NDArray[np.int32]

    @classmethod
    def none(cls, n: int) -> BrokenSoFar:
        """Nothing is broken yet."""
        by, at = (np.full(n, "", dtype=object) for _ in range(2))
        return cls(np.zeros(n, dtype=bool), by, at, np.full(n, -1, dtype=np.int32))

    def add(
        self, hits: NDArray[np.int64], names: NDArray[np.object_], epsilon: str, first: int
    ) -> None:
        """Images that were broken now.

        Args:
            hits: rows of the images.
            names: part of the attack that broke each.
            epsilon: at which it did.
            first: row in `Facts.adversarial` of the first of them.
        """
        self.broken[hits] = True
        self.broken_by[hits] = names
        self.broken_from[hits] = epsilon
        self.source[hits] = first + np.arange(len(hits))

    def record_in(self, facts: EpsilonFacts) -> None:
        """Write it where nothing else has broken the image."""
        new = self.broken & (facts.broken_by == "")
        facts.broken_by[new] = self.broken_by[new]
        facts.broken_from[new] = self.broken_from[new]
        facts.adversarial[new] = self.source[new]


@dataclass
class Facts:
    """All that an evaluation found out; the outcome table is made of it
    (`benchmark.evaluation.outcomes`).

    Attributes:
        predicted: int64 (n,), class predicted without an attack, at batch size 1; -1 where the
            network gave no answer.
        correct: bool (n,).
        epsilons: facts per epsilon, ascending.
        not_asked: certifier -> why.
        adversarial: float32 images, each broken by re-measurement.
        seconds: wall-clock by kind of work.
        num_halved: batches of attacks that were halved because memory ran out.
    """

    predicted: NDArray[np.int64]
    correct: BoolArray
    epsilons: dict[str, EpsilonFacts]
    not_asked: dict[str, str] = field(default_factory=dict)
    adversarial: list[NDArray[np.float32]] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"clean": 0.0, "attack": 0.0, "certify": 0.0}
    )
    num_halved: int = 0

    @property
    def unpredicted(self) -> BoolArray:
        """Images on which the network itself gave no answer."""
        reasons = next(iter(self.epsilons.values())).failed
        return np.array([text.startswith(("clean:", "contract:")) for text in reasons], dtype=bool)

    def record_no_answer(self, step: str, rows: NDArray[np.int64], ended: Ended) -> None:
        """Images on which the network itself gives no answer: an error, or a timeout.

        Args:
            step: "clean" or "contract".
            rows: of the images.
            ended: why.
        """
        self.predicted[rows] = -1
        self.correct[rows] = False
        for known in self.epsilons.values():
            known.failed[rows] = f"{step}: {ended.reason}"[:300]
            known.by_clock[rows] = ended.by_clock

    def bracket_note(
        self, epsilon: str, proven: BoolArray | None = None, broken: BoolArray | None = None
    ) -> str:
        """The bracket so far with its 95 % interval, for people.

        The interval reaches from the lower Wilson end of what is proven to the upper one of what
        is not broken.

        Args:
            epsilon: of the track.
            proven: proofs that are not recorded yet.
            broken: adversarial images that are not recorded yet.
        """
        known, n = self.epsilons[epsilon], len(self.correct)
        is_broken, is_proven = known.attacked, known.proven
        if broken is not None:
            is_broken = is_broken | broken
        if proven is not None:
            is_proven = is_proven | proven
        low = int((self.correct & is_proven & ~is_broken).sum())
        high = int((self.correct & ~is_broken).sum())
        ends = [100 * end for end in (low / n, high / n, wilson(low, n)[0], wilson(high, n)[1])]
        return "{:.1f}–{:.1f} % (95 %: {:.1f}–{:.1f})".format(*ends)

    def record_broken(self, by: str, found: dict[str, dict[int, NDArray[np.float32]]]) -> None:
        """Adversarial images found beside the attacks; they count at every larger epsilon, too.

        Args:
            by: what found them.
            found: epsilon, ascending -> row -> float32 (C, H, W), each re-measured.
        """
        broken_at: dict[int, tuple[str, int]] = {}
        for epsilon, images in found.items():
            facts = self.epsilons[epsilon]
            for row, (source, index) in broken_at.items():
                if facts.broken_by[row] == "":
                    facts.broken_by[row], facts.broken_from[row] = by, source
                    facts.adversarial[row] = index
            for row, image in images.items():
                if facts.broken_by[row] == "":
                    facts.broken_by[row] = by
                    facts.adversarial[row] = len(self.adversarial)
                    self.adversarial.append(image)
                    broken_at[row] = (epsilon, int(facts.adversarial[row]))
            facts.stopped &= ~facts.attacked
