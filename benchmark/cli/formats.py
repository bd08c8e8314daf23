"""Commands on the files of a submission: pack, unpack, convert, compact."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import say

_path = click.argument("path", type=click.Path(path_type=Path))
_out = click.option("--out", type=click.Path(path_type=Path), help="New file.")


@click.command()
@_path
@_out
@cli_options.process_limits
def pack(path: Path, out: Path | None, limits: Limits | None) -> None:
    """Store weights as a bitmask and non-zero values, lossless.

    Checked bit by bit. PATH is a submission folder or a safetensors file. In a folder,
    `model.packed.safetensors` replaces `model.safetensors`. A file is kept.

    \b
    Examples:
      corobench pack submissions/my-model
      corobench pack model.safetensors --out small.packed.safetensors
    """
    from corobench.benchmark.executors import run_repacking

    say(str(run_repacking(path, limits, to_packed=True, out=out)))


@click.command()
@_path
@_out
@cli_options.process_limits
def unpack(path: Path, out: Path | None, limits: Limits | None) -> None:
    """Turn packed weights back into plain safetensors.

    Checked bit by bit.

    \b
    Examples:
      corobench unpack submissions/my-model
      corobench unpack small.packed.safetensors --out model.safetensors
    """
    from corobench.benchmark.executors import run_repacking

    say(str(run_repacking(path, limits, to_packed=False, out=out)))


@click.command()
@_path
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--architecture", help="From ONNX to weights of this architecture.")
@click.option("--width", type=float, default=1.0, show_default=True, help="Width multiplier.")
@click.option("--int8", is_flag=True, help="To int8 weights and uint8 activations, in ONNX (QDQ).")
@click.option("--bf16", is_flag=True, help="To weights of half the bytes, computed in float32.")
@cli_options.data_root
@cli_options.process_limits
def convert(
    path: Path,
    out: Path,
    architecture: str | None,
    width: float,
    int8: bool,
    bf16: bool,
    data_root: Path | None,
    limits: Limits | None,
) -> None:
    """Write a submission in another format: ONNX, int8, bf16.

    The two are compared on real images. Without --architecture, safetensors become ONNX. With it,
    ONNX becomes safetensors, if its layers are those of the architecture.

    With --int8, a chain of layers becomes an entry of its own in 8-bit integers. It gives the same
    bits in every engine (RULES.md, "Quantised files"). The ranges of its activations are measured
    on training images, which must be on this machine. No test image is read.

    With --bf16, the weights of a named architecture are rounded to bfloat16 and stored as such, in
    an entry of its own that computes in float32. Evaluate it by itself, for its logits differ.

    \b
    Examples:
      corobench convert submissions/my-model --out /tmp/my-model-onnx
      corobench convert /tmp/my-model-onnx --architecture cnn-small --out /tmp/my-model
      corobench convert submissions/my-model --int8 --out submissions/my-model-int8
      corobench convert submissions/my-model --bf16 --out submissions/my-model-bf16
    """
    from corobench.benchmark.executors import run_conversion

    if int8 + bf16 + (architecture is not None) > 1:
        raise click.UsageError("--int8, --bf16 and --architecture: expected only one of them")
    if int8 or bf16:
        done = run_conversion("int8" if int8 else "bf16", path, out, limits, data_root=data_root)
    elif architecture is None:
        done = run_conversion("onnx", path, out, limits, data_root=data_root)
    else:
        done = run_conversion(
            "safetensors",
            path,
            out,
            limits,
            architecture=architecture,
            arguments={} if width == 1.0 else {"width": width},
            data_root=data_root,
        )
    say(str(done))


@click.command()
@_path
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@cli_options.data_root
@cli_options.process_limits
def compact(path: Path, out: Path, data_root: Path | None, limits: Limits | None) -> None:
    """Write a smaller dense network of the same function.

    Batch-norm is folded, and channels that are constant or never read are removed. The new folder
    holds ONNX. Its logits are compared with those of the source on real images.

    \b
    Example:
      corobench compact submissions/digits-ibp-lwm-10x --out /tmp/digits-ibp-lwm-10x-compact
    """
    from corobench.benchmark.executors import run_conversion

    say(str(run_conversion("compact", path, out, limits, data_root=data_root)))
