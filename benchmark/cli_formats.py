"""Commands on the files of a submission: pack, unpack."""

from __future__ import annotations

from pathlib import Path

import click

_path = click.argument("path", type=click.Path(path_type=Path))
_out = click.option("--out", type=click.Path(path_type=Path), help="New file.")


@click.command()
@_path
@_out
def pack(path: Path, out: Path | None) -> None:
    """Store weights as a bitmask and the values it keeps; lossless, and checked bit by bit.

    PATH is a submission folder, which then holds `model.packed.safetensors` instead of
    `model.safetensors`, or a safetensors file, which stays.

    \b
    Examples:
      corobench pack submissions/my-model
      corobench pack model.safetensors --out small.packed.safetensors
    """
    from benchmark.submission.packing import repack

    click.echo(str(repack(path, to_packed=True, out=out)))


@click.command()
@_path
@_out
def unpack(path: Path, out: Path | None) -> None:
    """Turn packed weights into a plain safetensors file again, checked bit by bit.

    \b
    Examples:
      corobench unpack submissions/my-model
      corobench unpack small.packed.safetensors --out model.safetensors
    """
    from benchmark.submission.packing import repack

    click.echo(str(repack(path, to_packed=False, out=out)))
