"""A network of the caller's: a copy that is measured, so that the caller's own stays as it is."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import ConfigError, ContractError, SubmissionError
from corobench.benchmark.network.prepare import bake_weights, copy_detached, freeze
from corobench.benchmark.submission.contract import random_images
from corobench.benchmark.submission.raising import is_of_the_code
from corobench.benchmark.submission.weights import effective_sha256
from corobench.benchmark.submission.writing import largest_difference

#: Values of a module's attributes that enter the fingerprint of a network.
_PLAIN = (bool, int, float, str, tuple, type(None))


def require_network(model: object) -> nn.Module:
    """The network that was handed in.

    Raises:
        ConfigError: it is none, but its class for example.
    """
    if isinstance(model, nn.Module):
        inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
        return inner if isinstance(inner, nn.Module) else model
    found = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise ConfigError(f"model: expected a torch.nn.Module, but found {found}")


def name_of(model: nn.Module) -> str:
    """What a network is called where the caller gave it no name: its class."""
    return type(require_network(model)).__name__


def device_of(model: nn.Module) -> torch.device:
    """Where the weights of a network are; the CPU for one without any."""
    tensors: Iterator[Tensor] = (*model.parameters(), *model.buffers()).__iter__()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def measured_copy(model: object, shape: Sequence[int]) -> nn.Module:
    """The network as it is measured: a copy with pruning masks and parametrisations baked in.

    Args:
        model: in eval mode; it is not changed.
        shape: channels, height, width of its images.

    Returns:
        A copy on the same device, in eval mode, whose parameters ask for no gradient. Its logits
        on a few random images are the model's, within rounding (RULES.md).

    Raises:
        ConfigError: no network, or one that cannot be copied.
        ContractError: a module is in training mode.
        SubmissionError: the copy has other logits, as with a hook that changes more than weights.
    """
    network = require_network(model)
    name = name_of(network)
    training = [path or name for path, one in network.named_modules() if one.training]
    if training:
        fault = (
            "contract clause eval-mode: expected every module in eval mode, but "
            f"`{training[0]}` is training; call model.eval() first"
        )
        raise ContractError(name, [fault])
    try:
        copied = freeze(bake_weights(copy_detached(network)))
    except Exception as error:  # copying a stranger's network raises anything
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ConfigError(
            f"model: expected a network that copy.deepcopy can copy, but {name} cannot be copied "
            f"({reason[:200]}); replace what it holds beside modules and tensors"
        ) from error
    _require_same(network, copied, shape, name)
    return copied


def _require_same(model: nn.Module, copied: nn.Module, shape: Sequence[int], name: str) -> None:
    """Refuse a copy with other logits; a network that fails at all is the contract's to refuse."""
    images = random_images(shape).to(device_of(model))
    try:
        with torch.no_grad():
            is_comparable = isinstance(model(images), Tensor) and isinstance(copied(images), Tensor)
    except BaseException as error:  # the contract names the clause
        if is_of_the_code(error):
            return
        raise
    if is_comparable:
        try:
            largest_difference(model, copied, images, name)
        except SubmissionError as error:
            if _is_random(model, images):
                return  # the contract names the clause
            fault = (
                f"{error.faults[0]}; a copy with pruning masks baked in must compute the same: "
                "remove hooks that change outputs"
            )
            raise SubmissionError(name, [fault]) from error
        except RuntimeError:
            return


def _is_random(model: nn.Module, images: Tensor) -> bool:
    with torch.no_grad():
        return not torch.equal(model(images), model(images))


def weights_sha256(model: nn.Module) -> str:
    """The hash of all weights of a measured copy, as results have it."""
    return effective_sha256(model.state_dict())


def fingerprint(model: nn.Module, logits_BK: Tensor) -> str:
    """What tells a network in memory from another one: weights, code, attributes and answers.

    No hash sees everything that Python code may depend on; it serves to go on with unfinished work
    and identifies no published result.

    Args:
        model: a measured copy.
        logits_BK: float32 (B, K), its answers on the images that are evaluated.

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256(weights_sha256(model).encode())
    for path, module in model.named_modules():
        kind = type(module)
        digest.update(f"{path}\0{kind.__module__}.{kind.__qualname__}\0".encode())
        plain = {key: value for key, value in vars(module).items() if isinstance(value, _PLAIN)}
        digest.update(repr(sorted(plain.items())).encode())
    for source in sorted({_source(type(module)) for module in model.modules()}):
        digest.update(source.encode())
    digest.update(logits_BK.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _source(kind: type) -> str:
    if kind.__module__.startswith("torch."):
        return kind.__qualname__
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed into an interpreter
        return kind.__qualname__
