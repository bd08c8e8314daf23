"""The command `import`: a checkpoint or an ONNX file to a submission folder."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import plain_console, say


@click.command(name="import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--architecture", help="See `corobench architectures`; not for an ONNX file.")
@click.option("--track", required=True, help="See `corobench tracks`.")
@click.option("--title", help="Title on the board; the folder's name by default.")
@click.option("--author", "authors", multiple=True, help="May be given more than once.")
@click.option("--licence", default="unknown", show_default=True, help="SPDX name.")
@click.option("--width", type=float, default=1.0, show_default=True, help="Width multiplier.")
@click.option(
    "--keep-ratio",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of each layer that HYDRA's popup scores keep, such as 0.1 for 10x.",
)
@click.option(
    "--min-keep-ratio",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Smallest share that HARP keeps of a layer. HARP uses a tenth of its --k: 0.001 for "
    "--k 0.01.",
)
@click.option(
    "--state-key",
    help='Which state dict to read from a checkpoint with several, such as "best" and "last".',
)
@cli_options.data_root
@click.option("--mean", help='Normalisation inside the model, such as "0.49,0.48,0.45".')
@click.option("--std", help="Standard deviation, with --mean.")
@cli_options.certifiers
@cli_options.process_limits
def import_(
    checkpoint: Path,
    out: Path,
    architecture: str | None,
    track: str,
    title: str | None,
    authors: tuple[str, ...],
    licence: str,
    width: float,
    keep_ratio: float | None,
    min_keep_ratio: float,
    state_key: str | None,
    data_root: Path | None,
    mean: str | None,
    std: str | None,
    certifiers: bool,
    limits: Limits | None,
) -> None:
    """Turn a checkpoint or an ONNX file into a submission.

    The new folder is checked against its source. Masks and scores of pruned checkpoints
    (torch.nn.utils.prune, masked layers, HYDRA, HARP) are applied. Pickled code is never run: the
    file is read with weights_only.

    \b
    Examples:
      corobench import model.pt --architecture resnet18 --track cifar10 --out submissions/my-model
      corobench import hydra.pth --architecture vgg16-bn --track cifar10 --keep-ratio 0.1 --out e
      corobench import model.onnx --track cifar10 --out submissions/my-net
    """
    from corobench.benchmark.errors import SubmissionError
    from corobench.benchmark.executors import run_import
    from corobench.benchmark.submission.kinds import is_onnx
    from corobench.benchmark.submission.strangers import stranger

    if fault := stranger(checkpoint):
        raise SubmissionError(checkpoint, [fault])
    if is_onnx(checkpoint):
        _refuse_for_graphs(click.get_current_context())
        done = run_import(
            checkpoint,
            out,
            limits,
            track=track,
            title=title,
            authors=authors,
            licence=licence,
            data_root=data_root,
        )
        say(str(done))
        _tell_certifiers(out, limits, certifiers)
        return
    if architecture is None:
        raise ConfigError(no_architecture(checkpoint))

    arguments: dict[str, object] = {} if width == 1.0 else {"width": width}
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            arguments[name] = _numbers(f"--{name}", text)
    report = run_import(
        checkpoint,
        out,
        limits,
        architecture=architecture,
        track=track,
        arguments=arguments,
        title=title,
        authors=authors,
        licence=licence,
        keep_ratio=keep_ratio,
        min_keep_ratio=min_keep_ratio,
        state_key=state_key,
        data_root=data_root,
    )
    plain_console().print(str(report), soft_wrap=True, highlight=False, markup=False)
    _tell_certifiers(out, limits, certifiers)


#: Options about weights by name -> why an ONNX file has no use for them.
_NOT_FOR_GRAPHS = {
    "architecture": "which holds its network; leave it out",
    "width": "which holds its network; leave it out",
    "mean": "which holds its network: export the model with the normalisation inside",
    "std": "which holds its network: export the model with the normalisation inside",
    "keep_ratio": "whose weights are used as they are: apply the scores before the export",
    "min_keep_ratio": "whose weights are used as they are: apply the scores before the export",
    "state_key": "which holds one network; leave it out",
}


def _refuse_for_graphs(context: click.Context) -> None:
    """Options that would be ignored with an ONNX file are refused."""
    for name, reason in _NOT_FOR_GRAPHS.items():
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option}: not for an ONNX file, {reason}")


def no_architecture(checkpoint: Path) -> str:
    """What to do with weights of which nobody said what network they belong to."""
    return (
        f"{checkpoint}: weights alone are no network; which one do they belong to?\n"
        "  - A network that `corobench architectures` lists: add --architecture NAME.\n"
        "  - Your own network? Export it to ONNX, and import that file without --architecture:\n"
        '      torch.onnx.export(model.eval(), (images,), "model.onnx", external_data=False,\n'
        "                        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))\n"
        '    or, in Python: corobench.export(model, "submissions/my-model", track="cifar10")'
    )


def _tell_certifiers(folder: Path, limits: Limits | None, is_wanted: bool) -> None:
    """Which certifiers an evaluation will ask, and why not the others."""
    from corobench.benchmark.executors import run_certifiers

    for line in run_certifiers(folder, limits) if is_wanted else ():
        if not line.startswith("note: "):  # the report has them
            say(f"  {line}")


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"{option} {text!r}: expected numbers such as 0.49,0.48,0.45, one per channel"
        ) from error
