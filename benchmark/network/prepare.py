"""A copy of a model that computes the same function on a graph that is easier to bound."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from corobench.benchmark.errors import NotCertifiable

SAME_FUNCTION_TOLERANCE = 1e-5
"""Largest difference between the logits of model and copy, per unit of max(1, largest |logit|)."""

_NUM_CHECK_INPUTS = 4
_FUSED: tuple[tuple[type[nn.Module], type[nn.Module], Callable[..., nn.Module]], ...] = (
    (nn.Conv1d, nn.BatchNorm1d, fuse_conv_bn_eval),
    (nn.Conv2d, nn.BatchNorm2d, fuse_conv_bn_eval),
    (nn.Linear, nn.BatchNorm1d, fuse_linear_bn_eval),
)
_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def prepare(model: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Deep copy for bounding, in eval mode and without gradients; the model itself stays as it is.

    Pruning masks, parametrizations and weight normalisation are baked into the weights; dropout
    becomes the identity; a batch-norm that directly follows a convolution or linear layer is folded
    into it (one that stands before its ReLU, as in pre-activation nets, stays); a `Normalize` layer
    becomes an affine batch-norm. Dead channels are not removed.

    Args:
        model: classifier for float32 inputs of shape (B, *input_shape) in [0, 1].
        input_shape: (C, H, W).

    Returns:
        The copy; its logits equal the model's on random inputs, see SAME_FUNCTION_TOLERANCE.

    Raises:
        NotCertifiable: "batch-statistics" where a batch-norm keeps no running statistics,
            "not-deterministic" where the model disagrees with itself, "copy-disagrees" where no
            copy with the same outputs was found.
    """
    plain = freeze(copy_detached(model).eval())
    plain = simplify_layers(bake_weights(plain))
    reference = freeze(copy_detached(model).eval())
    x_BCHW = _check_inputs(model, input_shape)
    expected = _logits(reference, x_BCHW)
    if _difference(expected, _logits(reference, x_BCHW)) > SAME_FUNCTION_TOLERANCE:
        raise NotCertifiable(
            "not-deterministic",
            "two passes over the same images gave different logits in eval mode; "
            "remove random steps from the forward pass",
        )
    for candidate in (_fold_batch_norms(copy.deepcopy(plain)), plain):
        if _difference(expected, _logits(candidate, x_BCHW)) <= SAME_FUNCTION_TOLERANCE:
            return freeze(candidate)
    raise NotCertifiable(
        "copy-disagrees",
        "a copy with masks baked in and dropout removed gives other logits than the model; "
        "its hooks or its forward pass do more than apply its layers",
    )


def copy_detached(model: nn.Module, shared: Sequence[Tensor] = ()) -> nn.Module:
    """Deep copy that also works while pruning hooks hold weights computed from others.

    Args:
        model: the model.
        shared: tensors that the copy shall share with the model.

    Returns:
        The copy; torch refuses to copy a computed weight, so such a weight is copied detached.
    """
    memo: dict[int, object] = {id(tensor): tensor for tensor in shared}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


def freeze(model: nn.Module) -> nn.Module:
    """The same model, none of whose parameters asks for a gradient."""
    return model.requires_grad_(False)


def bake_weights(model: nn.Module) -> nn.Module:
    """Turn masks and reparametrizations into plain weights, in place."""
    for module in list(model.modules()):
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
            elif type(hook).__name__ == "WeightNorm":
                nn.utils.remove_weight_norm(module, vars(hook)["name"])
            elif type(hook).__name__ == "SpectralNorm":
                nn.utils.remove_spectral_norm(module, vars(hook)["name"])
        if parametrize.is_parametrized(module):
            _bake_parametrizations(module)
    return model


def _bake_parametrizations(module: nn.Module) -> None:
    """What `parametrize.remove_parametrizations` does, but only to this module.

    torch's own function deletes the attribute from the injected class, which the copy of a module
    shares with the original, and so would break the model itself.
    """
    names = list(module._modules["parametrizations"]._modules)  # type: ignore[union-attr]
    values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def simplify_layers(model: nn.Module) -> nn.Module:
    """Replace layers the bound library cannot convert by equal ones it can, in place.

    Raises:
        NotCertifiable: "batch-statistics".
    """
    for module in list(model.modules()):
        if isinstance(module, _DROPOUTS):
            _replace(model, module, nn.Identity())
        elif type(module).__name__ == "Normalize" and {"mean", "std"} <= _buffers(module).keys():
            buffers = _buffers(module)
            _replace(model, module, _normalisation(buffers["mean"], buffers["std"]))
        elif isinstance(module, _BatchNorm):
            if module.running_mean is None or module.running_var is None:
                raise NotCertifiable(
                    "batch-statistics",
                    f"a {type(module).__name__} without running statistics makes the logits of an "
                    "image depend on its batch; train it with track_running_stats=True",
                )
            if not module.affine:
                _replace(model, module, _with_affine(module))
        elif isinstance(module, nn.Conv2d) and module.padding == "same":
            _make_padding_explicit(module)
        elif isinstance(module, nn.Linear) and module.bias is None:
            # the library converts a product without bias to operators it bounds less well
            zeros = torch.zeros(module.out_features).to(module.weight)
            module.bias = nn.Parameter(zeros, requires_grad=False)
    return model


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers(recurse=False))


