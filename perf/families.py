"""Families of networks, as exporters write them: accepted, certifiers, logits against onnxruntime.

    python perf/families.py [--files FOLDER] [--only TEXT] [--markdown]

Small networks with random weights for digits (1x8x8) are made here: by torch's two exporters, and
by hand where exporters write otherwise. FOLDER may hold further ONNX files, such as those of
VNN-COMP's benchmarks of 2021 to 2023 (docs/families.md says which): a file is read for the track
whose images it takes.
Columns: the certifiers that an evaluation would ask, and the largest difference of a logit from
onnxruntime, per unit of max(1, largest |logit|); or the rule that refuses it, with the way out.
Last line: networks, accepted ones, ones that some certifier is asked about, the largest difference.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from families_by_hand import by_hand
from families_of_torch import NETWORKS
from torch import nn

from corobench.benchmark.evaluation.prepared import prepare_certifiers
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.tracks import TRACKS, Protocol

DIGITS = (1, 8, 8)
NUM_IMAGES = 4
EXPORTERS: Mapping[str, bool] = {"torch.export": True, "TorchScript": False}
BY_BOTH = ("conv-relu-linear", "silu", "group-norm", "softplus", "channel shuffle")
"""Networks that both exporters write; the others come from the faster one."""
SHORT = {"CROWN-IBP": "C-IBP", "alpha-CROWN": "alpha"}


@dataclass(frozen=True)
class Found:
    """One line of the table.

    Attributes:
        name: of the network.
        origin: who wrote the file.
        difference: of a logit; None where the file is refused.
        certifiers: that would be asked.
        reason: why it is refused, or why a certifier is not asked; "" where all are.
    """

    name: str
    origin: str
    difference: float | None
    certifiers: tuple[str, ...]
    reason: str


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=Path)
    options.add_argument("--only", default="")
    options.add_argument("--markdown", action="store_true")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    found = []
    if chosen.markdown:
        print(
            "| network | written by | logits differ by | certifiers | what stops, and the way out |"
        )
        print("|---|---|---|---|---|")
    for name, origin, content in _files(chosen.files):
        if chosen.only not in name:
            continue
        one = _look(name, origin, content)
        found.append(one)
        print(_line(one, chosen.markdown), flush=True)
    accepted = [one for one in found if one.difference is not None]
    print(
        f"{len(found)} networks, {len(accepted)} accepted, "
        f"{sum(bool(one.certifiers) for one in found)} with a certifier, "
        f"difference {max((one.difference or 0.0 for one in accepted), default=0.0):.1e}"
    )


def _files(folder: Path | None) -> Iterator[tuple[str, str, bytes | str]]:
    """Name, origin and bytes of each file; text instead of bytes is why an exporter failed."""
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        net = make().eval()
        for origin, is_new in EXPORTERS.items():
            if not is_new or name in BY_BOTH:
                yield name, origin, _exported(net, is_new)
    for name, content in by_hand().items():
        yield name, "by hand", content
    for path in sorted(folder.glob("*.onnx")) if folder else ():
        yield path.stem, "VNN-COMP", path.read_bytes()


def _exported(net: nn.Module, is_new: bool) -> bytes | str:
    target = io.BytesIO()
    more: dict[str, object] = {"dynamo": False, "dynamic_axes": {"x": {0: "n"}}}
    if is_new:
        more = {
            "dynamo": True,
            "dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},),
            "external_data": False,
        }
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (torch.rand(2, *DIGITS),),
                target,
                input_names=["x"],
                **more,  # type: ignore[arg-type]
            )
    except Exception as error:  # an exporter raises anything
        return f"the exporter fails ({type(error).__name__})"
    return target.getvalue()


def _look(name: str, origin: str, content: bytes | str) -> Found:
    """What becomes of one file."""
    if isinstance(content, str):
        return Found(name, origin, None, (), content)
    reason = ""
    for shape, num_classes in {(t.shape, t.num_classes): None for t in _tracks()}:
        try:
            graph = read_network(content, shape)
        except GraphFaultError as error:
            reason = str(error) if error.rule != "onnx-input" or not reason else reason
            continue
        if graph.image_shape != shape or graph.output_shape != (num_classes,):
            reason = (
                f"onnx-output: images {list(graph.image_shape)} and outputs "
                f"{list(graph.output_shape)} are those of no track"
            )
            continue
        x = torch.rand(NUM_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
        try:
            expected = Runtime(content, graph.batch, layout=graph.layout)(x)
        except RuntimeError as error:
            return Found(name, origin, None, (), str(error)[:120])
        logits = graph.network(x)
        scale = max(1.0, float(expected.abs().max()))
        difference = float((logits - expected).abs().max()) / scale
        protocol = Protocol()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            _, not_asked = prepare_certifiers(
                graph.network, None, shape, num_classes, protocol, torch.device("cpu")
            )
        asked = tuple(one for one in protocol.all_certifiers if one not in not_asked)
        why = next(iter(not_asked.values()), "")
        return Found(name, origin, difference, asked, why)
    return Found(name, origin, None, (), reason)


def _tracks() -> list:
    names = ("digits", "fashion-mnist", "cifar10")
    return [TRACKS[name] for name in names]


def _line(one: Found, is_markdown: bool) -> str:
    difference = "refused" if one.difference is None else f"{one.difference:.0e}"
    asked = ", ".join(SHORT.get(name, name) for name in one.certifiers)
    asked = asked or ("none" if one.difference is not None else "–")
    cells = (one.name, one.origin, difference, asked, one.reason.replace("|", "/"))
    if is_markdown:
        return f"| {' | '.join(cells)} |"
    return f"{one.name:40s} {one.origin:14s} {difference:8s} {asked}  {one.reason}"


if __name__ == "__main__":
    main()
