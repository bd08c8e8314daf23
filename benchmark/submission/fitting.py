"""Tensors that were found, put under the names of the network: whole, or with every misfit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.naming import Place
from corobench.benchmark.submission.sequences import match_by_order
from corobench.benchmark.submission.strangers import shard
from corobench.benchmark.submission.weights import MAX_LISTED, State

#: Tensors that widely copied code of wide residual networks registers and never calls.
UNUSED = ("sub_block1.",)
NORMALIZE = ("normalize.mean", "normalize.std")
NETWORK = "network."
#: What torch puts into a network that is to be quantised.
_OBSERVER = re.compile(r"(activation_post_process|fake_quant|_observer)(\.|$)")
_OBSERVED = (
    "the network is prepared for quantisation by torch (observers or rounding beside its weights), "
    "so that it computes something else than its weights alone. Import the float32 weights from "
    "before, or an ONNX file with QuantizeLinear and DequantizeLinear pairs (onnxruntime's "
    "quantize_static with quant_format=QuantFormat.QDQ)"
)


@dataclass(frozen=True)
class Matched:
    """A checkpoint's tensors under the names of the network.

    Attributes:
        state: every weight of the network, as stored.
        prefix: what was stripped from the names.
        filled: names the checkpoint lacks, taken from the network (its `mean` and `std`).
        notes: what was done and left out, for people.
    """

    state: State
    prefix: str
    filled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Parts:
    """The tensors of a file as seen from the network.

    Attributes:
        place: where the network is.
        holder: what the names of the mapping that holds it begin with.
        own: tensors in its place, by its own names.
        beside: those of the same mapping that are not in its place.
        elsewhere: all others.
    """

    place: Place
    holder: str
    own: State = field(default_factory=dict)
    beside: State = field(default_factory=dict)
    elsewhere: State = field(default_factory=dict)


@dataclass
class _Whole:
    """Tensors by the names of the network without its normalisation."""

    state: State
    pair: State
    prefix: str
    zeros: list[str] = field(default_factory=list)
    identities: tuple[str, ...] = ()


def core_of(wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network behind its normalisation, by their names in it.

    >>> sorted(core_of({"network.0.weight": torch.zeros(1), "normalize.mean": torch.zeros(1)}))
    ['0.weight']
    """
    if NORMALIZE[0] not in wanted:
        return dict(wanted)
    return {
        name.removeprefix(NETWORK): tensor
        for name, tensor in wanted.items()
        if name not in NORMALIZE
    }


def fit(
    path: Path,
    parts: Parts,
    state: State,
    pair: State,
    wanted: Mapping[str, Tensor],
    notes: list[str],
) -> Matched:
    """The tensors by the names of the network.

    Args:
        path: to name in errors.
        parts: where they are from.
        state: tensors by the network's own names, masks and norms applied.
        pair: mean and deviation of the input, or nothing.
        wanted: state dict of the network.
        notes: what was done with them so far.

    Raises:
        SubmissionError: every name and shape that does not fit.
    """
    core = core_of(wanted)
    added = NETWORK if len(core) < len(wanted) else ""
    unused = sorted(name for name in state if name not in core and name.startswith(UNUSED))
    numbers = sorted(
        name for name, one in state.items() if name not in core and _is_number(name, one)
    )
    kept = {name: one for name, one in state.items() if name not in {*unused, *numbers}}
    whole = _whole(kept, pair, core, wanted, parts.place.prefix.removeprefix(parts.holder))
    faults = _list_misfits(path, whole.state, core)
    if not added and whole.pair:
        faults.append(_arguments(whole.pair))
    if faults:
        raise SubmissionError(path, faults)
    complete = {added + name: tensor for name, tensor in whole.state.items()}
    for name in NORMALIZE if added else ():
        found = whole.pair.get(name, wanted[name])
        complete[name] = found.reshape(-1).expand(wanted[name].numel())
    return Matched(
        {name: complete[name] for name in sorted(wanted)},
        whole.prefix.removesuffix(added) if added else whole.prefix,
        NORMALIZE if added and not whole.pair else (),
        (
            *notes,
            *_renamings(parts.place),
            *_beside(parts),
            *_left_out(unused, whole, added),
            *([f"left out, a number and no weight: {', '.join(numbers)}"] if numbers else []),
        ),
    )


def _whole(
    state: State, pair: State, core: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str
) -> _Whole:
    """Biases that no layer has as zeros; else the layers of a sequence in their order."""
    whole = _with_zeros(state, pair, core, prefix)
    if set(whole.state) == set(core):
        return whole
    by_order = match_by_order(state | pair, wanted)
    if by_order is None:
        return whole
    own = {
        name.removeprefix(NETWORK if len(core) < len(wanted) else ""): tensor
        for name, tensor in by_order.state.items()
    }
    in_front = {name: own.pop(name) for name in NORMALIZE if name in own}
    found = _with_zeros(own, pair | in_front, core, prefix + by_order.prefix)
    found.identities = by_order.added
    return found


