"""The built site: complete, escaped, self-contained, and the same bytes every time."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from leaderboard_factory import MIRROR, make_result, make_score, write_result

from leaderboard.build import SiteSummary, build_site

HOSTILE = """</title><script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7*7 }}"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SiteSummary:
    root = tmp_path_factory.mktemp("built")
    results = root / "results"
    not_asked = make_score(certified=0) | {
        "certified_by": {"IBP": 0, "CROWN-IBP": None, "CROWN": None, "cascade": 0},
        "flags": ["autoattack-pgd-gap"],
    }
    hostile = {
        "title": HOSTILE,
        "authors": [HOSTILE],
        "description": HOSTILE,
        "licence": HOSTILE,
        "links": ["https://example.org/?a=1&b=2;x=`y`"],
        "model": {"architecture": HOSTILE, "arguments": {"width": HOSTILE}},
        "training": {"data": HOSTILE, "extra_data": True, "extra_data_source": HOSTILE},
        "method": {"name": HOSTILE, "pipeline": "after", "pretrain_objective": HOSTILE},
    }
    for result in (
        make_result("dense"),
        make_result("lwm-10x", submission={"parent": "dense"}),
        make_result("orphan", submission={"parent": "gone"}),
        make_result(
            "hostile",
            submission=hostile,
            epsilons={"1/16": not_asked, "2/16": not_asked},
            not_asked={"CROWN": f"20,001 hidden units {HOSTILE}", "CROWN-IBP": "refused graph"},
            versions={HOSTILE: HOSTILE},
            settings={HOSTILE: {HOSTILE: [HOSTILE]}},
            device=HOSTILE,
        ),
        make_result("seen", "cifar10", n=1000, data={"kind": "mirror", "fingerprint": MIRROR}),
        make_result("fast", "fashion-mnist", n=100),
    ):
        write_result(results, result)
    return build_site([results], root / "site")


def pages(summary: SiteSummary) -> dict[str, str]:
    root = summary.index.parent
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.html"))
    }


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_summary_and_pages_agree(built: SiteSummary) -> None:
    names = set(pages(built))
    assert len(built.results) == 6
    assert built.num_files == len(names) + 2
    assert names == {
        "index.html",
        "entries/1.0/digits/dense.n500.html",
        "entries/1.0/digits/lwm-10x.n500.html",
        "entries/1.0/digits/orphan.n500.html",
        "entries/1.0/digits/hostile.n500.html",
        "entries/1.0/cifar10/seen.n1000.mirror.html",
        "entries/1.0/fashion-mnist/fast.n100.html",
    }


def test_hostile_text_shows_as_text(built: SiteSummary) -> None:
    for name, page in pages(built).items():
        elements = Elements(page)
        scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
        assert len(scripts) == 1, name
        assert "src" in scripts[0]
        assert "img" not in {tag for tag, _ in elements.tags}
        for tag, attributes in elements.tags:
            assert not any(key.startswith("on") for key in attributes), (name, tag)
    hostile = pages(built)["entries/1.0/digits/hostile.n500.html"]
    assert Elements(hostile).text.count(HOSTILE) >= 10
    assert "49" not in re.findall(r"onerror=alert\(2\)&gt;([^<]{0,4})", hostile)


def test_only_links_of_entries_lead_out_and_they_carry_no_endorsement(built: SiteSummary) -> None:
    for page in pages(built).values():
        for tag, attributes in Elements(page).tags:
            source = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
            assert source is None or not re.match(r"(https?:)?//", source)
            if tag == "a" and (attributes["href"] or "").startswith("http"):
                assert attributes["rel"] == "nofollow noopener"
                assert (attributes["href"] or "").startswith("https://example.org/")
    for asset in (built.index.parent / "assets").iterdir():
        assert not re.search(r"https?://|@import|url\(", asset.read_text())


