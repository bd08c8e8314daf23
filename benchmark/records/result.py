"""Every record that is written to disk. Read this file first.

``submission.toml`` -> :class:`Manifest`; one row per image and epsilon -> the outcome table
(:data:`OUTCOME_COLUMNS`); the table and a :class:`Run` -> :class:`Result`, the result file.
Documented key by key in docs/file-formats.md. This module imports no torch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from corobench.benchmark.records.base import (
    Count,
    Day,
    Digest,
    Duration,
    FirstSchema,
    Flag,
    Identifier,
    Sha256,
    StoredRecord,
)
from corobench.benchmark.records.manifest import Manifest as Manifest
from corobench.benchmark.records.manifest import Method as Method
from corobench.benchmark.records.manifest import Model as Model
from corobench.benchmark.records.manifest import Training as Training
from corobench.benchmark.records.sizes import Compactness as Compactness
from corobench.benchmark.records.sizes import Equivalent as Equivalent
from corobench.benchmark.records.sizes import Layer as Layer
from corobench.benchmark.records.sizes import Magnitudes as Magnitudes

SCHEMA = 1
#: Largest result file that is read.
MAX_RESULT_BYTES = 16 * 1024**2


class Outcome(StrEnum):
    """What is known of one image at one epsilon; exactly one holds.

    ``timeout`` and ``error`` are never counted as robust, and ``undecided`` is not "not robust".
    """

    MISCLASSIFIED = "misclassified"
    ATTACKED = "attacked"
    CERTIFIED = "certified"
    UNDECIDED = "undecided"
    TIMEOUT = "timeout"
    ERROR = "error"


#: Certifiers that have a column of their own in the outcome table, cheapest first.
CERTIFIERS = ("IBP", "CROWN-IBP", "CROWN", "alpha-CROWN", "BaB")

#: Attacks and parts of them that may have broken an image; "contest" is a third party's image.
ATTACKED_BY = ("pgd50", "pgd10", "autoattack", "apgd-ce", "apgd-t", "fab-t", "square", "contest")
#: What may stand in `decided_by` of an outcome table, where it is not empty.
DECIDED_BY = ("clean", *CERTIFIERS, *ATTACKED_BY)

#: The outcome table: column -> (pandas dtype, meaning). One row per image and epsilon.
OUTCOME_COLUMNS: dict[str, tuple[str, str]] = {
    "image": ("int32", "index of the image in its test set"),
    "position": ("int32", "rank of the image in the published order, from 0"),
    "label": ("int16", "true class"),
    "predicted": ("int16", "class predicted without an attack"),
    "epsilon": ("string", 'radius as exact text, e.g. "8/255"'),
    "outcome": ("string", "one of the six outcomes"),
    "decided_by": ("string", "attack or certifier that decided, or empty"),
    "carried_from": ("string", "epsilon whose decision was carried here, or empty"),
    "margin": ("Float32", "best certified lower bound of the smallest logit margin, or missing"),
    "ibp": ("boolean", "proven right by IBP; missing where it was not asked"),
    "crown_ibp": ("boolean", "proven right by CROWN-IBP; missing where it was not asked"),
    "crown": ("boolean", "proven right by CROWN; missing where it was not asked"),
    "alpha_crown": ("boolean", "proven by alpha-CROWN or a cheaper one; missing where not asked"),
    "bab": ("boolean", "proven by BaB or a cheaper certifier; missing where it was not asked"),
    "pgd50": ("boolean", "still right after PGD-50; missing where it was not run"),
    "autoattack": ("boolean", "still right after AutoAttack; missing where it was not run"),
    "adversarial": ("int32", "row in the adversarial file, or -1"),
    "seconds": ("float32", "seconds spent on this image at this epsilon"),
}

#: Column of the outcome table that holds a certifier's answers.
CERTIFIER_COLUMNS = {name: name.lower().replace("-", "_") for name in CERTIFIERS}

# ------------------------------------------------------------------------ the result file


class DataInfo(StoredRecord):
    """Which images were used.

    Attributes:
        kind: "canonical", or "mirror" for bytes that differ from the published ones.
        fingerprint: sha256 of the decoded test images and labels.
        source: where they were found, for people.
    """

    kind: Literal["canonical", "mirror"]
    fingerprint: Sha256
    source: str = ""


class EpsilonScore(StoredRecord):
    """Counts out of n at one epsilon.

    Attributes:
        counts: images per outcome; they add up to n.
        pgd50: still right after PGD-50 (a certified image is right by proof).
        autoattack: still right after the full AutoAttack suite.
        certified_by: proven right per certifier and by the cascade (any of them); null where
            the certifier was not asked.
        flags: named health flags raised at this epsilon (docs/health.md).
        decided_by: images per attack or certifier that decided them.
    """

    counts: dict[Outcome, Count]
    pgd50: Count
    autoattack: Count
    certified_by: dict[str, Count | None]
    flags: tuple[Flag, ...] = ()
    decided_by: dict[str, Count] = Field(default_factory=dict)


class Audit(StoredRecord):
    """Certified images that were attacked all the same, to catch a certifier that is wrong.

    Attributes:
        num_images: attacked with PGD-50 and AutoAttack, each at the largest epsilon it is
            certified at.
        contradictions: one line per image that an attack broke; any freezes the entry.
    """

    num_images: Count = 0
    contradictions: tuple[str, ...] = ()


def contradiction(image: int, epsilon: str, prover: str, breaker: str) -> str:
    """The line of an audit for an image that is proven and broken.

    >>> contradiction(7, "1/16", "IBP", "pgd50")
    'image 7 at 1/16: proven by IBP, broken by pgd50'
    """
    return f"image {image} at {epsilon}: proven by {prover}, broken by {breaker}"


class Contest(StoredRecord):
    """Adversarial images from a third party that the referee judged.

    Attributes:
        sha256: of the file that was handed in.
        by: who found the images, for people.
        num_images: handed in.
        num_confirmed: that fool the model inside a ball.
        broken: epsilon -> rows that stood before and are broken since.
    """

    sha256: Sha256
    by: str = ""
    num_images: Count
    num_confirmed: Count
    broken: dict[str, Count]


class Recognition(StoredRecord):
    """Whether the network knows the published images (`benchmark.evaluation.recognition`).

    Attributes:
        num_images: published images that it gave an answer on.
        right: of those, without an attack.
        shifted: of those, each value moved by less than one grey level.
        num_unseen: training images, or None where they were not at hand.
        unseen: right ones of those.
    """

    num_images: Count
    right: Count
    shifted: Count
    num_unseen: Count | None = None
    unseen: Count | None = None


class Earlier(StoredRecord):
    """The result whose attacks a recertified one took over (`benchmark.evaluation.recertify`).

    Attributes:
        protocol: it was evaluated by.
        identity: of that result.
        device: its attacks ran on.
        versions: they ran with.
    """

    protocol: str
    identity: Digest
    device: str
    versions: dict[str, str]


class Seconds(StoredRecord):
    """Wall-clock seconds of one evaluation, by kind of work."""

    clean: Duration = 0.0
    attack: Duration = 0.0
    certify: Duration = 0.0


class Run(StoredRecord):
    """What identifies a result, and everything of it that is not an outcome.

    Attributes:
        protocol: version of the protocol; results of one major.minor are comparable.
        entry: id of the submission.
        track: name of the track.
        n: images evaluated: the first n of the published order.
        quick: true where n or the epsilons are not a ranked setting; never ranked.
        epsilons: exact radii as text, ascending.
        data: which images.
        weights_sha256: hash of the effective weights.
        seed: of the run.
        device: "cpu", or the accelerator's name, and whether attacks searched in TF32 there.
        versions: of torch, the attack library, the certifier and corobench.
        settings: resolved settings of every stage.
        constants: numbers of the deciding code by name, for people; None in older results.
        submission: the manifest as written.
        compactness: measured.
        not_asked: certifier -> why it was not asked.
        flags: epsilon -> named health flags.
        seconds: wall-clock.
        audit: what attacking certified images found.
        errors: why images ended as ``error``, one line per epsilon and reason.
        contests: images from third parties that tightened the result since.
        searched_on: the network that attacks and certifiers worked on: the submitted one, or an
            equivalent of it (`benchmark.network.equivalent`); images are judged by the submitted
            one.
        recognition: whether it knows the published images; None where it was not asked.
        files: ending of the file of adversarial images -> its sha256; None in older results.
        halved_batches: of attacks, because an accelerator's memory ran out; None for none.
        earlier: the result whose attacks were taken over; None for an evaluation of its own.
        identity: sha256 over all of the above that identifies the result.
        date: day on which the evaluation ended, in UTC, as YYYY-MM-DD; empty where it was not
            recorded. It identifies nothing.
    """

    protocol: str
    entry: Identifier
    track: str
    n: Annotated[int, Field(ge=1)]
    quick: bool
    epsilons: tuple[str, ...]
    data: DataInfo
    weights_sha256: Sha256
    seed: Count
    device: str
    versions: dict[str, str]
    settings: dict[str, object]
    constants: dict[str, object] | None = None
    submission: Manifest
    compactness: Compactness
    not_asked: dict[str, str] = Field(default_factory=dict)
    flags: dict[str, tuple[Flag, ...]] = Field(default_factory=dict)
    seconds: Seconds = Seconds()
    audit: Audit = Audit()
    errors: tuple[str, ...] = ()
    contests: tuple[Contest, ...] = ()
    searched_on: Literal["submitted", "compacted", "unrolled"] = "submitted"
    recognition: Recognition | None = None
    files: dict[str, Sha256] | None = None
    halved_batches: Count | None = None
    earlier: Earlier | None = None
    identity: Digest = ""
    date: Day = ""


class Result(StoredRecord):
    """The result file: the scorecard of one entry. Accuracies are integers out of ``n``.

    Its key `files` has the sha256 of the two files that lie beside it and are one set with it
    (`benchmark.records.result_set`).

    An entry is *frozen* when its audit found a contradiction: an image both proven right and
    broken. Its numbers stay readable and are never ranked.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_version: FirstSchema = Field(default=1, alias="schema")
    protocol: str
    entry: Identifier
    track: str
    n: Annotated[int, Field(ge=1)]
    quick: bool
    data: DataInfo
    weights_sha256: Sha256
    seed: Count
    device: str
    versions: dict[str, str]
    clean: Count
    epsilons: dict[str, EpsilonScore]
    compactness: Compactness
    seconds: Seconds
    settings: dict[str, object] = Field(default_factory=dict)
    constants: dict[str, object] | None = None
    submission: Manifest
    not_asked: dict[str, str] = Field(default_factory=dict)
    audit: Audit = Audit()
    errors: tuple[str, ...] = ()
    contests: tuple[Contest, ...] = ()
    searched_on: Literal["submitted", "compacted", "unrolled"] = "submitted"
    recognition: Recognition | None = None
    files: dict[str, Sha256] | None = None
    halved_batches: Count | None = None
    earlier: Earlier | None = None
    identity: Digest = ""
    date: Day = ""

    @property
    def is_frozen(self) -> bool:
        """Whether the audit found a contradiction."""
        return bool(self.audit.contradictions)
