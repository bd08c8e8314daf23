"""Finished parts of a long attack: what a batch of the suite cost is not paid twice.

A chunk of AutoAttack on a large network takes longer than some leases of a machine. Each part of
the suite seeds itself anew for every batch, so a batch that was finished before the process ended
can be read back, and the others come out as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import torch
from torch import Tensor

from corobench.benchmark.attacks.guard import Guard
from corobench.benchmark.files.chunks import ChunkStore

Perturb = Callable[[Tensor, Tensor], Tensor]


class Parts:
    """What the batches of one chunk gave.

    Args:
        chunks: where they are kept.
        chunk: name of the chunk; theirs are ``<chunk>.<part>-<batch>``.

    Attributes:
        saved_s: seconds that the batches read back had taken.
        guard: of the network that is attacked; what it saw is kept with each batch.
    """

    def __init__(self, chunks: ChunkStore, chunk: str) -> None:
        self._chunks, self._chunk = chunks, chunk
        self._num_calls: dict[str, int] = {}
        self.saved_s = 0.0
        self.guard: Guard | None = None

    def run(self, part: str, perturb: Perturb, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """The images that a part of the suite makes of a batch: kept ones, or made now and kept.

        Args:
            part: its name, such as "fab-t".
            perturb: makes them; seeds itself.
            x_BCHW: float32 (B, C, H, W); other images than those it was kept for are attacked.
            y_B: int64 (B,).
        """
        number = self._num_calls[part] = self._num_calls.get(part, -1) + 1
        name = f"{self._chunk}.{part}-{number:04d}"
        digest = hashlib.sha256(x_BCHW.detach().cpu().numpy().tobytes()).hexdigest()
        kept = self._chunks.load(name)
        watched = kept is not None and (self.guard is None or "seen" in kept)
        if kept is not None and watched and str(kept["images"]) == digest:
            if self.guard is not None:
                self.guard.restore(kept)
            self.saved_s += float(kept["seconds"])
            adversarial = x_BCHW.detach().clone()
            changed = torch.from_numpy(kept["changed"]).to(x_BCHW.device)
            adversarial[changed] = torch.from_numpy(kept["adversarial"]).to(x_BCHW)
            return adversarial
        start = time.perf_counter()
        made = perturb(x_BCHW, y_B)
        changed_B = (made != x_BCHW).flatten(1).any(dim=1)
        self._chunks.save(
            name,
            {
                "images": digest,
                "changed": changed_B.cpu().numpy(),
                "adversarial": made[changed_B].detach().cpu().numpy(),
                "seconds": time.perf_counter() - start,
                **({} if self.guard is None else self.guard.state()),
            },
        )
        return made
