"""The model contract, clause by clause: what is not a deterministic map to logits is refused.

Clauses: ``eval-mode``, ``runs``, ``output-shape``, ``output-dtype``, ``finite``, ``logits``,
``deterministic``, ``batch-independent``, ``hooks``, ``grad-mode``, ``input-gradient``,
``same-as-runtime`` (RULES.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmark.errors import ContractError

#: Outputs of the same image in another batch, or with gradients on, may differ by this share of
#: the largest logit (at least 1). Libraries choose another order of summation for another batch
#: size: float32 rounding grows to about 1e-5 through the deepest network here, and ten times
#: that still is far below any margin that decides an image.
RELATIVE_TOLERANCE = 1e-4
#: Rows of probabilities add up to 1 within this.
PROBABILITY_TOLERANCE = 1e-5

#: What a file computes in a runtime of its own: float32 (B, C, H, W) -> logits (B, classes).
Reference = Callable[[Tensor], Tensor]


def check_contract(
    model: nn.Module,
    images: Tensor,
    num_classes: int,
    path: object = "",
    reference: Reference | None = None,
) -> None:
    """Run the model on a few images and refuse it if it breaks a clause.

    Args:
        model: in eval mode.
        images: float32 (B, C, H, W) in [0, 1], B >= 2 to see dependence on the batch.
        num_classes: logits per image.
        path: submission to name in the error.
        reference: what the submitted file computes by itself, for formats that are converted.

    Raises:
        ContractError: every clause that is broken, by name.
    """
    faults = find_broken_clauses(model, images, num_classes, reference)
    if faults:
        raise ContractError(path or "model", faults)


def find_broken_clauses(
    model: nn.Module, images: Tensor, num_classes: int, reference: Reference | None = None
) -> list[str]:
    """One line ``contract clause <name>: ...`` for every broken clause; see check_contract."""
    if any(module.training for module in model.modules()):
        return [_clause("eval-mode", "expected every module in eval mode, but one is training")]
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:
        return [_clause("runs", _failure(error, images))]
    form_faults = _check_form(logits, len(images), num_classes)
    if form_faults:
        return form_faults
    try:
        return [
            *_check_logits(logits),
            *_check_repeats(model, images, logits),
            *_check_gradient(model, images, logits),
            *_check_runtime(reference, images, logits),
        ]
    except Exception as error:
        return [_clause("runs", _failure(error, images))]


def _clause(name: str, text: str) -> str:
    return f"contract clause {name}: {text}"


def _failure(error: Exception, images: Tensor) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"expected the model to take float32 {list(images.shape)}, but it failed with "
        f"{type(error).__name__}: {first_line[:200]}"
    )


def _check_form(logits: object, num_images: int, num_classes: int) -> list[str]:
    """Shape, type and finiteness; without them no other clause can be asked."""
    if not isinstance(logits, Tensor):
        found = type(logits).__name__
        return [_clause("output-shape", f"expected a tensor of logits, but found {found}")]
    faults = []
    if tuple(logits.shape) != (num_images, num_classes):
        expected = [num_images, num_classes]
        faults.append(
            _clause("output-shape", f"expected {expected}, but found {list(logits.shape)}")
        )
    if logits.dtype != torch.float32:
        faults.append(_clause("output-dtype", f"expected float32, but found {logits.dtype}"))
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).sum())
        faults.append(
            _clause("finite", f"expected finite logits, but {bad} of {logits.numel()} are not")
        )
    return faults


def _check_logits(logits: Tensor) -> list[str]:
    """Probabilities are not logits: their gradients vanish where the model is sure."""
    sums = logits.double().sum(dim=1)
    is_probability = bool((logits >= 0).all()) and bool(
        ((sums - 1.0).abs() <= PROBABILITY_TOLERANCE).all()
    )
    if not is_probability:
        return []
    return [
        _clause(
            "logits",
            "expected logits, but found probabilities (nothing negative, every row adds up to 1): "
            "remove the softmax",
        )
    ]


def _difference(other: Tensor, logits: Tensor) -> str:
    """How two outputs for the same images differ beyond rounding, or "" if they do not.

    The predicted class may only differ where the two highest logits are closer than rounding.
    """
    if other.shape != logits.shape or not bool(torch.isfinite(other).all()):
        return "another shape, or values that are not finite"
    tolerance = RELATIVE_TOLERANCE * max(1.0, float(logits.abs().max()))
    largest = float((other - logits).abs().max())
    if largest > tolerance:
        return (
            f"a difference of {largest:.3g}, more than the {tolerance:.3g} that rounding explains"
        )
    top = logits.topk(2, dim=1).values
    is_clear = (top[:, 0] - top[:, 1]) > 2 * tolerance
    changed = int(((other.argmax(dim=1) != logits.argmax(dim=1)) & is_clear).sum())
    return f"another class for {changed} image(s)" if changed else ""


def _check_repeats(model: nn.Module, images: Tensor, logits: Tensor) -> list[str]:
    """The same images again, one by one, in reverse, and with gradients on."""
    faults = []
    with torch.no_grad():
        again = model(images)
        singles = torch.cat([model(images[index : index + 1]) for index in range(len(images))])
        reverse = model(images.flip(0)).flip(0)
    if not torch.equal(again, logits):
        largest = float((again - logits).abs().max())
        faults.append(
            _clause(
                "deterministic",
                f"expected the same output for the same images, but a second call differs by "
                f"{largest:.3g}",
            )
        )
    for other, change in ((singles, "one by one"), (reverse, "in reverse order")):
        if found := _difference(other, logits):
            faults.append(
                _clause(
                    "batch-independent",
                    f"expected the same output for the same images {change}, but found {found}",
                )
            )
    with torch.enable_grad():
        with_grad = model(images.clone().requires_grad_(True)).detach()
    handles = [module.register_forward_hook(_look) for module in model.modules()]
    try:
        with torch.no_grad():
            watched = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if found := _difference(watched, logits):
        faults.append(
            _clause("hooks", f"expected the same output while hooks look on, but found {found}")
        )
    if found := _difference(with_grad, logits):
        faults.append(
            _clause(
                "grad-mode",
                f"expected the same output with and without gradients, but found {found}",
            )
        )
    return faults


def _check_runtime(reference: Reference | None, images: Tensor, logits: Tensor) -> list[str]:
    """A converted network must compute what its file computes in a runtime of its own."""
    if reference is None:
        return []
    found = _difference(reference(images).to(logits), logits)
    return (
        [_clause("same-as-runtime", f"expected the logits of onnxruntime, but found {found}")]
        if found
        else []
    )


def _look(module: nn.Module, inputs: object, output: object) -> None:
    """A hook that changes nothing, as measuring tools register them."""


def _check_gradient(model: nn.Module, images: Tensor, logits: Tensor) -> list[str]:
    """Every attack needs the gradient of the output with respect to the image."""
    with torch.enable_grad():
        inputs = images.clone().requires_grad_(True)
        outputs = model(inputs)
        if not outputs.requires_grad:
            return [_clause("input-gradient", "expected a gradient, but the output has none")]
        picked = outputs.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
        (gradient,) = torch.autograd.grad(picked, inputs, allow_unused=True)
    if gradient is None:
        return [_clause("input-gradient", "expected the output to depend on the image")]
    if not bool(torch.isfinite(gradient).all()):
        return [_clause("input-gradient", "expected finite gradients, but some are not")]
    return []
