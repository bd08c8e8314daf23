"""What commands found, as records that pass from a process to the one that started it; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.records.result import Compactness, Result


@dataclass(frozen=True)
class Recheck:
    """What re-measuring the stored adversarial images of a result found.

    Attributes:
        num_rows: attacked rows of the outcome table, one per image and epsilon.
        num_images: adversarial images they refer to.
        failures: one line per row whose image is outside its ball or fools nobody.
        num_proofs: certified rows; None where their proofs were not checked.
        unproven: one line per certified row whose proof is not confirmed.
        moved: one line per image that is right or wrong without an attack, and not so in the table.
        curve: where the security curve differs from what is measured, one line each; None where it
            was not measured again, or there is none.
    """

    num_rows: int
    num_images: int
    failures: tuple[str, ...]
    num_proofs: int | None = None
    unproven: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    curve: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Contested:
    """What a contest found.

    Attributes:
        before: the result as it was.
        after: the result with the images that hold.
        num_images: handed in.
        num_confirmed: that fool the model inside the ball of at least one epsilon.
        broken: epsilon -> rows that stood and are broken now.
        rejected: one line per image that does not hold.
    """

    before: Result
    after: Result
    num_images: int
    num_confirmed: int
    broken: dict[str, int]
    rejected: tuple[str, ...]


@dataclass(frozen=True)
class Examined:
    """What a new entry is, and why it is refused without an evaluation.

    Attributes:
        faults: one line each; empty where there is none.
        entry: its id; empty where it cannot be loaded, as are the next two.
        track: it is for.
        weights_sha256: of its effective weights.
        notes: what whoever merges it must ask.
    """

    faults: tuple[str, ...]
    entry: str = ""
    track: str = ""
    weights_sha256: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """A handed-in result whose claims hold, and what was looked at.

    Attributes:
        path: of the result file.
        n: images of it, of which all predictions and all certificates were asked again.
        seed: of the draw and of the attacks' starts; it repeats them.
        num_certified: rows of the outcome table that were certified again.
        num_rechecked: attacked rows whose stored image was measured again.
        population: images that are claimed to be unbroken somewhere without a proof.
        num_drawn: of those, the ones that were attacked again.
        hidden: lies among the population that are to be found.
        miss_rate: chance that none of so many was drawn.
        num_audited: proven rows that were attacked.
        contradictions: proven images that broke, one line each.
        lucky: images that broke under new starts and not under the public seed, one line each.
        found: file of the images that broke, as `corobench contest` reads them; empty for none.
        notes: what could not be compared, one line each.
    """

    path: Path
    n: int
    seed: int
    num_certified: int
    num_rechecked: int
    population: int
    num_drawn: int
    hidden: int
    miss_rate: float
    num_audited: int
    contradictions: tuple[str, ...] = ()
    lucky: tuple[str, ...] = ()
    found: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportReport:
    """What an import did, and how far the written submission is from its source.

    Attributes:
        folder: the new submission folder.
        source: the checkpoint.
        weights_sha256: of the effective weights.
        sparsity: measured share of zeros in convolution and linear weights.
        prefix: stripped from the checkpoint's names.
        num_images: compared in the self-check.
        images: which, for people.
        max_difference: largest difference of any logit between source and reloaded submission.
        is_against_reference: true if the source was a model of the caller's, false if it was
            our network with the checkpoint's tensors.
        notes: what to look at in the manifest.
    """

    folder: Path
    source: Path
    weights_sha256: str
    sparsity: float
    prefix: str
    num_images: int
    images: str
    max_difference: float
    is_against_reference: bool
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: imported from {self.source}",
            f"  weights    sha256 {self.weights_sha256[:16]}, "
            f"{100 * self.sparsity:.2f} % zeros in convolution and linear weights",
            f"  self-check largest difference of a logit {self.max_difference:.3g} "
            f"on {self.images} after reloading",
        ]
        if self.prefix:
            lines.append(f"  names      stripped {self.prefix!r}")
        lines += [f"  note       {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class Converted:
    """A new folder that was read back and agrees with its source.

    Attributes:
        folder: that was made.
        source: it came from.
        difference: largest difference of any logit.
        images: on which, for people.
        lines: what else there is to say.
    """

    folder: Path
    source: Path
    difference: float
    images: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = (
            f"{self.folder}: from {self.source}\n"
            f"  self-check largest difference of a logit {self.difference:.3g} on {self.images} "
            "after reloading"
        )
        return "\n".join([first, *(f"  {line}" for line in self.lines)])


@dataclass(frozen=True)
class ExportedQuestions:
    """Open images of a result as files for a verifier.

    Attributes:
        folder: that was made.
        num_files: radius -> questions.
        version: of VNN-LIB.
    """

    folder: Path
    num_files: dict[str, int]
    version: str

    def __str__(self) -> str:
        counts = ", ".join(f"{num} at {epsilon}" for epsilon, num in self.num_files.items())
        return f"{self.folder}: model.onnx, instances.csv, VNN-LIB {self.version}: {counts}"


@dataclass(frozen=True)
class ProofsSeen:
    """Verdicts of somebody else's verifier, which change nothing.

    Attributes:
        result: that they are about.
        seen: radius -> verdict on open images, or "decided" -> how many.
        num_unknown: verdicts about no image of the result.
        against: one line per verdict that contradicts what was measured or proven here.
    """

    result: Result
    seen: dict[str, dict[str, int]]
    num_unknown: int
    against: tuple[str, ...]


@dataclass(frozen=True)
class Latency:
    """Milliseconds per image at batch size 1, on one thread.

    Attributes:
        median_ms: the middle one.
        low_ms: a twentieth of the runs were faster.
        high_ms: a twentieth of the runs were slower.
        repeats: runs.
        hardware: the processor.
        runtime: name and version.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    hardware: str
    runtime: str

    def __str__(self) -> str:
        return (
            f"{self.median_ms:.3f} ms (5 % to 95 %: {self.low_ms:.3f} to {self.high_ms:.3f}) for "
            f"one image, {self.repeats} runs, one thread of {self.hardware}, {self.runtime}"
        )


