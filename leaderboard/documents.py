"""The project's Markdown documents as pages: rules, how to submit, what changed.

Raw HTML in a document is shown as text. Links between documents lead to their pages where there is
one, else to the project's address where it is known, else they become plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

#: Page -> (its title, the document it shows, the headings to keep; empty for all).
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "method.html": ("Method and rules", "RULES.md", ()),
    "submit.html": ("How to submit", "CONTRIBUTING.md", ("How a submission enters",)),
    "manifest.html": ("The manifest and the folder", "submissions/_template/README.md", ()),
    "health.html": ("Health flags", "docs/health.md", ()),
    "formats.html": ("File formats", "docs/file-formats.md", ()),
    "changelog.html": ("What changed", "CHANGELOG.md", ()),
}
#: Shown before the document of a page: page -> (document, headings).
BEFORE = {"submit.html": ("README.md", ("Install in layers", "Submit a model in five steps"))}

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Heading:
    """A heading of a document, for the table of contents."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Document:
    """One rendered document.

    Attributes:
        page: path inside the site.
        title: of the page.
        body: HTML made by the Markdown library, raw HTML escaped.
        headings: second and third level.
    """

    page: str
    title: str
    body: Markup
    headings: tuple[Heading, ...]


def read_documents(root: Path = ROOT, repository: str = "") -> tuple[Document, ...]:
    """Render the documents that are there; an installed package has none.

    Args:
        root: folder of the project.
        repository: address that files of the project are found below, or empty.
    """
    found = []
    for page, (title, name, keep) in PAGES.items():
        if not (root / name).is_file():
            continue
        text = _sections((root / name).read_text(encoding="utf-8"), keep)
        parts = [(name, text)]
        if page in BEFORE and (root / BEFORE[page][0]).is_file():
            first, headings_before = BEFORE[page]
            source = (root / first).read_text(encoding="utf-8")
            parts.insert(0, (first, _sections(source, headings_before)))
        rendered = [_render(root, part, source, repository) for part, source in parts]
        body = Markup("\n").join(part for part, _ in rendered)
        headings = tuple(heading for _, part in rendered for heading in part)
        found.append(Document(page, title, body, headings))
    return tuple(found)


def render_text(text: str) -> tuple[Markup, tuple[Heading, ...]]:
    """Markdown that is no file of the project as HTML; its links lead to its own headings.

    Returns:
        The HTML, raw HTML escaped, and the headings of the second and third level.
    """
    return _render(ROOT, "", text, "")


def anchor_of(heading: str) -> str:
    """The anchor of a heading by the common rule.

    >>> anchor_of("Audit and contradictions, `n`")
    'audit-and-contradictions-n'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def _sections(text: str, keep: Sequence[str]) -> str:
    """The sections under these second-level headings, or the whole text."""
    if not keep:
        return text
    parts = re.split(r"(?m)^(?=## )", text)
    return "\n".join(part for part in parts if part.partition("\n")[0][3:].strip() in keep)


def _render(
    root: Path, name: str, text: str, repository: str
) -> tuple[Markup, tuple[Heading, ...]]:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    headings: list[Heading] = []
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            _anchor(token, tokens[place + 1], headings)
        elif token.type == "table_open" or token.type == "fence":
            token.attrSet("tabindex", "0")
        elif token.type == "inline" and token.children:
            token.children = _relink(token.children, root, name, repository)
    body: str = reader.renderer.render(tokens, reader.options, {})
    body = body.replace("<th", '<th scope="col"').replace('<th scope="col"ead', "<thead")
    body = body.replace('<th scope="col"></th>', "<td></td>")
    body = body.replace("<pre>", '<pre tabindex="0">')
    return Markup(body), tuple(headings)  # noqa: S704  raw HTML is off: only the library's tags


def _anchor(opening: Token, inline: Token, headings: list[Heading]) -> None:
    text = "".join(child.content for child in inline.children or [])
    anchor = anchor_of(text)
    opening.attrSet("id", anchor)
    level = int(opening.tag[1:])
    if level == 1:  # the page has a first-level heading of its own
        opening.hidden = True
        inline.children = []
        opening.tag = "p"
    elif level <= 3:
        headings.append(Heading(level, anchor, text))


def _relink(children: list[Token], root: Path, name: str, repository: str) -> list[Token]:
    """Links of a line that lead where the site can lead; images are left out."""
    out: list[Token] = []
    skip = 0
    for token in children:
        if token.type == "link_open":
            href = _target(str(token.attrGet("href")), root, name, repository)
            if href is None:
                skip += 1
                continue
            token.attrSet("href", href)
            if href.startswith(("http://", "https://")):
                token.attrSet("rel", "nofollow noopener")
        elif token.type == "link_close" and skip:
            skip -= 1
            continue
        elif token.type == "image":
            continue
        out.append(token)
    return out


def _target(href: str, root: Path, name: str, repository: str) -> str | None:
    """Where a link leads to from a page, or None where it leads nowhere."""
    if href.startswith(("http://", "https://", "mailto:")):
        return href
    path, _, anchor = href.partition("#")
    if not name:
        return None if path else href
    target = _normal(str(PurePosixPath(name).parent / path)) if path else name
    for page, (_, document, keep) in PAGES.items():
        if document == target and (not keep or not anchor):
            return f"{page}#{anchor}" if anchor else page
    if not repository or not (root / target).exists():
        return None
    return f"{repository.rstrip('/')}/{target}" + (f"#{anchor}" if anchor else "")


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