def _with_zeros(state: State, pair: State, core: Mapping[str, Tensor], prefix: str) -> _Whole:
    zeros = sorted(name for name in core if name not in state and _is_missing_bias(name, state))
    more = {name: torch.zeros_like(core[name]) for name in zeros}
    return _Whole(state | more, pair, prefix, zeros)


def _is_missing_bias(name: str, found: State) -> bool:
    """Whether `name` is the bias of a convolution or a linear layer that has its weight alone."""
    weight = found.get(name.removesuffix("bias") + "weight")
    return name.rpartition(".")[2] == "bias" and weight is not None and weight.dim() > 1


# ------------------------------------------------------------------------------ for people


def _renamings(place: Place) -> list[str]:
    notes = []
    words = {word for name in place.names.values() for word in name.split(".")}
    if dropped := [word for word in place.dropped if word in words]:
        notes.append(f"left out of the names: {', '.join(dropped)}")
    if place.renamed:
        pairs = ", ".join(f"{old} is {new} here" for old, new in sorted(place.renamed.items()))
        notes.append(f"names: {pairs}")
    if "downsample" in place.renamed:
        notes.append(
            "torchvision's ResNet has a max-pooling behind conv1, which has no tensors; this "
            "network has none: the checkpoint's must have been taken out (nn.Identity())"
        )
    return notes


def _beside(parts: Parts) -> list[str]:
    """What of the same mapping is no part of the network, but copies of it and counters."""
    place = parts.place.prefix.removeprefix(parts.holder).split(".")
    groups: dict[str, int] = {}
    for name, tensor in parts.beside.items():
        words = name.split(".")
        is_counter = tensor.numel() == 1 and not tensor.is_floating_point()
        copies = (parts.own.get(".".join(words[start:])) for start in range(len(words)))
        if is_counter or any(one is not None and torch.equal(one, tensor) for one in copies):
            continue
        shared = 0
        while shared < len(words) - 1 and words[shared : shared + 1] == place[shared : shared + 1]:
            shared += 1
        group = words[shared]
        groups[group] = groups.get(group, 0) + 1
    if not groups:
        return []
    shown = ", ".join(f"{group} ({num})" for group, num in list(groups.items())[:MAX_LISTED])
    return [
        f"left out, because they stand beside the network: {shown}; check that it does not use them"
    ]


def _left_out(unused: list[str], whole: _Whole, added: str) -> list[str]:
    """Where the checkpoint and the network have not the same tensors."""
    notes = []
    if unused:
        first = f"{added}{unused[0]}"
        notes.append(f"left out, because no code calls them: {len(unused)} such as {first}")
    if whole.zeros:
        names = ", ".join(f"{added}{name}" for name in whole.zeros)
        notes.append(f"no bias in the checkpoint, so it is zero: {names}")
    if whole.identities:
        names = ", ".join(whole.identities)
        notes.append(f"no such batch-norm in the checkpoint, so it changes nothing: {names}")
    return notes


def _arguments(pair: State) -> str:
    """How to say the normalisation that a checkpoint has."""
    mean, std = ([float(str(np.float32(one))) for one in pair[name].tolist()] for name in NORMALIZE)
    options = " ".join(
        f"--{key} {','.join(f'{one:.9g}' for one in numbers)}"
        for key, numbers in (("mean", mean), ("std", std))
    )
    return f"the model normalises its input: give the arguments mean={mean}, std={std} ({options})"


def _is_number(name: str, tensor: Tensor) -> bool:
    """Whether something beside the layers is a counter, such as an epoch."""
    return "." not in name and tensor.numel() == 1 and not tensor.is_floating_point()


def _list_misfits(path: Path, found: State, core: Mapping[str, Tensor]) -> list[str]:
    faults = []
    if any(_OBSERVER.search(name) for name in found):
        return [_OBSERVED]
    for kind, names in (
        ("missing from the checkpoint", set(core) - set(found)),
        ("unknown to the architecture", set(found) - set(core)),
    ):
        if names:
            shown = ", ".join(sorted(names)[:MAX_LISTED])
            more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
            hint = shard(path) if names == set(core) - set(found) else ""
            faults.append(
                f"{len(names)} tensor(s) {kind}: {shown}{more}{f'; {hint}' if hint else ''}"
            )
    shapes = [
        f"tensor `{name}`: expected shape {list(core[name].shape)}, "
        f"but found {list(found[name].shape)}"
        for name in sorted(set(core) & set(found))
        if core[name].shape != found[name].shape
    ]
    if len(shapes) > MAX_LISTED:
        shapes = [*shapes[:MAX_LISTED], f"{len(shapes) - MAX_LISTED} more shapes differ"]
    if shapes and not faults:
        shapes.append(
            "the names fit and the sizes do not: give the --width it was made with; a network "
            "whose layers were made smaller is brought as ONNX (torch.onnx.export)"
        )
    return faults + shapes