@dataclass(frozen=True)
class Measured:
    """What a submission weighs.

    Attributes:
        entry: its id.
        compactness: measured on its effective weights.
        latency: None where it was not asked for.
        weights_sha256: of its effective weights.
    """

    entry: str
    compactness: Compactness
    latency: Latency | None = None
    weights_sha256: str = ""


@dataclass(frozen=True)
class Remeasured:
    """Compactness of one published result again.

    Attributes:
        path: of its file.
        compactness: as measured now.
        added: keys that the result does not have.
    """

    path: Path
    compactness: Compactness
    added: tuple[str, ...]


@dataclass(frozen=True)
class Repacked:
    """What was written, after it was read back and found equal to its source bit by bit.

    Attributes:
        source: that was read.
        target: that was written.
        bytes_before: size of the source.
        bytes_after: size of the target.
        num_values: in all tensors.
        num_kept: whose bits are not all zero.
        num_negative_zeros: of those kept; they count as removed and still need their bits.
    """

    source: Path
    target: Path
    bytes_before: int
    bytes_after: int
    num_values: int
    num_kept: int
    num_negative_zeros: int

    def __str__(self) -> str:
        text = (
            f"{self.target}: {self.bytes_after:,} bytes, {self.source.name} had "
            f"{self.bytes_before:,}; {self.num_kept:,} of {self.num_values:,} values are not "
            "zero; read back, equal bit by bit"
        )
        if self.num_negative_zeros:
            text += (
                f"\n  note: {self.num_negative_zeros:,} values are -0.0, which count as weights; "
                "save them as 0.0 to make the file smaller"
            )
        return text
