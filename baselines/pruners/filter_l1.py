"""Filter pruning by L1 norm (Li et al., ICLR 2017)."""

from __future__ import annotations

import copy
from fractions import Fraction
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
from corobench.benchmark.network.live_weights import live_weights


class FilterL1(Pruner):
    """Remove whole filters (rows of a linear layer) of the smallest mean |w|.

    The last layer is exempt: its rows are the classes. Bias and batch-norm of a removed filter
    go with it, so that its channel is exactly zero and can be taken out of the network.

    Attributes:
        size: what the kept share counts. "live": weights on a path from the image to a logit. What
            reads a removed channel is removed, too, and the same share of filters is kept in every
            layer, the largest that fits. "filters": filters, as if the layers did not know each
            other; what reads a removed channel stays and counts as kept, so that 10x leaves one
            weight of seventy.
    """

    name: ClassVar[str] = "filter-l1"
    criterion: ClassVar[str] = "filter-l1-norm"
    structure: ClassVar[Structure] = "structured"
    takes_distribution: ClassVar[bool] = False

    exempt: tuple[Literal["first", "last"], ...] = ("last",)
    size: Literal["live", "filters"] = "live"

    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Masks of weights, and of the biases and batch-norm values that follow them.

        Raises:
            ConfigError: the last layer is not exempt, a layer would lose every filter, or the
                forward pass cannot be followed.
        """
        if "last" not in self.exempt:
            raise ConfigError("[prune.pruner] exempt: 'filter-l1' must exempt the last layer")
        weights = prunable_weights(model)
        names = targets(list(weights), self.exempt)
        if self.size == "live":
            return self._live_masks(model, names, keep_ratio, context)
        keep = keep_of_targets(weights, names, keep_ratio)
        found = _filter_masks(model, names, keep)
        if found is None:
            raise ConfigError(f"[prune] keep_ratio {keep_ratio}: a layer would lose every filter")
        return Masks(found)

    def _live_masks(
        self, model: nn.Module, names: list[str], keep_ratio: float, context: PruneContext
    ) -> Masks:
        weights = prunable_weights(model)
        total = sum(weight.numel() for weight in weights.values())
        images, _ = next(context.batches())
        channels, height, width = images.shape[1:]
        filters = {len(weights[name]) for name in names}
        shares = sorted({Fraction(kept, num) for num in filters for kept in range(1, num + 1)})
        best: dict[str, Tensor] | None = None
        low, high = 0, len(shares) - 1
        while low <= high:
            middle = (low + high) // 2
            found = _filter_masks(model, names, shares[middle])
            num_live = 0
            if found is not None:
                pruned = copy.deepcopy(model).cpu()
                Masks(found).apply(pruned)
                live = live_weights(pruned, (channels, height, width))
                if live is None:
                    raise ConfigError(
                        "[prune.pruner] size: this forward pass cannot be followed from the image "
                        "to the logits; use size = 'filters'"
                    )
                found |= {name: live[name] for name in weights}
                num_live = sum(int(mask.sum()) for mask in live.values())
            if found is None or num_live <= keep_ratio * total:
                best = found or best
                low = middle + 1
            else:
                high = middle - 1
        if best is None:
            raise ConfigError(
                f"[prune] keep_ratio {keep_ratio}: one filter in each layer is more than that"
            )
        return Masks(best)


def _filter_masks(model: nn.Module, names: list[str], keep: Fraction) -> dict[str, Tensor] | None:
    """The largest filters of each layer and what follows them; None where a layer has none."""
    weights = prunable_weights(model)
    parameters = dict(model.named_parameters())
    follower = norm_after(model)
    masks: dict[str, Tensor] = {}
    for name in names:
        filters = weights[name].detach().cpu().abs().flatten(1).mean(dim=1)
        count = num_removed(len(filters), keep)
        if count == len(filters):
            return None
        kept = least(filters, count)
        shape = (-1, *([1] * (weights[name].dim() - 1)))
        masks[name] = kept.view(shape).expand_as(weights[name]).clone()
        module = name.removesuffix(".weight")
        for owner in (module, follower.get(module, "")):
            for part in ("weight", "bias"):
                key = f"{owner}.{part}"
                if key in parameters and key != name:
                    masks[key] = kept.clone()
    return masks


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
