"""Commands on results that are there: score, recheck, contest, pictures."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import (
    ContradictionError,
    CorobenchError,
    OutputError,
    ResultError,
)
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import plain_console, say
from corobench.benchmark.records.curve import curve_path

_submission = click.option(
    "--submission",
    type=click.Path(path_type=Path),
    help="Folder of the entry; submissions/<entry> by default.",
)


@click.command()
@click.argument("outcomes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Also write the result file beside each outcome table.")
def score(outcomes: tuple[Path, ...], write: bool) -> None:
    """Recompute scorecards from outcome tables.

    Needs no model, no data and no torch.

    \b
    Examples:
      corobench score results/1.1/digits/my-model.outcomes.parquet
      corobench score results/1.1/digits/*.outcomes.parquet --write
    """
    from corobench.benchmark.files.atomic import write_atomic
    from corobench.benchmark.records.encoding import encode_result
    from corobench.benchmark.records.reading.places import misplaced
    from corobench.benchmark.scoring import result_writing, rounds
    from corobench.benchmark.scoring.scored import scored
    from corobench.benchmark.scoring.terminal import scorecard

    for path in outcomes:
        if path.is_dir():
            raise ResultError(
                f"{path}: expected an outcome table (*.outcomes.parquet), but found a folder; "
                "name the tables in it"
            )
        target = path.with_name(path.name.removesuffix(".outcomes.parquet") + ".json")
        if write:
            rounds.require_open(target.parent)
            result_writing.finish_set(target)
        result = scored(path)
        faults = misplaced(target, result)
        if faults:
            raise ResultError(f"{path}: does not hold the result that its path names: {faults[0]}")
        plain_console().print(scorecard(result))
        if write:
            write_atomic(target, encode_result(result))
            say(str(target))
        elif target.exists() and target.read_bytes() != encode_result(result):
            raise OutputError(
                f"{target}: differs from the scorecard of its outcome table; "
                "use --write to replace it"
            )


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@_submission
@cli_options.data_root
@click.option(
    "--proofs/--no-proofs",
    default=True,
    show_default=True,
    help="Also check every certificate; searches take about as long as in the evaluation.",
)
@click.option("--curve", is_flag=True, help="Also measure its security curve again.")
@cli_options.process_limits
def recheck(
    result: Path,
    submission: Path | None,
    data_root: Path | None,
    proofs: bool,
    curve: bool,
    limits: Limits | None,
) -> None:
    """Measure both ends of a result's bracket again.

    Uses the submitted model. Every image is classified again. Every stored adversarial image must
    lie in its ball and fool the model. From protocol 1.1 on, every certificate is checked again.

    \b
    Examples:
      corobench recheck leaderboard/results/1.0/digits/digits-adv-dense.json
      corobench recheck results/1.1/digits/my-model.json --submission submissions/my-model
      corobench recheck results/1.1/digits/my-model.json --no-proofs --curve
    """
    from corobench.benchmark.executors.looking_again import run_recheck

    folder = submission or cli_options.folder_of_entry(result, "--submission")
    found = run_recheck(result, folder, limits, data_root=data_root, proofs=proofs, curve=curve)
    if found.moved:
        raise ResultError(
            f"{result}: {len(found.moved)} predictions are not confirmed:\n"
            + "\n".join(found.moved[:20])
        )
    if found.unproven:
        raise ResultError(
            f"{result}: {len(found.unproven)} of {found.num_proofs} certificates are not "
            "confirmed:\n" + "\n".join(found.unproven[:20])
        )
    if found.failures:
        raise ResultError(
            f"{result}: {len(found.failures)} of {found.num_rows} attacked rows are not "
            "confirmed:\n" + "\n".join(found.failures[:20])
        )
    say(
        f"{result}: all {found.num_rows} attacked rows are confirmed: each of {found.num_images} "
        "images lies in its ball and fools the model"
    )
    if found.num_proofs is not None:
        say(f"{result}: all {found.num_proofs} certificates are confirmed by the checker")
    elif proofs:
        say(f"{result}: its certificates follow older rules and are not checked")
    if curve and found.curve is None:
        say(f"{result}: has no security curve; `corobench evaluate --curve` measures one")
    elif found.curve:
        raise ResultError(
            f"{curve_path(result)}: is not confirmed:\n" + "\n".join(found.curve[:20])
        )
    elif curve:
        say(f"{curve_path(result)}: is confirmed at each radius")


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("adversarial", type=click.Path(path_type=Path), required=False)
@click.option(
    "--proof",
    type=click.Path(path_type=Path),
    help="Instead of images: verdicts of a verifier on the files of `export-vnnlib`.",
)
@_submission
@cli_options.data_root
@click.option("--by", default="", help="Who found the images; written to the result.")
@click.option("--write", is_flag=True, help="Tighten the result file and the files beside it.")
@cli_options.process_limits
def contest(
    result: Path,
    adversarial: Path | None,
    proof: Path | None,
    submission: Path | None,
    data_root: Path | None,
    by: str,
    write: bool,
    limits: Limits | None,
) -> None:
    """Break a row: judge adversarial images from anybody.

    Confirmed images tighten the upper end of the result. ADVERSARIAL is an npz file with `images`,
    float32 (m, C, H, W) in [0, 1], and `indices`, the index of each image in the test set. An image
    counts if it lies in the ball at zero tolerance and fools the submitted model at batch size 1.
    A broken certified image freezes the entry.

    With --proof a CSV file is read, each line the name of a file of `corobench export-vnnlib` and
    unsat, sat, unknown, timeout or error. It is shown what that would say of the lower end. Nothing
    is written: a verdict cannot be checked, an image can.

    \b
    Examples:
      corobench contest results/1.1/digits/my-model.json found.npz
      corobench contest results/1.1/digits/my-model.json --proof verdicts.csv
      corobench contest results/1.1/digits/my-model.json found.npz --by "A. Rival" --write
    """
    from corobench.benchmark.cli.external import show_proofs
    from corobench.benchmark.executors.looking_again import run_contest
    from corobench.benchmark.scoring.ranking import bracket

    if (adversarial is None) == (proof is None):
        raise click.UsageError("expected either images (ADVERSARIAL) or verdicts (--proof)")
    if adversarial is None:
        assert proof is not None
        if write or by:
            raise click.UsageError("--proof writes nothing: leave --write and --by out")
        show_proofs(result, proof)
        return
    folder = submission or cli_options.folder_of_entry(result, "--submission")
    found = run_contest(
        result, adversarial, folder, limits, data_root=data_root, by=by, write=write
    )
    for line in found.rejected[:20]:
        say(f"  - {line}")
    if len(found.rejected) > 20:
        say(f"  - and {len(found.rejected) - 20} more")
    if not found.num_confirmed:
        raise ResultError(f"{adversarial}: none of {found.num_images} images is confirmed")
    say(f"{found.num_confirmed} of {found.num_images} images are confirmed")
    n = found.after.n
    for epsilon, num in found.broken.items():
        before = bracket(found.before.epsilons[epsilon]).high
        after = bracket(found.after.epsilons[epsilon]).high
        say(
            f"{epsilon}: {num} more rows broken; upper end {100 * before / n:.1f} % before, "
            f"{100 * after / n:.1f} % now"
        )
    if write and any(found.broken.values()):
        say(f"{result}: written")
    elif any(found.broken.values()):
        say("nothing was written; add --write")
    new = found.after.audit.contradictions[len(found.before.audit.contradictions) :]
    if new:
        raise ContradictionError(
            "certified images were broken, so a certifier is wrong. The entry is frozen and will "
            "not be ranked:\n" + "\n".join(new)
        )


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@cli_options.data_root
@click.option(
    "--submissions",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the entries: also name the class that each adversarial image is taken for.",
)
@cli_options.process_limits
def pictures(
    results: Path, data_root: Path | None, submissions: Path | None, limits: Limits | None
) -> None:
    """Store what the galleries of the page show beside RESULTS.

    The first clean images: `evaluate` stores them itself; this command is for older results. With
    --submissions also the class that each stored adversarial image is taken for, in a folder of its
    own; the results stay as they are. Entries without a folder there are left out.

    \b
    Examples:
      corobench pictures leaderboard/results
      corobench pictures leaderboard/results --submissions submissions
    """
    from corobench.benchmark.data.clean_images import add_clean_images

    for path in add_clean_images(results, data_root):
        say(str(path))
    if submissions is not None:
        _name_classes(results, submissions, data_root, limits)


def _name_classes(
    results: Path, submissions: Path, data_root: Path | None, limits: Limits | None
) -> None:
    """Name the classes of every result whose entry is at hand; all others are done before an error.

    Raises:
        ResultError: the faults of those that could not be done.
    """
    from corobench.benchmark.executors.taken import run_taken
    from corobench.benchmark.records.reading.result_file import read_result
    from corobench.benchmark.tracks import TRACKS

    faults, num_absent = [], 0
    for path in sorted(results.glob("*/*/*.json")):
        if path.parent.name not in TRACKS:
            continue
        folder = submissions / read_result(path).entry
        if not folder.is_dir():
            num_absent += 1
            continue
        try:
            say(str(run_taken(path, folder, limits, data_root=data_root)))
        except CorobenchError as error:
            faults.append(error.message)
    if num_absent:
        say(f"left out, without a folder in {submissions}: {num_absent}")
    if faults:
        raise ResultError("\n".join(faults))
