"""Entries as a LaTeX table and as BibTeX records, which cite the entry, not its method's paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from corobench.leaderboard.boards import Row
from corobench.leaderboard.format import interval, percent, plain, short_bytes, short_count

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}
_SPECIAL = re.compile("[" + re.escape("".join(_LATEX)) + "]")


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is, on one line, without invisible characters.

    >>> print(latex_escape("50% of a_b & {c}"))
    50\% of a\_b \& \{c\}
    """
    return _SPECIAL.sub(lambda found: _LATEX[found.group()], plain(text))


def latex_header() -> str:
    """What stands above the lines of :func:`latex_row`."""
    return (
        "% \\usepackage{booktabs}; percent of n, Wilson 95 % intervals in brackets\n"
        "\\begin{tabular}{llrrrlrrr}\n\\toprule\n"
        "Entry & Architecture & Non-zero & Packed & Clean & $\\epsilon$ & Proven & "
        "Unbroken & AutoAttack \\\\\n\\midrule"
    )


def latex_footer() -> str:
    """What stands below them."""
    return "\\bottomrule\n\\end{tabular}"


def latex_table(rows: Sequence[Row]) -> str:
    """A whole ``tabular`` with one line per row."""
    return "\n".join([latex_header(), *(latex_row(row) for row in rows), latex_footer()])


def latex_row(row: Row) -> str:
    """One line of a table: size, clean accuracy and the bracket at one epsilon."""
    result = row.result
    certified = row.bracket.certified
    known = certified if row.is_certifiable else None
    cells = (
        row.title + (f" (quick, n = {result.n})" if row.quick else ""),
        result.submission.model.network,
        short_count(result.compactness.num_nonzero),
        short_bytes(result.compactness.bytes_stored),
        percent(row.clean),
        row.epsilon,
        f"{percent(known)} [{interval(known)}]" if known else "not known",
        f"{percent(row.bracket.not_attacked)} [{interval(row.bracket.not_attacked)}]",
        percent(row.autoattack),
    )
    return " & ".join(latex_escape(cell) for cell in cells) + r" \\"


def bibtex(row: Row, address: str = "") -> str:
    """A record that names the entry, its weights and the protocol.

    Args:
        row: the entry.
        address: where the site is published, with its last slash; empty where it is not known.
    """
    result, submission = row.result, row.result.submission
    seed = submission.training.seed
    note = (
        f"corobench entry {result.entry}, protocol {result.protocol}, track {result.track}, "
        f"n = {result.n}{', quick, not ranked' if row.quick else ''}, "
        f"{'' if seed is None else f'training seed {seed}, '}"
        f"weights sha256 {result.weights_sha256}"
    )
    if submission.links:
        note += f". The entry refers to {', '.join(submission.links)}"
    fields = {
        "title": f"{{{latex_escape(row.title)}}}",
        "author": " and ".join(f"{{{latex_escape(name)}}}" for name in submission.authors),
        "year": result.date[:4],
        "url": f"{address}{row.page}" if address else "",
        "note": latex_escape(note),
    }
    # The page is one per result, so that two protocols or numbers of images never share a key.
    key = ":".join(["corobench", *PurePosixPath(row.page).with_suffix("").parts[1:]])
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])
