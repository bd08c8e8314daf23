"""The command `new`: a submission folder by flags, or by questions on a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import say

ONNX = "onnx"


@click.command()
@click.argument("name")
@click.option("--track", help="See `corobench tracks`.")
@click.option("--architecture", help="See `corobench architectures`, or `onnx`.")
@click.option("--width", type=float, help="Width multiplier of the architecture; 1.0 by default.")
@click.option("--title", help="Title on the board.")
@click.option("--author", "authors", multiple=True, help="May be given more than once.")
@click.option("--licence", help="SPDX name, such as MIT.")
@click.option("--method", help='Short name of the method, such as "LWM 10x".')
@click.option("--from", "checkpoint", type=click.Path(path_type=Path), help="Import these weights.")
@click.option("--keep-ratio", type=click.FloatRange(0, 1, min_open=True), help="As for `import`.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path("submissions"),
    show_default=True,
    help="Parent of the new folder.",
)
@click.option(
    "--ask/--no-ask", default=None, help="Ask for missing values; the default on a terminal."
)
@cli_options.process_limits
def new(
    name: str,
    track: str | None,
    architecture: str | None,
    width: float | None,
    title: str | None,
    authors: tuple[str, ...],
    licence: str | None,
    method: str | None,
    checkpoint: Path | None,
    keep_ratio: float | None,
    root: Path,
    ask: bool | None,
    limits: Limits | None,
) -> None:
    """Make a submission folder, by flags or questions.

    Lists the next steps.

    \b
    Examples:
      corobench new my-model
      corobench new my-model --track digits --architecture cnn-small --author Ada --licence MIT
      corobench new my-model --track cifar10 --architecture resnet18 --from model.pt --no-ask
      corobench new my-net --track cifar10 --from model.onnx --no-ask
    """
    from corobench.benchmark.cli.starting import start
    from corobench.benchmark.submission.architectures import ARCHITECTURES
    from corobench.benchmark.submission.kinds import is_onnx
    from corobench.benchmark.tracks import TRACKS

    if Path(name).name != name:
        raise ConfigError(
            f"{name!r}: expected a name, not a path; --root names the folder to make it in"
        )
    if checkpoint is not None and is_onnx(checkpoint):
        architecture = architecture or ONNX
    asks = sys.stdin.isatty() if ask is None else ask

    def answer(value: Any, question: str, default: Any, choices: list[str] | None = None) -> Any:
        if value or not asks:
            return value or default
        kind = click.Choice(choices) if choices else None
        return click.prompt(question, default=default, type=kind)

    track = answer(track, "Track", "digits", list(TRACKS))
    architecture = answer(
        architecture, "Architecture (or onnx)", "cnn-small", [*ARCHITECTURES, ONNX]
    )
    title = answer(title, "Title on the board", name)
    if not authors:
        author = answer(None, "Author (more with --author)", "unknown")
        authors = (author,)
    licence = answer(licence, "Licence of the weights", "unknown")
    method = answer(method, "Method in a few words", name)
    if checkpoint is None and asks:
        given = click.prompt("File to import (empty for none)", default="", show_default=False)
        checkpoint = Path(given) if given else None
    started = start(
        root / name,
        track=track,
        architecture=None if architecture == ONNX else architecture,
        title=title,
        authors=authors,
        licence=licence,
        method=method,
        checkpoint=checkpoint,
        arguments={} if width in (None, 1.0) else {"width": width},
        keep_ratio=keep_ratio,
        limits=limits,
    )
    say(str(started))
