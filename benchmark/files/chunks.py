"""Finished chunks of an evaluation, kept until its result is written.

Chunks carry a checksum and lie in a folder named after everything that identifies the result, so
that a changed weight, setting, library or engine never reuses one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corobench.benchmark.files.atomic import canonical_json, write_atomic

#: Folder of the chunks of all evaluations, below the folder of results.
CHUNKS = ".chunks"
SUFFIX = ".chunk"
#: Says for people whose chunks a folder holds.
ABOUT = "about.json"
_DIGEST_BYTES = 32


def chunk_name(work: str, epsilon: str, number: int | None = None) -> str:
    """File name of a chunk of some work at one epsilon, without its ending.

    >>> chunk_name("certify-IBP", "1/16", 3), chunk_name("health-steps", "1/16")
    ('certify-IBP-1_16-0003', 'health-steps-1_16')
    """
    name = f"{work}-{epsilon.replace('/', '_')}"
    return name if number is None else f"{name}-{number:04d}"


class ChunkStore:
    """Finished chunks of one evaluation, kept until its result file is written.

    Args:
        root: folder that holds the chunks of all evaluations.
        identity: everything that identifies the result, JSON-able.
        about: whose chunks they are, for people, JSON-able; kept beside the first chunk.
    """

    def __init__(
        self,
        root: Path,
        identity: Mapping[str, object],
        about: Mapping[str, object] | None = None,
    ) -> None:
        self._about = about
        self.key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        self.folder = root / self.key[:24]
        self.reused = 0

    def load(self, name: str) -> dict[str, Any] | None:
        """Arrays of a finished chunk, or None if it is missing or damaged."""
        path = self.folder / f"{name}{SUFFIX}"
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(self.key.encode() + body).digest() != digest:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        self.reused += 1
        return arrays

    def save(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keep the arrays of a finished chunk; whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
        body = buffer.getvalue()
        digest = hashlib.sha256(self.key.encode() + body).digest()
        write_atomic(self.folder / f"{name}{SUFFIX}", digest + body)
        if self._about is not None:
            write_atomic(self.folder / ABOUT, canonical_json(self._about).encode())
            self._about = None

    def remove(self, pattern: str) -> None:
        """Remove the chunks whose names match a pattern of the shell."""
        for path in self.folder.glob(f"{pattern}{SUFFIX}"):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the chunks, once the result they lead to is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others' chunks are there
            self.folder.parent.rmdir()
