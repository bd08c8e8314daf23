"""APGD without gradients of images that it has broken already (Croce & Hein, ICML 2020).

The attack library runs every image of a batch to the last of its 100 steps, and keeps the latest
step that the network errs on. On an image that breaks at the third step, 97 steps decide nothing.
Here a broken image stays in the batch, so that the library's loop is as it was, but the network is
no longer asked about it: its logits stand still and its gradient is zero. The flags are those of
the library; the image that is kept is the one it broke at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.referee.judge import own_and_others

#: An image counts as broken where another class leads by this share of the logits' range: by more
#: than rounding, so that the same image still breaks when it is measured alone.
LEAD = 1e-3

#: Share of the images still asked about that must have broken before they are left out. Rarely a
#: new batch size is cheaper than a slightly smaller batch.
MIN_BROKEN_SHARE = 0.1

Run = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def spare(apgd: Any, run: Run) -> Run:
    """One run of APGD that spares images it has broken.

    Args:
        apgd: the library's object, whose `model` is asked.
        run: its ``attack_single_run``, or a wrapper of it.

    Returns:
        The same with the same result, but for the adversarial images of broken rows.
    """

    def sparing(x: Tensor, y: Tensor, **more: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        model = apgd.model
        apgd.model = watched = _Watched(model, y)
        try:
            best, holds, loss, adversarial = run(x, y, **more)
        except _AllBrokenError:
            kept = watched.images
            return kept, torch.zeros_like(y, dtype=torch.bool), torch.zeros(len(y)).to(x), kept
        finally:
            apgd.model = model
        broken = watched.is_broken
        adversarial[broken] = watched.images[broken]
        return best, holds, loss, adversarial

    return sparing


class _AllBrokenError(Exception):
    """Nothing is left to attack."""


class _Watched(nn.Module):
    """A network that remembers on which images of a batch it has erred."""

    def __init__(self, model: nn.Module, y_B: Tensor) -> None:
        super().__init__()
        self.model, self.y_B = model, y_B
        self.is_broken = torch.zeros_like(y_B, dtype=torch.bool)
        self.images = torch.empty(0)
        self.logits = torch.empty(0)
        self.rows: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.rows is None:
            logits: Tensor = self.model(x_BCHW)
        else:
            asked = self.model(x_BCHW[self.rows])
            logits = self.logits.index_copy(0, self.rows, asked)
        self._look(x_BCHW.detach(), logits.detach())
        return logits

    def _look(self, x_BCHW: Tensor, logits_BK: Tensor) -> None:
        own, others = own_and_others(logits_BK, self.y_B)
        span = logits_BK.amax(dim=1) - logits_BK.amin(dim=1)
        new = (others - own > LEAD * span) & ~self.is_broken
        if not len(self.images):
            self.images, self.logits = x_BCHW.clone(), logits_BK.clone()
        if not bool(new.any()):
            return
        self.images[new], self.logits[new] = x_BCHW[new], logits_BK[new]
        self.is_broken |= new
        left = torch.nonzero(~self.is_broken)[:, 0]
        if not len(left):
            raise _AllBrokenError
        num_asked = len(self.y_B) if self.rows is None else len(self.rows)
        if num_asked - len(left) >= MIN_BROKEN_SHARE * num_asked:
            self.rows = left