def _normalisation(mean: Tensor, std: Tensor) -> nn.Module:
    """(x - mean) / std per channel, as an affine batch-norm in eval mode."""
    mean, std = mean.detach().flatten(), std.detach().flatten()
    if bool((mean == 0).all()) and bool((std == 1).all()):
        return nn.Identity()
    # torch 2.11 refuses an eps of 0; one so small is lost in 1 + eps, in any float.
    layer = nn.BatchNorm2d(len(mean), eps=1e-30).to(mean)
    with torch.no_grad():
        layer.weight.copy_(1.0 / std)
        layer.bias.copy_(-mean / std)
    return freeze(layer.eval())


def _with_affine(norm: _BatchNorm) -> nn.Module:
    """The same batch-norm with weight 1 and bias 0 spelt out."""
    affine = type(norm)(norm.num_features, eps=norm.eps)
    affine.load_state_dict({**affine.state_dict(), **norm.state_dict()})
    return freeze(affine.eval())


def _make_padding_explicit(conv: nn.Conv2d) -> None:
    """padding="same" in numbers, where it is the same on both sides."""
    totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if conv.padding_mode == "zeros" and all(total % 2 == 0 for total in totals):
        conv.padding = tuple(total // 2 for total in totals)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever the model holds `old`."""
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def batch_norm_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Names of each convolution or linear layer and the batch-norm that alone consumes it.

    The order of layers is read off a symbolic trace; a model that cannot be traced has no pairs.
    """
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # the forward pass is the submitter's code: anything may be raised
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    modules = {node: model.get_submodule(node.target) for node in calls}
    num_calls = Counter(id(module) for module in modules.values())
    pairs = []
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source not in modules or len(source.users) != 1:
            continue
        layer, norm = modules[source], modules[node]
        if num_calls[id(layer)] != 1 or num_calls[id(norm)] != 1:
            continue
        if _fuse(layer, norm) is not None:
            pairs.append((str(source.target), str(node.target)))
    return pairs


def fuse_batch_norm(model: nn.Module, layer_name: str, norm_name: str) -> nn.Module:
    """Replace one of `batch_norm_pairs` by a single layer, in place.

    Returns:
        The new layer, in eval mode, with weights of its own: those at the running statistics.
    """
    layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
    fuse = _fuse(layer, norm)
    assert fuse is not None
    was_training = layer.training, norm.training
    fused = fuse(layer.eval(), norm.eval()).eval()
    layer.train(was_training[0])
    norm.train(was_training[1])
    _replace(model, layer, fused)
    _replace(model, norm, nn.Identity())
    return fused


def _fuse(layer: nn.Module, norm: nn.Module) -> Callable[..., nn.Module] | None:
    for layer_type, norm_type, fuse in _FUSED:
        if type(layer) is layer_type and type(norm) is norm_type:
            return fuse
    return None


def _fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold every batch-norm that alone consumes a convolution or linear layer, in place."""
    for layer_name, norm_name in batch_norm_pairs(model):
        fuse_batch_norm(model, layer_name, norm_name)
    return model


def _check_inputs(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Random images (4, C, H, W) in [0, 1] from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.rand(_NUM_CHECK_INPUTS, *input_shape, generator=generator)
    tensor = next(model.parameters(), None)
    return x_BCHW if tensor is None else x_BCHW.to(tensor)


def _logits(model: nn.Module, x_BCHW: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(x_BCHW)
        return logits


def _difference(expected: Tensor, found: Tensor) -> float:
    """Largest difference per unit of max(1, largest |logit|); infinite where it is not a number."""
    if expected.shape != found.shape:
        return float("inf")
    scale = max(1.0, float(expected.abs().max()))
    difference = float((expected - found).abs().max()) / scale
    return difference if difference == difference else float("inf")
