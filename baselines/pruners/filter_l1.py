"""Filter pruning by L1 norm (Li et al., ICLR 2017)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, fx, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners.base import (
    PruneContext,
    Pruner,
    Structure,
    keep_of_targets,
    least,
    targets,
)
from corobench.baselines.schedules import num_removed
from corobench.benchmark.errors import ConfigError


class FilterL1(Pruner):
    """Remove whole filters (rows of a linear layer) of the smallest mean |w|.

    The last layer is exempt: its rows are the classes. Bias and batch-norm of a removed filter
    go with it, so that its channel is exactly zero and can be taken out of the network. The
    kept share counts filters; equal filters make it the kept share of weights.
    """

    name: ClassVar[str] = "filter-l1"
    criterion: ClassVar[str] = "filter-l1-norm"
    structure: ClassVar[Structure] = "structured"

    exempt: tuple[Literal["first", "last"], ...] = ("last",)

    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Masks of weights, and of the biases and batch-norm values that follow them.

        Raises:
            ConfigError: the last layer is not exempt, or a layer would lose every filter.
        """
        if "last" not in self.exempt:
            raise ConfigError("[prune.pruner] exempt: 'filter-l1' must exempt the last layer")
        weights = prunable_weights(model)
        names = targets(list(weights), self.exempt)
        keep = keep_of_targets(weights, names, keep_ratio)
        parameters = dict(model.named_parameters())
        follower = norm_after(model)
        masks: dict[str, Tensor] = {}
        for name in names:
            filters = weights[name].detach().cpu().abs().flatten(1).mean(dim=1)
            count = num_removed(len(filters), keep)
            if count == len(filters):
                raise ConfigError(f"[prune] keep_ratio {keep_ratio}: no filter of {name} is left")
            kept = least(filters, count)
            shape = (-1, *([1] * (weights[name].dim() - 1)))
            masks[name] = kept.view(shape).expand_as(weights[name]).clone()
            module = name.removesuffix(".weight")
            for owner in (module, follower.get(module, "")):
                for part in ("weight", "bias"):
                    key = f"{owner}.{part}"
                    if key in parameters and key != name:
                        masks[key] = kept.clone()
        return Masks(masks)


def norm_after(model: nn.Module) -> dict[str, str]:
    """Layer -> the batch-norm that alone reads its output, from the traced graph.

    Raises:
        ConfigError: the forward pass cannot be traced.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        raise ConfigError(
            f"'filter-l1' needs a forward pass that torch.fx can trace: {error}"
        ) from error
    modules = dict(model.named_modules())
    pairs = {}
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source = node.args[0]
        if source.op == "call_module" and len(source.users) == 1:
            pairs[str(source.target)] = str(node.target)
    return pairs