def test_every_local_link_leads_somewhere(built: SiteSummary) -> None:
    root = built.index.parent
    ids = {
        name: {a.get("id") for _, a in Elements(page).tags} for name, page in pages(built).items()
    }
    for name, page in pages(built).items():
        found = [a["id"] for _, a in Elements(page).tags if a.get("id")]
        assert len(found) == len(set(found)), name
        for tag, attributes in Elements(page).tags:
            href = attributes.get("href") or attributes.get("src")
            if not href or href.startswith(("http", "data:")):
                continue
            path, _, fragment = href.partition("#")
            target = (root / name).parent / path if path else root / name
            assert target.is_file(), (name, tag, href)
            if fragment:
                assert fragment in ids[target.resolve().relative_to(root.resolve()).as_posix()]


def test_building_twice_gives_the_same_bytes(built: SiteSummary, tmp_path: Path) -> None:
    root = built.index.parent
    again = build_site([root.parent / "results"], tmp_path / "again").index.parent
    first = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    second = {path.relative_to(again): path for path in again.rglob("*") if path.is_file()}
    assert first.keys() == second.keys()
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)


def row_of(page: str, entry: str) -> str:
    rows = re.findall(r'<tr role="row" id="[^"]*">.*?</tr>', page, re.DOTALL)
    return next(row for row in rows if f'class="id">{entry}' in row)


def test_a_certifier_that_was_not_asked_is_no_zero(built: SiteSummary) -> None:
    row = row_of(pages(built)["index.html"], "hostile")
    cells = dict(re.findall(r'data-label="([^"]+)" data-sort="[^"]*">(.*?)</td>', row, re.DOTALL))
    assert "not asked" in cells["CROWN"]
    assert "0.0" not in Elements(cells["CROWN"]).text
    assert "20,001 hidden units" in cells["CROWN"]
    assert '<span class="v" title="0 of 500">0.0</span>' in cells["IBP"]
    assert "CROWN was not asked: 20,001 hidden units" in Elements(pages(built)["index.html"]).text


def test_retention_shows_its_counts_or_its_reason(built: SiteSummary) -> None:
    page = pages(built)["index.html"]
    kept = row_of(page, "lwm-10x")
    assert re.search(r'data-label="Certified kept"[^>]*><span class="v">100.0</span>', kept)
    assert "240/240" in kept
    orphan = row_of(page, "orphan")
    assert re.search(r'data-label="Clean kept"[^>]*><span title="no result of the parent', orphan)


def test_every_row_has_a_text_alternative_of_its_bracket(built: SiteSummary) -> None:
    labels = [
        attributes["aria-label"] or ""
        for tag, attributes in Elements(row_of(pages(built)["index.html"], "dense")).tags
        if tag == "svg" and attributes.get("role") == "img"
    ]
    assert labels == [
        "Least weight magnitude, 10x: of 500 images, 240 certified, 144 undecided, "
        "96 attacked, 20 misclassified."
    ]


def test_standing_is_said_where_it_matters(built: SiteSummary) -> None:
    text = Elements(pages(built)["index.html"]).text
    assert "quick, not ranked" in text
    assert "mirror, not ranked" in text
    assert "autoattack-pgd-gap" in text
    assert "extra data" in text
    assert "No rank numbers" in text


def test_an_entry_page_tells_how_to_measure_it_again(built: SiteSummary) -> None:
    page = html.unescape(pages(built)["entries/1.0/fashion-mnist/fast.n100.html"])
    command = "corobench evaluate submissions/fast --track fashion-mnist --subset 100 --seed 0"
    assert command in page
    assert "ab" * 32 in page


def test_tables_have_captions_and_scopes(built: SiteSummary) -> None:
    for page in pages(built).values():
        tags = Elements(page).tags
        names = [tag for tag, _ in tags]
        assert names.count("caption") == names.count("table")
        assert all("scope" in attributes for tag, attributes in tags if tag == "th")
        assert names.count("h1") == 1


def test_the_page_is_built_without_torch_and_matplotlib(built: SiteSummary, tmp_path: Path) -> None:
    results = built.index.parent.parent / "results"
    code = (
        "import sys; from pathlib import Path; import leaderboard.cli, leaderboard.terminal;"
        "from leaderboard.build import build_site;"
        f"build_site([Path({str(results)!r})], Path({str(tmp_path)!r}));"
        "bad = {'torch', 'torchvision', 'auto_LiRPA', 'matplotlib'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
