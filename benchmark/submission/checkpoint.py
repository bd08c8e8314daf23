"""Checkpoints of PyTorch, opened without running what is in them, matched to a network's names."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.files import FileFaultError
from corobench.benchmark.submission.header import MAX_WEIGHTS_BYTES
from corobench.benchmark.submission.sequences import match_by_order
from corobench.benchmark.submission.weights import MAX_LISTED, State, is_counter, read_tensors

SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors")
#: Why archives of torch.export are refused.
NO_ARCHIVES = (
    "torch-export: archives of torch.export are not read, because torch opens what they hold as "
    "pickles, which can run code; save the same program with torch.onnx.export and hand in the "
    "ONNX file"
)
#: Keys under which training scripts keep the state dict, tried in this order.
STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")
#: Tensors that widely copied code of wide residual networks registers and never calls.
UNUSED = ("sub_block1.",)
#: Prefixes that wrappers put before every name; stripped only where names do not fit with them.
PREFIXES = ("module.", "model.", "1.", "network.", "layers.")
MAX_STRIPS = 4
#: A wrapper's names of its input normalisation -> the names of ours.
NORMALIZE = {
    "0.mean": "normalize.mean",
    "0.std": "normalize.std",
    "normalize.mean": "normalize.mean",
    "normalize.std": "normalize.std",
}


@dataclass(frozen=True)
class Matched:
    """A checkpoint's tensors under the names of the network.

    Attributes:
        state: every weight of the network, as stored.
        prefix: what was stripped from the names.
        added: what was put before them instead.
        filled: names the checkpoint lacks, taken from the network (its `mean` and `std`).
        zero_biases: names the checkpoint lacks, as its layer has no bias; zeros here.
        unused: names left out, which the source's code never calls.
        identities: batch-norms that the checkpoint lacks; they are the identity here.
    """

    state: State
    prefix: str
    added: str
    filled: tuple[str, ...]
    zero_biases: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()


def read_checkpoint(path: Path, key: str | None = None) -> State:
    """The state dict in a checkpoint file.

    Args:
        path: ``.safetensors``, or a file of `torch.save`, which is only ever read with
            ``weights_only=True``: a pickle that asks for more is refused, never run.
        key: under which the file keeps the state dict, where it keeps several ("last", "best").

    Raises:
        SubmissionError: missing, too large, refused, or without a state dict.
    """
    if not path.is_file():
        raise SubmissionError(path, ["expected a checkpoint file, but there is none"])
    if path.suffix.lower() == ".pt2":
        raise SubmissionError(path, [NO_ARCHIVES])
    if path.suffix.lower() not in SUFFIXES:
        raise SubmissionError(
            path, [f"expected a file ending in {', '.join(SUFFIXES)}, but found {path.suffix!r}"]
        )
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise SubmissionError(path, [f"expected at most {MAX_WEIGHTS_BYTES} bytes, found {size}"])
    if path.suffix.lower() == ".safetensors":
        try:
            return read_tensors(path.read_bytes())
        except (FileFaultError, OSError) as error:
            raise SubmissionError(path, str(error).splitlines()) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        fault = (
            "refused: it holds more than tensors, and opening it could run code. Save the state "
            "dict alone, `torch.save(model.state_dict(), path)`, and import that "
            f"file{_what(error)}"
        )
        raise SubmissionError(path, [fault]) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        fault = f"expected a file written by torch.save, but cannot read it: {_first_line(error)}"
        raise SubmissionError(path, [fault]) from error
    return _find_state(path, content, key)


def _what(error: Exception) -> str:
    """What torch would have to import to open the file, in brackets; empty where it says nothing.

    Its own message is about switching the check off, which is no way out.
    """
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" (it needs {found[1]})" if found else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    )


def _find_state(path: Path, content: Any, key: str | None) -> State:
    """The state dict: under `key`, or the content itself, or what the only possible key holds."""
    if key is None and _is_state(content):
        return dict(content)
    holders = (
        [name for name, value in content.items() if _is_state(value)]
        if (isinstance(content, Mapping))
        else []
    )
    if key is not None:
        if key in holders:
            return dict(content[key])
        wanted = f"expected a state dict (names to tensors) under {key!r} (--state-key)"
    else:
        chosen = [name for name in STATE_KEYS if name in holders][:1] or holders
        if len(chosen) == 1:
            return dict(content[chosen[0]])
        wanted = "expected a state dict (names to tensors), itself or under one key"
        if chosen:
            wanted = "expected one state dict; say which one with --state-key"
    found = type(content).__name__
    if isinstance(content, Mapping):
        found = f"the keys {', '.join(str(name) for name in list(content)[:MAX_LISTED])}"
    raise SubmissionError(path, [f"{wanted}, but found {found}"])


def match_names(path: Path, state: State, expected: Mapping[str, Tensor]) -> Matched:
    """Bring a checkpoint's names to those of the network.

    Prefixes that every name has are stripped one after another until the names fit, and
    ``network.`` is put before them where the network has its own normalisation in front. What
    the source's code registers and never calls (`UNUSED`) is left out, and a layer without a bias
    gets one of zeros. Where names do not fit and both are sequences, their layers are matched in
    order (`sequences`).

    Args:
        path: to name in errors.
        state: from :func:`read_checkpoint`.
        expected: state dict of the network.

    Raises:
        SubmissionError: no way of stripping fits; lists names missing and left over for the one
            that fits best, and shapes that differ.
    """
    weights = {name: tensor for name, tensor in state.items() if not is_counter(name)}
    wanted = {name: tensor for name, tensor in expected.items() if not is_counter(name)}
    own = {name for name in wanted if name in NORMALIZE}
    fits = []
    for prefix, stripped in _strippings(weights):
        for added in ("", "network.") if own else ("",):
            renamed = {
                name if name in NORMALIZE else added + name: tensor
                for name, tensor in stripped.items()
            }
            num_misfits = len((set(renamed) ^ set(wanted)) - own)
            fits.append((num_misfits, prefix, added, renamed))
    num_misfits, prefix, added, renamed = min(fits, key=lambda fit: fit[0])
    by_order = match_by_order(weights, wanted) if num_misfits else None
    identities: tuple[str, ...] = ()
    if by_order is not None:
        renamed, prefix, added, identities = by_order.state, by_order.prefix, "", by_order.added
    unused = {
        name for name in set(renamed) - set(wanted) if name.removeprefix(added).startswith(UNUSED)
    }
    renamed = {name: tensor for name, tensor in renamed.items() if name not in unused}
    zeros = {
        name: torch.zeros_like(tensor)
        for name, tensor in wanted.items()
        if name not in renamed and _is_missing_bias(name, renamed)
    }
    renamed |= zeros
    faults = _list_misfits(renamed, wanted, own)
    if faults:
        raise SubmissionError(path, faults)
    filled = tuple(sorted(own - set(renamed)))
    complete = {name: renamed.get(name, wanted[name]) for name in sorted(wanted)}
    return Matched(
        complete, prefix, added, filled, tuple(sorted(zeros)), tuple(sorted(unused)), identities
    )


def _is_missing_bias(name: str, found: State) -> bool:
    """Whether `name` is the bias of a convolution or a linear layer that has its weight alone."""
    weight = found.get(name.removesuffix("bias") + "weight")
    return name.endswith(".bias") and weight is not None and weight.dim() > 1


def _strippings(weights: State) -> list[tuple[str, State]]:
    """The state dict as it is, and after stripping each chain of common prefixes.

    A wrapper's normalisation ("0.mean" beside "1.conv.weight") is kept under the names of ours.
    """
    chains = [("", weights)]
    prefix = ""
    for _ in range(MAX_STRIPS):
        aside = {
            NORMALIZE[name]: tensor.reshape(-1)
            for name, tensor in weights.items()
            if name in NORMALIZE
        }
        rest = {name: tensor for name, tensor in weights.items() if name not in NORMALIZE}
        common = [
            candidate
            for candidate in PREFIXES
            if rest and all(name.startswith(candidate) for name in rest)
        ]
        if not common:
            break
        prefix += common[0]
        weights = aside | {name.removeprefix(common[0]): tensor for name, tensor in rest.items()}
        chains.append((prefix, weights))
    return chains


def _list_misfits(renamed: State, wanted: Mapping[str, Tensor], own: set[str]) -> list[str]:
    faults = []
    for kind, names in (
        ("missing from the checkpoint", set(wanted) - set(renamed) - own),
        ("unknown to the architecture", set(renamed) - set(wanted)),
    ):
        if names:
            shown = ", ".join(sorted(names)[:MAX_LISTED])
            more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
            faults.append(f"{len(names)} tensor(s) {kind}: {shown}{more}")
    if not own and "normalize.mean" in renamed and "normalize.std" in renamed:
        mean, std = renamed["normalize.mean"].tolist(), renamed["normalize.std"].tolist()
        faults.append(f"the model normalises its input: give the arguments mean={mean}, std={std}")
    shapes = [
        f"tensor `{name}`: expected shape {list(wanted[name].shape)}, "
        f"but found {list(renamed[name].shape)}"
        for name in sorted(set(wanted) & set(renamed))
        if wanted[name].shape != renamed[name].shape
    ]
    if len(shapes) > MAX_LISTED:
        shapes = [*shapes[:MAX_LISTED], f"{len(shapes) - MAX_LISTED} more shapes differ"]
    return faults + shapes
