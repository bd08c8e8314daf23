"""Which certifiers an evaluation will ask about a submission, told before anybody waits for it."""

from __future__ import annotations

from pathlib import Path

import torch

from corobench.benchmark.certify import CertifierUnavailable
from corobench.benchmark.evaluation.prepared import prepare_certifiers
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import Protocol


def list_certifiers(folder: Path) -> list[str]:
    """Lines for people: notes, the certifiers that will be asked, then why others are not.

    The submitted network itself is looked at; no image is needed. A certifier that is asked may
    still be refused at its first image, where its bounds fail their checks.

    Args:
        folder: of a valid submission.

    Raises:
        SubmissionError: faults of the folder.
    """
    submission, protocol = load_submission(Path(folder)), Protocol()
    track = submission.track
    notes = [f"note: {note}" for note in submission.notes]
    try:
        _, not_asked = prepare_certifiers(
            submission.model,
            None,
            track.shape,
            track.num_classes,
            protocol,
            torch.device("cpu"),
        )
    except CertifierUnavailable as error:
        return [*notes, f"certifiers are not installed here: {error.reason}"]
    asked = [name for name in protocol.all_certifiers if name not in not_asked]
    lines = [*notes, f"certifiers that will be asked: {', '.join(asked) or 'none'}"]
    reasons: dict[str, list[str]] = {}
    for name in protocol.all_certifiers:
        if name in not_asked:
            reasons.setdefault(_without_name(not_asked[name], name), []).append(name)
    lines += [f"not asked: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if not asked:
        lines.append(
            "without a certifier the entry stands apart on the board, with its upper end alone"
        )
    return lines


def _without_name(reason: str, name: str) -> str:
    """The reason as it reads for several certifiers at once."""
    return reason.replace(f"asks {name} up to", "asks it up to")
