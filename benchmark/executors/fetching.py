"""Data that a task downloads, or imports readers for, while it may still write anywhere.

What fails here fails again where it is used, and says so there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import TRACKS


def fetch_images(track: str, data_root: Path | None) -> None:
    """Test images, and training images where they are at hand."""
    fetch_test(track, data_root)
    with contextlib.suppress(DatasetError):
        fetch_training(track, data_root)


def fetch_test(track: str, data_root: Path | None) -> None:
    """Test images alone: decoding 50,000 training images takes seconds."""
    from corobench.benchmark.data import load_test

    if track in TRACKS:
        load_test(track, data_root)


def fetch_sample(track: str, data_root: Path | None) -> None:
    """What reads the images of a self-check, which may write to places of its own."""
    from corobench.benchmark.submission.writing import sample_images

    if track in TRACKS:
        sample_images(TRACKS[track], data_root)


def fetch_training(track: str, data_root: Path | None) -> None:
    """Training images."""
    from corobench.benchmark.data import load_train

    if track in TRACKS:
        load_train(track, data_root)
