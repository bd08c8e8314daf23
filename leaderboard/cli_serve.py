"""``corobench serve``: render, look at it on this machine, render again when a result changes."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from corobench.benchmark.errors import ConfigError, CorobenchError
from corobench.benchmark.files.console import say
from corobench.leaderboard.assets import STATIC, TEMPLATES
from corobench.leaderboard.build import SiteSummary, build_site
from corobench.leaderboard.documents import ROOT
from corobench.leaderboard.format import short_bytes

_EPILOG = """\b
Examples:
  corobench serve leaderboard/results
  corobench serve leaderboard/results results --port 9000

\b
Exit codes:
  0    stopped
  2    a result file is damaged or missing, or the port is taken
"""


@click.command(name="serve", epilog=_EPILOG)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 for any free port.",
)
def serve(results: tuple[Path, ...], port: int) -> None:
    """Show the leaderboard of RESULTS on this machine.

    Renders it again on changes. The site is in a temporary folder, and other machines cannot reach
    it. Quick results are shown as well, in tables of their own, unranked. Stop with Ctrl-C. To
    publish the leaderboard, use `render`.
    """
    with TemporaryDirectory(prefix="corobench-site-") as folder:
        out = Path(folder) / "site"
        site = functools.partial(build_site, results, out, with_quick=True)
        build = functools.partial(build_and_say, site)
        build()
        with serving(out, port) as server:
            say(f"http://127.0.0.1:{server.server_address[1]}/index.html")
            watch(results, build)


def build_and_say(build: Callable[[], SiteSummary]) -> None:
    """Render and print one line."""
    summary = build()
    size = short_bytes(summary.num_bytes)
    say(f"{len(summary.results)} results, {summary.num_files} files, {size}")


def watch(
    results: tuple[Path, ...], build: Callable[[], None], stop: threading.Event | None = None
) -> None:
    """Build again whenever a result, a template or a document changes, until stopped.

    A fault in a file is printed, and the site stays as it was until the file is fixed.

    Args:
        results: files and folders to look at.
        build: renders once.
        stop: ends the loop; Ctrl-C does so, too.
    """
    from watchfiles import watch as changes

    own = [TEMPLATES, STATIC, ROOT / "RULES.md"]
    places = [*results, *(path for path in own if path.exists())]
    for changed in changes(*places, stop_event=stop, raise_interrupt=False):
        say(f"{len(changed)} changed, for example {min(changed)[1]}")
        try:
            build()
        except CorobenchError as error:
            say(error.message, err=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing on success."""

    def log_message(self, format: str, *args: object) -> None:
        """Print failures only."""
        if len(args) > 1 and str(args[1]).startswith(("4", "5")):
            say(format % args, err=True)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __enter__(self) -> _Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def serving(folder: Path, port: int) -> _Server:
    """A server of a folder for this machine only; use it in a ``with`` block.

    Raises:
        ConfigError: the port is taken.
    """
    handler = functools.partial(_Quiet, directory=str(folder))
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise ConfigError(
            f"--port {port}: cannot be used ({error.strerror or error}); choose another one, "
            "or 0 for any"
        ) from error
