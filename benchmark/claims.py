"""A result that was handed in with an entry: everything about it that its files can disprove."""

from __future__ import annotations

from pathlib import Path

from benchmark.errors import CorobenchError
from benchmark.evidence import load_evidence
from benchmark.rounds import faults_of


def claim_faults(path: Path, folder: Path, name: str, data_root: Path | None = None) -> list[str]:
    """Why a handed-in result may not stand in a round, one line each; empty for one that may.

    Its table, adversarial images, weights and the dataset are read with it
    (`benchmark.evidence.load_evidence`), so that nothing of it is believed that is at hand.

    Args:
        path: of the result file; its table and adversarial images lie beside it.
        folder: of the entry.
        name: of the round, such as "1.0".
        data_root: folder of the dataset, or None for the usual search.
    """
    faults = [f"{path}: {fault}" for fault in faults_of(path, name)]
    if faults:
        return faults
    try:
        load_evidence(path, folder, data_root)
    except CorobenchError as error:
        return [error.message]
    return []
