"""The Atom feed of entries, newest first (RFC 4287)."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from corobench.leaderboard.boards import Group, Row
from corobench.leaderboard.format import percent

MAX_ENTRIES = 50
PATH = "feed.xml"
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "corobench:results")
_NEVER = "1970-01-01"


def feed(groups: Sequence[Group], address: str = "") -> bytes:
    """The feed of the newest ranked entries.

    Args:
        groups: of the site. Entries without a date are left out.
        address: where the site is published, with its last slash; empty where it is not known,
            and then links are relative to the feed.
    """
    newest = newest_rows(groups)
    root = ET.Element("feed", xmlns="http://www.w3.org/2005/Atom")
    ET.SubElement(root, "title").text = "corobench: new entries"
    ET.SubElement(root, "id").text = address or f"urn:uuid:{_SPACE}"
    ET.SubElement(root, "updated").text = _stamp(newest[0].result.date if newest else _NEVER)
    ET.SubElement(root, "link", rel="self", href=f"{address}{PATH}")
    ET.SubElement(root, "link", rel="alternate", href=f"{address}index.html")
    for row in newest[:MAX_ENTRIES]:
        _add(root, row, address)
    ET.indent(root, " ")
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def newest_rows(groups: Sequence[Group]) -> list[Row]:
    """One row per ranked entry that has a date, at its largest epsilon, newest first."""
    rows = {row.page: row for group in groups if group.ranked for row in group.boards[-1].rows}
    dated = [rows[page] for page in sorted(rows) if rows[page].result.date]
    return sorted(dated, key=lambda row: row.result.date, reverse=True)


def _add(root: ET.Element, row: Row, address: str) -> None:
    result = row.result
    entry = ET.SubElement(root, "entry")
    ET.SubElement(entry, "title").text = f"{row.title} ({result.track})"
    name = result.identity or f"{row.page}:{result.weights_sha256}"
    ET.SubElement(entry, "id").text = f"urn:uuid:{uuid.uuid5(_SPACE, name)}"
    ET.SubElement(entry, "updated").text = _stamp(result.date)
    for author in result.submission.authors:
        ET.SubElement(ET.SubElement(entry, "author"), "name").text = _plain(author)
    ET.SubElement(entry, "link", rel="alternate", href=f"{address}{row.page}")
    certified = row.bracket.certified
    low = f"{percent(certified)} % proven" if certified else "no proof asked"
    if certified and not row.is_certifiable:
        low = "proven share not known"
    ET.SubElement(entry, "summary").text = (
        f"At radius {row.epsilon}, n = {result.n}: {low}, "
        f"{percent(row.bracket.not_attacked)} % unbroken, "
        f"{result.compactness.num_nonzero} non-zero parameters."
    )


def _stamp(day: str) -> str:
    return f"{day}T00:00:00Z"


def _plain(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(letter for letter in text if letter.isprintable() or letter == " ")
