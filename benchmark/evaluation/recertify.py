"""Bring a stored result to today's certificates without attacking again what is attacked already.

Every image is predicted and proven anew. An attack is run where the stored result has no answer of
it: on images that were proven then and are not now, in the seats and with the seeds that they would
have had. What an attack found then is measured again by the referee and stays. PGD-50 gives the
very same answers as a new evaluation; a later part of AutoAttack draws its random numbers for all
images that still stand, which the stored result does not name, so that it may move an image by
chance, as another seed would.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.attacking import Known
from corobench.benchmark.evaluation.auditing import drawn
from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.evaluation.facts import BoolArray, Facts
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.records.result import Earlier, Outcome
from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.tracks import Protocol, settings_of

if TYPE_CHECKING:
    import pandas as pd

_OF_ATTACKS = ("pgd_", "autoattack_", "square_", "audit_", "chunk_size", "attack_batch")
"""How settings begin that an attack's answer depends on."""

_COMPUTED = ("square-helps", "bounds-contradicted")
"""Flags that say something of the new result alone."""


class Recertification(Evaluation):
    """An evaluation that knows what the attacks of an earlier one found.

    Args:
        arguments: of `Evaluation`.
        evidence: the earlier result with its table and adversarial images, of the same weights,
            images, radii, seed and settings of attacks.
        more: of `Evaluation`.
    """

    def __init__(self, *arguments: Any, evidence: Evidence, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._evidence = evidence
        self._then: dict[str, pd.DataFrame] = {
            epsilon: rows.sort_values("position").reset_index(drop=True)
            for epsilon, rows in evidence.table.groupby("epsilon")
        }
        self._audited_then: dict[str, BoolArray] = {
            epsilon: np.zeros(len(self.x), dtype=bool) for epsilon in self.epsilons
        }

    def run(self) -> Facts:
        """As ever; what was broken then is broken now, and flags of the attacks stay."""
        facts = super().run()
        if self.prepared.ended is not None:
            return facts
        for epsilon, known in facts.epsilons.items():
            flags = self._evidence.run.flags.get(epsilon, ())
            known.flags.update(flag for flag in flags if flag not in _COMPUTED)
        self._keep_broken(facts)
        return facts

    def clean(self) -> None:
        """Predict every image anew; the stored adversarial images are measured again.

        Raises:
            ResultError: a prediction or a stored image is not what the result says.
        """
        super().clean()
        path = self._evidence.path
        for epsilon, rows in self._then.items():
            moved = np.flatnonzero(rows["predicted"].to_numpy() != self.facts.predicted)
            if len(moved):
                raise ResultError(
                    f"{path}: predicted: another class on {len(moved)} images at {epsilon}, the "
                    f"first at position {moved[0]}; evaluate the entry again"
                )
            attacked = np.flatnonzero((rows["outcome"] == Outcome.ATTACKED).to_numpy())
            for row in attacked.tolist():
                image = torch.from_numpy(self._image(epsilon, row))[None].to(self.x)
                one = slice(row, row + 1)
                inside = threat.is_within(image, self.x[one], Fraction(epsilon))
                wrong = is_wrong(predict_one_by_one(self.model, image), self.y[one])
                if not bool(inside) or not bool(wrong):
                    raise ResultError(
                        f"{path}: the adversarial image at position {row} and {epsilon} is not "
                        "confirmed; evaluate the entry again"
                    )

    def _image(self, epsilon: str, row: int) -> NDArray[np.float32]:
        """The stored adversarial image of a row."""
        number = int(self._then[epsilon]["adversarial"].iloc[row])
        return np.array(self._evidence.adversarial[number], dtype=np.float32)

    def _known(self, attack: Attack, epsilon: str) -> tuple[BoolArray, BoolArray]:
        """Per image whether the attack has an answer at a radius, and whether it broke it."""
        rows = self._then[epsilon]
        proven = (rows["outcome"] == Outcome.CERTIFIED).to_numpy() & ~self._audited_then[epsilon]
        if attack.name == "pgd50":  # what a closing certifier proved had survived it
            proven &= ~rows["decided_by"].isin(self.protocol.closing_certifiers).to_numpy()
        answer = rows[attack.name]
        known = answer.notna().to_numpy() & ~proven
        broken = known & ~answer.fillna(True).to_numpy(dtype=bool) & self.facts.correct
        return known, broken & (rows["adversarial"].to_numpy() >= 0)

    def known_of_attack(
        self, attack: Attack, epsilon: str, rows: NDArray[np.int64]
    ) -> Known | None:
        """What the attack found then; the others are attacked in their seats."""
        if attack.name not in self._then[epsilon]:  # the health checks' own attacks
            return None
        known, broken = (found[rows] for found in self._known(attack, epsilon))
        names = self._then[epsilon]["decided_by"].to_numpy(dtype=object)[rows]
        images = {
            place: self._image(epsilon, int(rows[place]))
            for place in np.flatnonzero(broken).tolist()
        }
        return Known(known, broken, np.where(broken, names, ""), images)

    def choose_audit(self, certifiers: tuple[str, ...]) -> None:
        """Those that were audited then and are proven now; others only where they are too few."""
        self._note_audited_then(certifiers)
        taken = np.zeros(len(self.x), dtype=bool)
        draw = np.random.default_rng(self._audit_seed(certifiers))
        for again in (True, False):
            for epsilon, facts in reversed(self.facts.epsilons.items()):
                proven = np.isin(facts.proven_by.astype(str), certifiers) & ~taken
                if again:
                    chosen = np.flatnonzero(proven & self._audited_then[epsilon])
                else:
                    chosen = draw.permutation(np.flatnonzero(proven))
                chosen = chosen[: self.protocol.audit_images - int(taken.sum())]
                taken[chosen] = facts.audited[chosen] = True

    def _note_audited_then(self, certifiers: tuple[str, ...]) -> None:
        """Draw the audit of the earlier evaluation once more, from what it proved."""
        proven = {
            epsilon: (rows["outcome"] == Outcome.CERTIFIED).to_numpy()
            & rows["decided_by"].isin(certifiers).to_numpy()
            for epsilon, rows in ((epsilon, self._then[epsilon]) for epsilon in self.epsilons)
        }
        seed = self._audit_seed(certifiers)
        for epsilon, chosen in drawn(proven, self.protocol.audit_images, seed).items():
            self._audited_then[epsilon][chosen] = True

    def _keep_broken(self, facts: Facts) -> None:
        """What a search or a contest broke then stays broken."""
        found: dict[str, dict[str, dict[int, NDArray[np.float32]]]] = {}
        for epsilon in self.epsilons:
            rows, known = self._then[epsilon], facts.epsilons[epsilon]
            left = (rows["outcome"] == Outcome.ATTACKED).to_numpy() & ~known.attacked
            for row in np.flatnonzero(left & facts.correct).tolist():
                by = str(rows["decided_by"].iloc[row])
                found.setdefault(by, {}).setdefault(epsilon, {})[row] = self._image(epsilon, row)
        for by, images in found.items():
            facts.record_broken(by, {epsilon: images.get(epsilon, {}) for epsilon in self.epsilons})


def load(path: Path, folder: Path, data_root: Path | None) -> Evidence:
    """A stored result with all that belongs to it, whose attacks may be taken over.

    Args:
        path: of the result file.
        folder: of the submission, with the same weights.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        CorobenchError: something is missing or does not fit, or the attacks were set otherwise than
            those of today's protocol.
    """
    evidence = load_evidence(path, folder, data_root)
    today = settings_of(Protocol(), evidence.submission.track)
    then = evidence.result.settings
    other = [
        key for key in sorted(today) if key.startswith(_OF_ATTACKS) and then.get(key) != today[key]
    ]
    if other:
        raise ResultError(
            f"{path}: settings: expected attacks with the settings of the current protocol, but "
            f"found other values of {', '.join(other)}; evaluate the entry again"
        )
    return evidence


def settings_like(settings: Settings, evidence: Evidence) -> Settings:
    """Settings with the images, radii and seed of a stored result."""
    result = evidence.result
    return replace(settings, n=result.n, seed=result.seed, epsilons=tuple(result.epsilons))


def in_stored_order(
    table: pd.DataFrame, images: NDArray[np.float32], evidence: Evidence
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """The same table and images, those of the stored result first, each once and in its order.

    So a row whose evidence did not change keeps the bytes of its file.

    Args:
        table: outcome table.
        images: float32 (m, C, H, W), the images that its column `adversarial` numbers.
        evidence: the stored result.
    """
    places = {image.tobytes(): place for place, image in enumerate(evidence.adversarial)}
    known = [
        places.get(image.tobytes(), len(places) + number) for number, image in enumerate(images)
    ]
    kept = sorted(set(known))
    first = {place: number for number, place in reversed(list(enumerate(known)))}
    number_of = {place: number for number, place in enumerate(kept)}
    renumbered = table["adversarial"].map(lambda old: number_of[known[old]] if old >= 0 else -1)
    ordered = [images[first[place]] for place in kept]
    shape = (0, *images.shape[1:])
    stacked = np.stack(ordered) if ordered else np.zeros(shape, dtype=np.float32)
    return table.assign(adversarial=renumbered.astype("int32")), stacked


def record_of(evidence: Evidence) -> Earlier:
    """What a new result says of the stored one."""
    result = evidence.result
    return Earlier(
        protocol=result.protocol,
        identity=result.identity,
        device=result.device,
        versions=result.versions,
    )
