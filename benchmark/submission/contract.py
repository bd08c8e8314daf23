"""The model contract, clause by clause: what is not a deterministic map to logits is refused.

Clauses: ``eval-mode``, ``runs``, ``output-shape``, ``output-dtype``, ``finite``, ``logits``,
``deterministic``, ``batch-independent``, ``hooks``, ``grad-mode``, ``input-unchanged``,
``input-gradient``, ``same-as-runtime`` (RULES.md). Each is asked on every image that is given, and
one image that breaks it is enough: a network that keeps the contract on a few images only keeps
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import ContractError
from corobench.benchmark.submission.raising import failure, is_of_the_code, of_another_type
from corobench.benchmark.submission.rounding import RELATIVE_TOLERANCE, difference

__all__ = ["RELATIVE_TOLERANCE", "check_contract", "find_broken_clauses", "random_images"]

#: Images in one call of the network.
BATCH = 64
#: Rows of probabilities add up to the same sum within this share of it.
PROBABILITY_TOLERANCE = 1e-5
#: Share of the images that may look like probabilities by chance.
PROBABILITY_RATE = 0.01
#: Images below which others are asked too, before a network is refused for it.
NUM_FOR_PROBABILITIES = 256
#: Random images, and the seed that they are drawn from.
NUM_RANDOM = 4
SEED = 0

#: What a file computes in a runtime of its own: float32 (B, C, H, W) -> logits (B, classes).
Reference = Callable[[Tensor], Tensor]


def random_images(shape: Sequence[int], num_images: int = NUM_RANDOM) -> Tensor:
    """Uniform in [0, 1] from a fixed seed: no dataset is needed, and they are always the same.

    Args:
        shape: channels, height, width.
        num_images: how many.

    Returns:
        float32 (num_images, C, H, W).
    """
    return torch.rand(num_images, *shape, generator=torch.Generator().manual_seed(SEED))


def check_contract(
    model: nn.Module,
    images: Tensor,
    num_classes: int,
    path: object = "",
    reference: Reference | None = None,
    names: Sequence[object] | None = None,
) -> None:
    """Run the model on images, and on a few random ones, and refuse it if it breaks a clause.

    Args:
        model: in eval mode.
        images: float32 (B, C, H, W) in [0, 1], B >= 2 to see dependence on the batch.
        num_classes: logits per image.
        path: submission to name in the error.
        reference: what the submitted file computes by itself, for formats that are converted.
        names: what errors call each image, such as its number in the test set; its place among
            `images` by default.

    Raises:
        ContractError: every clause that is broken, by name, with the first images that break it.
    """
    faults = find_broken_clauses(model, images, num_classes, reference, names)
    if not faults:
        others = random_images(images.shape[1:]).to(images)
        called = [f"{number} of the random ones" for number in range(len(others))]
        faults = find_broken_clauses(model, others, num_classes, reference, called)
    if faults:
        raise ContractError(path or "model", faults)


CHANGES_ITS_INPUT = (
    "expected the images to be the same after a forward pass, but the model writes into them; "
    "work on a copy, such as x = x.clone()"
)


def find_broken_clauses(
    model: nn.Module,
    images: Tensor,
    num_classes: int,
    reference: Reference | None = None,
    names: Sequence[object] | None = None,
) -> list[str]:
    """One line ``contract clause <name>: ...`` for every broken clause; see check_contract."""
    if any(module.training for module in model.modules()):
        return [_clause("eval-mode", "expected every module in eval mode, but one is training")]
    called = list(range(len(images))) if names is None else list(names)
    logits = []
    for part in images.split(BATCH):
        given = part.clone()
        try:
            with torch.no_grad():
                found = model(given)
        except BaseException as error:
            if not is_of_the_code(error):
                raise
            return [_clause("runs", failure(model, error, part))]
        if not torch.equal(given, part):
            return [_clause("input-unchanged", CHANGES_ITS_INPUT)]
        if faults := _check_form(model, found, len(part), num_classes):
            return faults
        logits.append(found)
    all_logits = torch.cat(logits)
    if faults := _check_finite(all_logits, called):
        return faults
    try:
        return [
            *_check_logits(model, images, all_logits, called),
            *_check_repeats(model, images, all_logits, called),
            *_check_gradient(model, images, called),
            *_check_runtime(model, reference, images, all_logits, called),
        ]
    except BaseException as error:
        if not is_of_the_code(error):
            raise
        return [_clause("runs", failure(model, error, images[:BATCH]))]


def _clause(name: str, text: str) -> str:
    return f"contract clause {name}: {text}"


def _which(is_bad_N: Tensor, called: Sequence[object]) -> str:
    """The images that break a clause, for people: the first three by name.

    >>> _which(torch.tensor([False, True]), [10, 11])
    'image 11'
    """
    rows = torch.nonzero(is_bad_N)[:, 0].tolist()
    shown = ", ".join(str(called[row]) for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"image{'s' if len(rows) > 1 else ''} {shown}{more}"


def _check_form(model: nn.Module, logits: object, num_images: int, num_classes: int) -> list[str]:
    """Shape and type; without them no other clause can be asked."""
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
        text = f"expected float32, but found {logits.dtype}{of_another_type(model)}"
        faults.append(_clause("output-dtype", text))
    return faults


def _check_finite(logits_NK: Tensor, called: Sequence[object]) -> list[str]:
    """Logits, and their differences, which decide; of huge ones float32 holds no difference."""
    is_finite = torch.isfinite(logits_NK)
    if not bool(is_finite.all()):
        number = int((~is_finite).sum())
        which = _which(~is_finite.all(dim=1), called)
        text = f"expected finite logits, but {number} of {logits_NK.numel()} are not ({which})"
        return [_clause("finite", text)]
    spread = logits_NK.amax(dim=1) - logits_NK.amin(dim=1)
    if bool(torch.isfinite(spread).all()):
        return []
    which = _which(~torch.isfinite(spread), called)
    return [
        _clause(
            "finite",
            f"expected logits whose differences are finite in float32, but those of {which} are "
            "not; scale the last layer down",
        )
    ]


def _check_logits(
    model: nn.Module, images: Tensor, logits_NK: Tensor, called: Sequence[object]
) -> list[str]:
    """Probabilities, scaled or not, are not logits: gradients vanish where the model is sure.

    A few images may look like it by chance, so that others are asked before a network is refused.
    """
    is_probability = _are_probabilities(logits_NK)
    if not _are_too_many(is_probability):
        return []
    if len(images) < NUM_FOR_PROBABILITIES:
        more = random_images(images.shape[1:], NUM_FOR_PROBABILITIES).to(images)
        with torch.no_grad():
            others = _again(model, more)
        if not _are_too_many(_are_probabilities(others)):
            return []
    return [
        _clause(
            "logits",
            "expected logits, but found probabilities (nothing negative, rows add up to the same "
            f"sum; {_which(is_probability, called)}): remove the softmax",
        )
    ]


def _are_too_many(is_probability_N: Tensor) -> bool:
    number, total = int(is_probability_N.sum()), len(is_probability_N)
    return number > max(1, PROBABILITY_RATE * total) or number == total


def _are_probabilities(logits_NK: Tensor) -> Tensor:
    """Which images have nothing negative, and a sum of 1, or the same as most have."""
    logits = logits_NK.double()
    sums = logits.sum(dim=1)
    is_probability = (logits >= 0).all(dim=1) & ((sums - 1.0).abs() <= PROBABILITY_TOLERANCE)
    same = sums.median()
    moves = (logits - logits.median(dim=0).values).abs().amax(dim=1)
    if bool(same > 0) and bool(moves.median() > 1e-3 * same):
        is_near = (sums - same).abs() <= PROBABILITY_TOLERANCE * same
        is_probability |= (logits >= 0).all(dim=1) & is_near
    return is_probability


def _mixed(num_images: int) -> Tensor:
    """Another order of images, in which batches are other ones; up to `BATCH` the reverse one."""
    parts = max(1, -(-num_images // BATCH))
    return torch.cat([torch.arange(start, num_images, parts) for start in range(parts)]).flip(0)


def _again(model: Callable[[Tensor], Tensor], images: Tensor, size: int = BATCH) -> Tensor:
    """Logits of all images, in batches."""
    return torch.cat([model(part) for part in images.split(size)])


def _check_repeats(
    model: nn.Module, images: Tensor, logits: Tensor, called: Sequence[object]
) -> list[str]:
    """The same images again, one by one, in another order, and while hooks watch."""
    faults = []
    order = _mixed(len(images)).to(images.device)
    reverse = torch.empty_like(logits)
    with torch.no_grad():
        again = _again(model, images)
        singles = _again(model, images, 1)
        reverse[order] = _again(model, images[order])
    if not torch.equal(again, logits):
        is_other = (again != logits).any(dim=1)
        largest = float((again - logits).abs().max())
        faults.append(
            _clause(
                "deterministic",
                "expected the same output for the same images, but a second call differs by "
                f"{largest:.3g} ({_which(is_other, called)})",
            )
        )
    for other, change in ((singles, "one by one"), (reverse, "in reverse order")):
        faults += _compare(model, other, logits, called, "batch-independent", change)
    handles = [module.register_forward_hook(_look) for module in model.modules()]
    try:
        with torch.no_grad():
            watched = _again(model, images)
    finally:
        for handle in handles:
            handle.remove()
    faults += _compare(model, watched, logits, called, "hooks", "while hooks watch")
    with torch.enable_grad():
        with_grad = _again(lambda part: model(part.clone().requires_grad_(True)).detach(), images)
    faults += _compare(model, with_grad, logits, called, "grad-mode", "with and without gradients")
    return faults


def output_step(model: nn.Module) -> float | None:
    """The step of the logits of a network that rounds to whole steps inside.

    Args:
        model: read from an ONNX file, or any other.

    Returns:
        0 where the logits are not rounded themselves; None where nothing is.
    """
    from corobench.benchmark.submission.graph.layers import Quantise

    modules = [one for one in model.modules() if not list(one.children())]
    if not any(isinstance(one, Quantise) for one in modules):
        return None
    last = modules[-1]
    return float(last.scale.max()) if isinstance(last, Quantise) else 0.0


def _compare(
    model: nn.Module,
    other: Tensor,
    logits: Tensor,
    called: Sequence[object],
    clause: str,
    change: str,
) -> list[str]:
    what, is_other = difference(other, logits, output_step(model))
    if not what:
        return []
    return [
        _clause(
            clause,
            f"expected the same output for the same images {change}, but found {what} "
            f"({_which(is_other, called)})",
        )
    ]


def _check_runtime(
    model: nn.Module,
    reference: Reference | None,
    images: Tensor,
    logits: Tensor,
    called: Sequence[object],
) -> list[str]:
    """A converted network must compute what its file computes in a runtime of its own."""
    if reference is None:
        return []
    step = output_step(model)
    found = _again(reference, images, BATCH if step is None else 1).to(logits)
    if step is not None:
        with torch.no_grad():
            logits = _again(model, images, 1)
    what, is_other = difference(found, logits, step)
    if not what:
        return []
    which = _which(is_other, called)
    return [
        _clause(
            "same-as-runtime", f"expected the logits of onnxruntime, but found {what} ({which})"
        )
    ]


def _look(module: nn.Module, inputs: object, output: object) -> None:
    """A hook that changes nothing, as measuring tools register them."""


def _check_gradient(model: nn.Module, images: Tensor, called: Sequence[object]) -> list[str]:
    """Every attack needs the gradient of each logit with respect to the image.

    One backward pass sees them all: a sum with weights that are not zero is not finite where any
    of its parts is not.
    """
    is_bad = []
    for inputs, outputs in _with_gradients(model, images):
        if not outputs.requires_grad:
            return [_clause("input-gradient", "expected a gradient, but the output has none")]
        weights = torch.linspace(0.5, 1.0, outputs.shape[1], device=outputs.device)
        weighted = (outputs * weights).sum()
        (gradient,) = torch.autograd.grad(weighted, inputs, allow_unused=True)
        if gradient is None:
            return [_clause("input-gradient", "expected the output to depend on the image")]
        is_bad.append(~torch.isfinite(gradient).flatten(1).all(dim=1))
    which = torch.cat(is_bad)
    if not bool(which.any()):
        return []
    text = f"expected finite gradients, but those of {_which(which, called)} are not"
    return [_clause("input-gradient", text)]


def _with_gradients(model: nn.Module, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    with torch.enable_grad():
        for part in images.split(BATCH):
            inputs = part.clone().requires_grad_(True)
            yield inputs, model(inputs)
