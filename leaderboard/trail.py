"""What a reviewer follows from an entry's page: its files, how to load it, what its flags mean.

The result and its outcome table are copied into the site, so that they can be read without the
project. Weights, recipe and adversarial images are named by their path in the project, and linked
where the project's address is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.records.reading.places import beside, result_stem
from corobench.benchmark.records.result import CERTIFIERS, EpsilonScore, Outcome
from corobench.benchmark.tracks import get_track, standard_subset
from corobench.leaderboard.boards import Row
from corobench.leaderboard.documents import Document

#: Flag -> what it says, as in the table of docs/health.md.
MEANINGS = {
    "randomized": "the same images give different outputs",
    "probabilities": "the output looks like a distribution",
    "dynamic": "the forward pass computes gradients",
    "few-classes": "a targeted attack needs more classes than there are",
    "zero-gradient": "an image has no gradient at all",
    "square-helps": "the attack without gradients breaks more",
    "non-monotone-epsilon": "PGD-50 breaks less in a larger ball",
    "non-monotone-steps": "ten steps break images that fifty do not",
    "recognises-images": "wrong on the published images as soon as they are shifted by less than "
    "a grey level",
    "better-than-on-training": "better on the test images than on the training set",
    "changes-between-calls": "the same images get other logits at the end of the evaluation",
    "clipped-logits": "one number is the largest or smallest logit of many images",
    "vanishing-gradient": "by its gradients the network is robust in the ball, but no proof agrees",
    "shattered-gradient": "gradients of two close points have nothing in common",
    "non-finite-gradient": "a gradient that an attack asked for is NaN or infinite",
    "non-finite-logits": "logits, or differences of them, are NaN or infinite",
    "bounds-contradicted": "an image inside a box has a smaller margin than a bound said",
    "autoattack-warning": "a warning without a name here",
    "claim-not-confirmed": "an attack claimed an image that is still right",
    "attack-error": "an attack ended without an answer",
}
HEALTH = "health.html"
#: A seed or a number format at the end of an entry's name; the recipe is the one without it.
_VARIANT = re.compile(r"-(s\d+|int8|bf16)$")


@dataclass(frozen=True)
class Place:
    """One thing that belongs to an entry.

    Attributes:
        words: what it is.
        path: inside the site, or inside the project.
        href: where it leads to; empty where it cannot be reached from the site.
        is_here: whether it is a file of the site.
    """

    words: str
    path: str
    href: str
    is_here: bool = False


@dataclass(frozen=True)
class Project:
    """Where the project's files are.

    Attributes:
        root: folder of the project; an installed package has none.
        repository: address that its files are found below, or empty.
    """

    root: Path
    repository: str = ""

    def place(self, words: str, path: str) -> Place | None:
        """A file or folder of the project, or None where it is not there."""
        if not (self.root / path).exists():
            return None
        href = f"{self.repository.rstrip('/')}/{path}" if self.repository else ""
        return Place(words, path, href)


@dataclass(frozen=True)
class Decision:
    """How many images one attack or certifier decided, and which way."""

    name: str
    proofs: int
    counterexamples: int


def copies(row: Row, path: Path | None) -> dict[str, bytes]:
    """The entry's result file and outcome table as files in a folder beside its page."""
    if path is None:
        return {}
    stem = f"{row.page.removesuffix('.html')}/{_stem(row)}"
    found = {f"{stem}.json": path.read_bytes()}
    table = beside(path, "outcomes.parquet")
    if row.evidence is not None and table.is_file():
        found[f"{stem}.outcomes.parquet"] = table.read_bytes()
    return found


def _stem(row: Row) -> str:
    """The name that a result file must have to be read."""
    result = row.result
    return result_stem(result.entry, result.n, standard_subset(get_track(result.track)))


def places(row: Row, copied: Sequence[str], project: Project) -> list[Place]:
    """Everything that belongs to an entry, the files of the site first.

    Args:
        row: the entry.
        copied: paths inside the site, as in :func:`copies`.
        project: where weights and recipe are looked for.
    """
    entry, track = row.result.entry, row.result.track
    words = {".json": "Result", ".parquet": "Outcome table, image by image"}
    here = [Place(words[Path(one).suffix], Path(one).name, one, is_here=True) for one in copied]
    name = _VARIANT.sub("", entry).removeprefix(f"{track}-")
    there = (
        project.place("Weights and manifest", f"submissions/{entry}"),
        project.place("Recipe of the training", f"baselines/recipes/{track}/{name}.toml"),
    )
    return [*here, *(one for one in there if one is not None)]


def loading_lines(row: Row) -> str:
    """The three lines of Python that load an entry and its result, in a folder of the project."""
    return (
        "import corobench\n"
        f'model = corobench.load_model("submissions/{row.result.entry}")\n'
        f'result = corobench.load_result("{_stem(row)}.json")'
    )


def decisions(score: EpsilonScore) -> list[Decision]:
    """Who decided, proofs apart from counterexamples, by name.

    Attacks only break. Of the certifiers branch and bound alone finds counterexamples, too: what it
    proved is what is proven less the proofs of the others.
    """
    found = []
    proven_elsewhere = sum(
        count
        for name, count in score.decided_by.items()
        if name in CERTIFIERS and name != CERTIFIERS[-1]
    )
    for name, count in sorted(score.decided_by.items()):
        if name not in CERTIFIERS:
            found.append(Decision(name, 0, count))
        elif name == CERTIFIERS[-1]:
            proofs = max(0, score.counts.get(Outcome.CERTIFIED, 0) - proven_elsewhere)
            found.append(Decision(name, min(proofs, count), max(0, count - proofs)))
        else:
            found.append(Decision(name, count, 0))
    return found


def flag_links(documents: Sequence[Document]) -> dict[str, str]:
    """Flag -> where the site says what it means; only flags that have a heading there."""
    for document in documents:
        if document.page == HEALTH:
            known = {heading.anchor for heading in document.headings}
            return {flag: f"{HEALTH}#{flag}" for flag in MEANINGS if flag in known}
    return {}
