"""What a user chose of an evaluation, and what it gives back; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corobench.benchmark.records.result import Result
from corobench.benchmark.tracks import Protocol


@dataclass(frozen=True)
class Settings:
    """What a user may choose of an evaluation.

    Attributes:
        track: name of a track, or None for the manifest's.
        n: images, or None for the track's standard subset.
        epsilons: exact radii as text, or None for the track's; other ones are never ranked.
        device: for example "cpu" or "cuda".
        seed: of the run.
        data_root: folder of the dataset, or None for the search order of `benchmark.data`.
        out: folder of result files.
        force: replace another result of the same name.
        certify_budget_s: seconds per image of branch and bound, or None for the protocol's; with
            another one the result is never ranked.
        max_subdomains: per image of branch and bound, or None for the protocol's; with another
            number the result is never ranked.
        tf32: let attacks on a GPU search in TF32; successes are measured in float32 all the same.
        earlier: result file of the same weights and images, whose attacks need not be repeated; it
            sets n, radii and seed.
        plain_attacks: run the attack library unchanged; such a result is never ranked.
        is_limited: less time or memory than by default; what that ends is never ranked.
    """

    track: str | None = None
    n: int | None = None
    epsilons: tuple[str, ...] | None = None
    device: str = "cpu"
    seed: int = 0
    data_root: Path | None = None
    out: Path = Path("results")
    force: bool = False
    certify_budget_s: float | None = None
    max_subdomains: int | None = None
    tf32: bool = False
    plain_attacks: bool = False
    is_limited: bool = False
    earlier: Path | None = None

    @property
    def protocol(self) -> Protocol:
        """The protocol, with what the user changed of it."""
        changed: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("certify_budget_s", "max_subdomains")
            if getattr(self, name) is not None
        }
        return Protocol(plain_attacks=self.plain_attacks, **changed)


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation.

    Attributes:
        result: the scorecard.
        path: its result file; outcome table and adversarial images lie beside it.
        reused: whether the very same result was there already.
    """

    result: Result
    path: Path
    reused: bool
