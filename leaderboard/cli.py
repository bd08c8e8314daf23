"""``corobench render``: result files -> the static leaderboard."""

from __future__ import annotations

import functools
from pathlib import Path

import click
from rich import box
from rich.table import Table
from rich.text import Text

from corobench.benchmark.errors import OutputError
from corobench.benchmark.files.browser import open_page
from corobench.benchmark.files.console import plain_console, say
from corobench.leaderboard.build import SiteSummary, build_site
from corobench.leaderboard.format import short_bytes
from corobench.leaderboard.terminal import terminal_table

_EPILOG = """\b
Examples:
  corobench render leaderboard/results --out build/site
  corobench render leaderboard/results/1.0/digits/lwm-10x.json --out build/site
  corobench render leaderboard/results build/my-results --out build/site
  corobench render /tmp/quick --quick --out build/look
  corobench render leaderboard/results --watch
  corobench render leaderboard/results --open
  corobench render leaderboard/results --address https://example.org/board/

\b
Exit codes:
  0  the site was written
  2  a result file is damaged, missing or quick, or OUT cannot be written
"""


@click.command(name="report")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Markdown file to write; by default the report is printed.",
)
def report(results: tuple[Path, ...], out: Path | None) -> None:
    """Write the reproduction report from RESULTS.

    It compares what pruning keeps with the figures of the paper. RESULTS are result files, or
    folders that are searched for them, with the outcome tables beside them. The same results give
    the same bytes. Quick results are an error.

    \b
    Examples:
      corobench report leaderboard/results
      corobench report leaderboard/results --out docs/reproduction.md
    """
    from corobench.leaderboard.reproduction import report as write

    text = write(results)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    say(str(out))


@click.command(name="render", epilog=_EPILOG)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    default=Path("build/site"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the site. Files that corobench did not write are kept.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Also show quick results and those of other settings: for yourself, not to publish.",
)
@click.option(
    "--address",
    default="",
    metavar="URL",
    help="Where the site will be published; the links of the feed start with it.",
)
@click.option(
    "--repository",
    default="",
    metavar="URL",
    help="Where the files of the project are; links of the rendered documents lead there.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@click.option("--watch", is_flag=True, help="Render again whenever a result changes.")
def render(
    results: tuple[Path, ...],
    out: Path,
    quick: bool,
    address: str,
    repository: str,
    opens: bool,
    watch: bool,
) -> None:
    """Render the leaderboard from RESULTS; needs no server.

    RESULTS are result files, or folders that are searched for <protocol>/<track>/<entry>.json.
    The same results give the same bytes. Results on mirror data and results of different n have
    tables of their own and are never ranked with others. Quick results, and results of other
    settings than those of the protocol, are an error. With --quick they are shown in tables of
    their own, unranked, and every page says that the site is not to be published.
    """
    console = plain_console()
    build = functools.partial(build_site, results, out, address, repository, with_quick=quick)
    with plain_console(stderr=True).status("rendering the leaderboard"):
        summary = build()
    console.print(terminal_table(summary.results))
    console.print(summary_table(summary))
    if summary.ignored:
        console.print(
            f"{len(summary.ignored)} other JSON files were not read, "
            f"the first is {summary.ignored[0].path}: {summary.ignored[0].reason}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{len(summary.results)} results, {summary.num_files} files, "
        f"{short_bytes(summary.num_bytes)}; open",
        highlight=False,
    )
    console.print(str(summary.index), markup=False, highlight=False, soft_wrap=True)
    if summary.is_private:
        console.print("For yourself only: a site with quick results is not to be published.")
    if opens:
        console.print(open_page(summary.index), markup=False, highlight=False, soft_wrap=True)
    if watch:
        from corobench.leaderboard import cli_serve

        cli_serve.watch(results, functools.partial(cli_serve.build_and_say, build))


def summary_table(summary: SiteSummary) -> Table:
    """What was rendered: one line per group of comparable results."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("track", "data", "n", "radii", "entries", "status"):
        table.add_column(name, justify="right" if name in ("n", "entries") else "left")
    for group in summary.groups:
        status = "ranked" if group.ranked else "quick" if group.quick else "apart"
        cells = (
            group.track.name,
            group.kind,
            str(group.n),
            ", ".join(board.epsilon for board in group.boards),
            str(group.num_entries),
            status if group.ranked else f"{status}, not ranked",
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table
