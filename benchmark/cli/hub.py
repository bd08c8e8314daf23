"""Command that prepares a folder for a model hub: `corobench hub`."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import say

MAX_WEIGHTS_BYTES = 4 * 1024**3
_MANIFEST = "submission.toml"


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The new folder; must not exist."
)
@click.option(
    "--dataset", required=True, metavar="OWNER/NAME", help="Id of the benchmark's data on the hub."
)
@click.option("--source", default="", metavar="URL", help="Where the result can be looked at.")
@click.option(
    "--submission",
    type=click.Path(path_type=Path),
    help="Folder of the entry; submissions/<entry> by default.",
)
@cli_options.process_limits
def hub(
    result: Path,
    out: Path,
    dataset: str,
    source: str,
    submission: Path | None,
    limits: Limits | None,
) -> None:
    """Write an entry as a folder that model hubs read.

    The folder gets the weights as plain safetensors (or ONNX), the manifest, RESULT, a model card,
    and the figures as .eval_results/corobench.yaml. The weights must be those that were evaluated.
    Nothing is sent anywhere. The folder is still a submission.

    \b
    Examples:
      corobench hub leaderboard/results/1.0/digits/digits-ibp-dense.json \\
        --dataset my-name/corobench --out upload
    """
    from corobench.benchmark.errors import ConfigError, ResultError
    from corobench.benchmark.executors import run_measure, run_repacking
    from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
    from corobench.benchmark.records.reading.result_file import read_result
    from corobench.benchmark.scoring import hub as texts
    from corobench.benchmark.scoring.ranking import why_unpublished

    refuse_existing(out)
    found = read_result(result)
    faults = why_unpublished(found)
    if faults:
        raise ResultError("\n".join([f"{result}: cannot be published", *faults]))
    figures = texts.eval_results(found, dataset, source)
    folder = submission or Path("submissions") / found.entry
    if not (folder / _MANIFEST).is_file():
        raise ConfigError(f"{folder}: expected the entry's folder; name it with --submission")
    with fresh_folder(out) as made:
        _copy(folder, made)
        measured = run_measure(made, limits, latency=False)
        if measured.weights_sha256 != found.weights_sha256:
            raise ResultError(
                f"{folder}: expected the weights {found.weights_sha256[:12]} of {result}, but "
                f"found {measured.weights_sha256[:12]}; name the folder that was evaluated"
            )
        if any(made.glob("*.packed.safetensors")):
            run_repacking(made, limits, to_packed=False, out=None)
        (made / texts.RESULTS_PATH).parent.mkdir()
        (made / texts.RESULTS_PATH).write_bytes(figures)
        (made / texts.CARD_PATH).write_bytes(texts.model_card(found))
        (made / f"{found.entry}.json").write_bytes(result.read_bytes())
    say(str(out))


def _copy(folder: Path, made: Path) -> None:
    """The manifest and the weights; plain files only, no links."""
    from corobench.benchmark.submission.files import read_plain_file

    weights = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name.endswith((".safetensors", ".onnx"))
    ]
    for name in (_MANIFEST, *weights):
        (made / name).write_bytes(read_plain_file(folder, name, MAX_WEIGHTS_BYTES))
