"""``corobench demo``: the page of published results, without training or evaluating anything."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.browser import open_page
from corobench.benchmark.files.console import say
from corobench.leaderboard.build import build_site
from corobench.leaderboard.frames import SHIPPED

TRACK = "digits"


@click.command(name="demo")
@click.option(
    "--out",
    default=Path("build/demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the page.",
)
@click.option(
    "--open/--no-open", "opens", default=True, show_default=True, help="Open it in the browser."
)
def demo(out: Path, opens: bool) -> None:
    """Show the page of the results that corobench ships.

    Takes seconds: nothing is trained or evaluated, and neither torch nor the network is needed. The
    entries are the reference networks on scikit-learn's digits.

    \b
    Examples:
      corobench demo
      corobench demo --no-open --out /tmp/demo
    """
    places = sorted(SHIPPED.glob(f"*/{TRACK}"))
    if not places:
        raise ResultError(
            f"{SHIPPED}: expected the results that corobench ships, but they are not installed; "
            "make some with `corobench quickstart`"
        )
    summary = build_site(places, out)
    say(f"{len(summary.results)} results on {TRACK}: {summary.index}")
    say("Next: `corobench quickstart` makes eight results of its own in minutes.")
    if opens:
        say(open_page(summary.index))
