"""Evaluate a sample of a stored result's images again, each as it was evaluated then.

The sampled images sit in the chunks and seats they had, with the seeds they had. Of all others
only the clean prediction is computed; whether they were proven or broken is read from the stored
table. So under the same versions the clean predictions, the cheap certifiers and PGD-50 give the
very same answers. Two stages depend on neighbours that are not evaluated again, and may move an
image by chance: alpha-CROWN and branch and bound work on groups of what is open, and the later
parts of AutoAttack draw their random numbers for all images that the earlier ones left, which the
table does not name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.certify.batch_sizes import batch_sizes
from corobench.benchmark.data import subset
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.attacking import Known
from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.evaluation.identity import versions
from corobench.benchmark.evaluation.outcomes import audit, outcome_table
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import check_images, prepare
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps
from corobench.benchmark.network.device import exact_float32, resolve_device
from corobench.benchmark.records.result import CERTIFIER_COLUMNS
from corobench.benchmark.review import drift
from corobench.benchmark.review.drift import Drift
from corobench.benchmark.review.recheck import recheck_evidence
from corobench.benchmark.scoring.ranking import other_settings
from corobench.benchmark.tracks import Protocol, derive_seed, parse_epsilon, round_of

if TYPE_CHECKING:
    import pandas as pd

    from corobench.benchmark.evaluation.facts import BoolArray

_ELSEWHERE = "stored"


class Replay(Evaluation):
    """The evaluation of the sampled images only; facts of all others are those stored.

    Args:
        stored: outcome table of all images, in published order at every epsilon.
        sample: bool (n,), which images are evaluated.
        batches: certifier -> images that it bounds at once.
    """

    def __init__(
        self,
        *arguments: Any,
        stored: pd.DataFrame,
        sample: BoolArray,
        batches: Mapping[str, int],
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self.stored, self.sample, self.batches = stored, sample, batches

    def _answered(self, column: str, epsilon: str, answer: bool) -> BoolArray:
        """Where the stored answer of one column is this one; a missing answer is neither."""
        rows = self.stored[self.stored["epsilon"] == epsilon].sort_values("position")
        is_answer: BoolArray = (rows[column] == answer).to_numpy(dtype=bool, na_value=False)
        return is_answer

    def known_of_certifier(
        self, certifier: str, epsilon: str, rows: NDArray[np.int64]
    ) -> tuple[BoolArray, BoolArray]:
        """The stored answers to all but the sample and those that are bounded at once with it."""
        certified = self._answered(CERTIFIER_COLUMNS[certifier], epsilon, True)[rows]
        batch = np.arange(len(rows)) // self.batches.get(certifier, 1)
        return ~np.isin(batch, batch[self.sample[rows]]), certified

    def known_of_attack(self, attack: Attack, epsilon: str, rows: NDArray[np.int64]) -> Known:
        """The stored answers to all but the sample, whose images play no part."""
        known = ~self.sample[rows]
        broken = np.zeros(len(rows), dtype=bool)
        if attack.name in drift.ATTACKS:
            broken = known & self._answered(attack.name, epsilon, False)[rows]
        names = np.where(broken, _ELSEWHERE, "").astype(object)
        nothing = np.zeros(self.x.shape[1:], dtype=np.float32)
        return Known(known, broken, names, dict.fromkeys(np.flatnonzero(broken).tolist(), nothing))

    def attack(self, attack: Attack) -> None:
        """As ever; afterwards the other images are closed, so that only the sample is searched."""
        super().attack(attack)
        for facts in self.facts.epsilons.values():
            facts.broken_by[~self.sample & ~facts.attacked] = _ELSEWHERE

    def choose_audit(self, certifiers: tuple[str, ...]) -> None:
        """The images of the audit are drawn from all, and attacked where they are of the sample."""
        for epsilon, facts in self.facts.epsilons.items():
            for certifier in certifiers:
                if certifier in self.prepared.closing:
                    proven = self._answered(CERTIFIER_COLUMNS[certifier], epsilon, True)
                    facts.proven_by[proven & ~self.sample & ~facts.proven] = certifier
        super().choose_audit(certifiers)
        for facts in self.facts.epsilons.values():
            facts.audited &= self.sample


@exact_float32()
def replay(
    old_path: Path,
    folder: Path,
    *,
    num_images: int = 100,
    seed: int = 0,
    max_moved: float = 5.0,
    device: str = "cpu",
    data_root: Path | None = None,
    report: Reporter | None = None,
    steps: Steps | None = None,
) -> Drift:
    """Evaluate a seeded sample of a result's images with the versions installed now.

    Args:
        old_path: result file; its outcome table and adversarial images lie beside it.
        folder: of the submission.
        num_images: of the sample; all where the result has fewer.
        seed: of the sample.
        max_moved: percent that may move in a stage.
        device: for evaluating.
        data_root: folder of the dataset, or None for the usual search.
        report: progress; standard error by default.
        steps: told of each step.

    Raises:
        CorobenchError: a file is missing or broken, belongs to other weights or images, or was
            evaluated with other settings.
    """
    evidence = load_evidence(old_path, folder, data_root)
    old, track = evidence.result, evidence.submission.track
    _require_settings(evidence)
    from corobench.benchmark.certify import num_hidden_units

    steps = steps or Steps()
    images, labels, indices = subset(evidence.dataset, old.n)
    draw = np.random.default_rng(derive_seed(seed, track.name, "drift"))
    sample = np.zeros(old.n, dtype=bool)
    sample[draw.permutation(old.n)[:num_images]] = True
    checked = check_images(
        evidence.submission, images, labels, resolve_device(device), steps, folder
    )
    prepared = prepare(checked, Protocol(), steps)
    searched_on = prepared.network or prepared.model
    with (
        tempfile.TemporaryDirectory() as chunks,
        report or Reporter(f"{old.entry}, {int(sample.sum())} images") as progress,
    ):
        evaluation = Replay(
            prepared,
            epsilons=tuple(sorted(old.epsilons, key=parse_epsilon)),
            seed=old.seed,
            chunks=ChunkStore(Path(chunks), {"drift": old.identity}),
            report=progress,
            steps=steps,
            stored=evidence.table,
            sample=sample,
            batches=batch_sizes(num_hidden_units(searched_on, track.shape)),
        )
        facts = evaluation.run()
    chosen = indices[sample]
    then = evidence.table[evidence.table["image"].isin(chosen)]
    everyone = outcome_table(facts, indices, labels)
    now = everyone[everyone["image"].isin(chosen)]
    stages, margins, contradictions = drift.compare(then, now)
    audited = [line for line in audit(facts, indices).contradictions if _ELSEWHERE not in line]
    clean = drift.compare(evidence.table, everyone)[0][0]
    steps.begin("recheck")
    logits = evaluation.logits.cpu().numpy()[sample]
    return Drift(
        old=str(old_path),
        new=str(folder),
        entry=old.entry,
        num_images=int(sample.sum()),
        n=old.n,
        versions=drift.changed_versions(old.versions, versions()),
        stages=(clean, *stages[1:]),
        margin_change=margins,
        logits={str(i): row for i, row in zip(chosen.tolist(), logits.tolist(), strict=True)},
        no_longer_wrong=recheck_evidence(evidence).failures,
        contradictions=(*contradictions, *audited),
        max_moved=max_moved,
    )


def _require_settings(evidence: Evidence) -> None:
    result = evidence.result
    other = other_settings(result)
    if other or round_of(result.protocol) != round_of(Protocol().version):
        what = ", ".join(other) or "protocol"
        raise ResultError(
            f"{evidence.path}: was evaluated by other rules than those of protocol "
            f"{Protocol().version} ({what}), so it cannot be evaluated again; compare two result "
            "files instead, or run `corobench recertify` on it first"
        )
