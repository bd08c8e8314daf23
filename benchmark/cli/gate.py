"""Commands of continuous integration: the gate ``check``, and ``intake`` of a new entry."""

from __future__ import annotations

import os
from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ContradictionError
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import plain_console, say
from corobench.benchmark.review.verification.chance import HIDDEN_RATE, MISS_RATE


@click.command()
@click.argument("candidate", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--baseline",
    required=True,
    type=click.Path(path_type=Path),
    help="Result file, with its outcome table beside it.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Percentage points that a metric may truly lose.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Largest chance of a failure if no metric truly lost more.",
)
@click.option(
    "--max-bytes-growth",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Percent that the packed weights may grow.",
)
@click.option(
    "--whole", is_flag=True, help="Evaluate all images, even if the verdict is clear before."
)
@cli_options.json_path
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@cli_options.device
@cli_options.data_root
@cli_options.process_limits
def check(
    candidate: Path,
    baseline: Path,
    max_drop: float,
    alpha: float,
    max_bytes_growth: float,
    whole: bool,
    json_path: Path | None,
    junit: Path | None,
    device: str,
    data_root: Path | None,
    limits: Limits | None,
) -> None:
    """Is CANDIDATE worse or larger than its baseline?

    Compares accuracy, robustness and bytes. CANDIDATE is a submission folder, an ONNX file or a
    result file. A folder or an ONNX file is evaluated in a process of its own, on the images of the
    baseline, until the verdict is clear. In a GitHub workflow the findings become annotations and a
    job summary.

    \b
    Exit codes:
      0  pass, perhaps with a warning
      1  fail: a true loss beyond --max-drop is proven, or too many bytes
      2  something you can fix
      3  a contradiction: a certified image of the candidate was broken

    \b
    Examples:
      corobench check model --baseline robustness/model.json
      corobench check model --baseline robustness/model.json --max-drop 2 --junit gate.xml
      corobench check model.onnx --baseline robustness/model.json
      corobench check new.json --baseline old.json --max-bytes-growth 5
    """
    from corobench.benchmark.executors import run_check
    from corobench.benchmark.files.atomic import write_atomic
    from corobench.benchmark.gate import report
    from corobench.benchmark.gate.rule import Rule, Verdict

    rule = Rule(max_drop=max_drop, alpha=alpha, max_bytes_growth=max_bytes_growth)
    checked = run_check(
        candidate, baseline, rule, limits, device=device, data_root=data_root, whole=whole
    )
    plain_console().print(report.terminal_table(checked))
    if json_path is not None:
        write_atomic(json_path, report.as_json(checked).encode())
    if junit is not None:
        write_atomic(junit, report.as_junit(checked).encode())
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in report.workflow_commands(checked):
            say(line)
        _add_to_job_summary(report.markdown(checked))
    if checked.verdict == Verdict.FAIL:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--base",
    help="Git revision that the pull request starts from. Changed files outside the entry are "
    "faults.",
)
@click.option(
    "--changed",
    "listed",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the changed paths, one per line, if the pull request is not checked out.",
)
@click.option(
    "--entries",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the existing entries; the parent of FOLDER by default.",
)
@click.option("--full", is_flag=True, help="Evaluate the standard subset instead of the quick one.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("leaderboard/results"),
    show_default=True,
    help="Results of the board. A handed-in result lies there as well and is compared.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build/intake"),
    show_default=True,
    help="Folder for the result that is measured here and for the report.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of what is attacked, to repeat an intake; random by default.",
)
@click.option(
    "--hidden-rate",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=HIDDEN_RATE,
    show_default=True,
    help="Share of a result's images that a forger hides.",
)
@click.option(
    "--miss-rate",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=MISS_RATE,
    show_default=True,
    help="Largest chance to attack none of the hidden images. The two shares decide how many "
    "images are attacked.",
)
@cli_options.device
@cli_options.data_root
@cli_options.process_limits
def intake(
    folder: Path,
    base: str | None,
    listed: Path | None,
    entries: Path | None,
    full: bool,
    results: Path,
    out: Path,
    seed: int | None,
    hidden_rate: float,
    miss_rate: float,
    device: str,
    data_root: Path | None,
    limits: Limits | None,
) -> None:
    """Check the new entry in FOLDER as a pull request does.

    Either refuses it with all reasons, or evaluates it and shows its place on the board. Reasons
    are: faults of the folder, a missing licence, a key that says "unknown", the id or the weights
    of another entry, changed files outside the entry, and a handed-in result that is not
    confirmed. Every prediction, certificate and stored adversarial image of that result is measured
    again. Of the images that it calls neither broken nor certified, a random part is attacked. The
    part is so large that a forger who hides --hidden-rate of all images is missed with a chance of
    at most --miss-rate.

    \b
    Exit codes:
      0  the entry is accepted
      2  refused, with every reason: file, images, column, both values
      3  a contradiction: a certified image was broken

    \b
    Examples:
      corobench intake submissions/my-model
      corobench intake submissions/my-model --base origin/main --full
      corobench intake submissions/my-model --entries ../base/submissions
      corobench intake submissions/my-model --miss-rate 0.01 --seed 4711
    """
    from corobench.benchmark.cli import intake as taking
    from corobench.benchmark.files.atomic import write_atomic
    from corobench.benchmark.scoring.terminal import scorecard

    place = (entries or folder.parent).resolve()
    others = sorted(path.parent for path in place.glob("*/submission.toml"))
    changed = taking.changed_files(base, Path()) if base else []
    changed += listed.read_text(encoding="utf-8").splitlines() if listed else []
    found = taking.take_in(
        folder,
        others=others,
        results=results,
        out=out,
        full=full,
        changed=changed,
        device=device,
        data_root=data_root,
        limits=limits,
        seed=seed,
        hidden_rate=hidden_rate,
        miss_rate=miss_rate,
    )
    report = out / f"{found.evaluated.result.entry}.intake.json"
    write_atomic(report, taking.as_json(found).encode())
    plain_console().print(scorecard(found.evaluated.result))
    text = taking.markdown(found)
    say(text)
    _add_to_job_summary(text)
    contradictions = [*found.evaluated.result.audit.contradictions]
    contradictions += [line for one in found.verified for line in one.contradictions]
    if contradictions:
        raise ContradictionError(f"{folder}: " + "\n".join(contradictions))


def _add_to_job_summary(text: str) -> None:
    """Append to the summary of a GitHub job, where there is one."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(text)
