"""What the compare page reads: small scripts that hold one entry, or one group of results, each.

A browser reads no JSON from ``file://``, but it runs scripts; so each file calls a function of the
page with its data. An entry is loaded only when it is compared or cited.
"""

from __future__ import annotations

import json

from corobench.benchmark.records.curve import Curve
from corobench.leaderboard.boards import Group, Row
from corobench.leaderboard.citation import bibtex, latex_footer, latex_header, latex_row
from corobench.leaderboard.format import plain
from corobench.leaderboard.gallery import CleanImages
from corobench.leaderboard.security import as_json, points


def group_path(group: Group) -> str:
    """Path of a group's data inside the site."""
    return f"data/{group.id}.js"


def entry_path(row: Row) -> str:
    """Path of an entry's data inside the site, beside its page."""
    return f"{row.page.removesuffix('.html')}.js"


def group_script(group: Group, clean: CleanImages | None) -> bytes:
    """Labels and pictures that all entries of a group share.

    Args:
        group: with at least one row.
        clean: images of the track, or None.
    """
    known = next((row.evidence for row in group.boards[0].rows if row.evidence), None)
    data: dict[str, object] = {"id": group.id, "n": group.n, "classes": group.track.classes}
    data |= {"header": latex_header(), "footer": latex_footer()}
    if known is not None:
        data["images"] = known.images.tolist()
        data["labels"] = known.labels.tolist()
    if known is not None and clean is not None:
        data["pictures"] = {str(index): clean.source(index) for index in sorted(clean.place)}
    return _call("group", data)


def entry_script(rows: list[Row], address: str = "", curve: Curve | None = None) -> bytes:
    """Everything of one entry that is compared: counts, outcomes image by image, citations.

    Args:
        rows: of one entry, one per epsilon, ascending.
        address: where the site is published, or empty.
        curve: more radii, or None.
    """
    first = rows[0]
    result, evidence = first.result, first.evidence
    size = result.compactness
    data: dict[str, object] = {
        "name": first.name,
        "entry": result.entry,
        "variant": first.variant,
        "title": first.title,
        "architecture": plain(result.submission.model.network),
        "method": plain(result.submission.method.name),
        "n": result.n,
        "clean": result.clean,
        "nonzero": size.num_nonzero,
        "packed": size.bytes_stored,
        "macs": size.macs_nonzero,
        "bibtex": bibtex(first, address),
        "curve": as_json(points(result, curve)),
        "epsilons": {
            row.epsilon: {
                "certified": row.bracket.certified.count if row.bracket.certified else None,
                "known": row.is_certifiable,
                "not_attacked": row.bracket.not_attacked.count,
                "pgd50": row.score.pgd50,
                "autoattack": row.score.autoattack,
                "flags": row.score.flags,
                "latex": latex_row(row),
                "outcomes": "".join(evidence.epsilons[row.epsilon].letters) if evidence else "",
            }
            for row in rows
        },
    }
    if evidence is not None:
        data["predicted"] = evidence.predicted.tolist()
    return _call("entry", data)


def _call(name: str, data: dict[str, object]) -> bytes:
    """A script that hands data to the page; no text in it can end the script or its string."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    safe = text.replace("<", "\\u003c")
    return f"corobench.{name}({safe});\n".encode("ascii")
