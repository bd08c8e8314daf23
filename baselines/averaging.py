"""Averages of weights over the steps, and batch-norm statistics that fit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class WeightAverage:
    """An exponential moving average of a model's parameters (Izmailov et al. 2018; Rebuffi 2021).

    The first steps count less: the decay of step t is at most (1 + t) / (10 + t).

    Args:
        model: whose parameters are averaged.
        decay: of each step, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay, self._steps = model, decay, 0
        self._average = {name: one.detach().clone() for name, one in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step; those that are pruned stay zero."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, one in self._model.named_parameters():
            self._average[name].lerp_(one, 1.0 - decay)

    @torch.no_grad()
    def restrict(self, kept: Mapping[str, Tensor]) -> None:
        """Forget what was averaged of weights that are removed from now on.

        Args:
            kept: parameter name -> bool tensor, true where it is kept.
        """
        for name, mask in kept.items():
            average = self._average[name]
            average.masked_fill_(~mask.to(average.device), 0.0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averages; afterwards all is as before."""
        before = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        self._model.load_state_dict({**before, **self._average})
        try:
            yield
        finally:
            self._model.load_state_dict(before)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"steps": self._steps, "average": self._average}

    def restore(self, state: dict[str, object]) -> None:
        """What `state` gave."""
        steps, average = state["steps"], state["average"]
        assert isinstance(steps, int) and isinstance(average, dict)
        self._steps, self._average = steps, average


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set all running statistics to the mean over batches of images, with the present weights.

    Args:
        model: its training flag stays as it is.
        batches: float32 (B, C, H, W).
    """
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean over all batches
    for x_BCHW in batches:
        model(x_BCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
