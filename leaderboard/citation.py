"""An entry as a line of a LaTeX table and as a BibTeX record."""

from __future__ import annotations

import re

from corobench.leaderboard.boards import Row
from corobench.leaderboard.format import interval, percent, short_bytes, short_count

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
    r"""Text that LaTeX prints as it is, on one line.

    >>> print(latex_escape("50% of a_b & {c}"))
    50\% of a\_b \& \{c\}
    """
    return _SPECIAL.sub(lambda found: _LATEX[found.group()], " ".join(text.split()))


def latex_header() -> str:
    """The line of headings that fits :func:`latex_row`."""
    return (
        "% \\usepackage{booktabs}; percent of n, Wilson 95 % intervals in brackets\n"
        "Entry & Architecture & Non-zero & Packed & Clean & $\\epsilon$ & Proven & "
        "Unbroken & AutoAttack \\\\ \\midrule"
    )


def latex_row(row: Row) -> str:
    """One line of a table: size, clean accuracy and the bracket at one epsilon."""
    result = row.result
    certified = row.bracket.certified
    cells = (
        latex_escape(result.submission.title) + (f" (quick, n = {result.n})" if row.quick else ""),
        latex_escape(result.submission.model.network),
        short_count(result.compactness.num_nonzero),
        short_bytes(result.compactness.bytes_packed).replace(" ", "~"),
        percent(row.clean).replace("<", "$<$").replace(">", "$>$"),
        f"${row.epsilon}$",
        f"{percent(certified)} [{interval(certified)}]" if certified else "not asked",
        f"{percent(row.bracket.not_attacked)} [{interval(row.bracket.not_attacked)}]",
        percent(row.autoattack),
    )
    return " & ".join(cell.replace("–", "--") for cell in cells) + r" \\"


def bibtex(row: Row) -> str:
    """A record that names the entry, its weights and the protocol."""
    result, submission = row.result, row.result.submission
    key = re.sub(r"[^a-z0-9]+", "-", f"corobench-{result.entry}").strip("-")
    note = (
        f"corobench entry {result.entry}, protocol {result.protocol}, track {result.track}, "
        f"n = {result.n}{', quick, not ranked' if row.quick else ''}, "
        f"weights sha256 {result.weights_sha256}"
    )
    fields = {
        "title": f"{{{latex_escape(submission.title)}}}",
        "author": " and ".join(f"{{{latex_escape(name)}}}" for name in submission.authors),
        "year": result.date[:4],
        "url": submission.links[0] if submission.links else "",
        "note": latex_escape(note),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])
