"""The built site: complete, escaped, self-contained, and the same bytes every time."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from leaderboard_factory import MIRROR, make_result, make_score, write_evidence, write_result
from PIL import Image

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.leaderboard.build import SiteSummary, build_site

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
            device=HOSTILE,
        ),
        make_result("seen", "cifar10", n=1000, data={"kind": "mirror", "fingerprint": MIRROR}),
        make_result("fast", "fashion-mnist", n=100, settings={HOSTILE: {HOSTILE: [HOSTILE]}}),
    ):
        path = write_result(results, result)
        if result.entry in ("dense", "lwm-10x"):
            write_evidence(path)
    return build_site([results], root / "site", with_quick=True)


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


DIGITS = "boards/digits-1.0-n500-eps1-16.html"


def made_by_us(summary: SiteSummary) -> dict[str, str]:
    """The pages that are not a rendered document."""
    return {name: page for name, page in pages(summary).items() if 'class="prose"' not in page}


def test_every_board_entry_and_group_has_its_page(built: SiteSummary) -> None:
    names = set(pages(built))
    assert len(built.results) == 6
    assert {name for name in names if name.startswith("entries/")} == {
        "entries/1.0/digits/dense.n500.html",
        "entries/1.0/digits/lwm-10x.n500.html",
        "entries/1.0/digits/orphan.n500.html",
        "entries/1.0/digits/hostile.n500.html",
        "entries/1.0/cifar10/seen.n1000.mirror.html",
        "entries/1.0/fashion-mnist/fast.n100.html",
    }
    assert sum(name.startswith("boards/") for name in names) == 6  # three groups, two radii each
    assert sum(name.startswith("compare/") for name in names) == 3
    assert {"index.html", "method.html", "submit.html", "changelog.html"} <= names
    files = [path for path in built.index.parent.rglob("*") if path.is_file()]
    assert built.num_files == len(files) - 1  # the list of files itself


def test_how_to_submit_says_first_how_to_install(built: SiteSummary) -> None:
    text = pages(built)["submit.html"]
    install = text.index("pip install 'corobench[evaluate]'")
    assert install < text.index("corobench validate submissions/my-model")


def test_hostile_text_shows_as_text(built: SiteSummary) -> None:
    for name, page in pages(built).items():
        elements = Elements(page)
        scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
        assert all(list(attributes) == ["defer", "src"] for attributes in scripts), name
        for tag, attributes in elements.tags:
            assert tag != "img" or (attributes["src"] or "").startswith("data:image/png;"), name
            assert not any(key.startswith("on") for key in attributes), (name, tag)
    hostile = pages(built)["entries/1.0/digits/hostile.n500.html"]
    assert Elements(hostile).text.count(HOSTILE) >= 10
    assert "49" not in re.findall(r"onerror=alert\(2\)&gt;([^<]{0,4})", hostile)
    data = (built.index.parent / "entries/1.0/digits/hostile.n500.js").read_text("utf-8")
    assert "<" not in data


def test_only_links_of_entries_lead_out_and_they_carry_no_endorsement(built: SiteSummary) -> None:
    for page in made_by_us(built).values():
        for tag, attributes in Elements(page).tags:
            source = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
            assert source is None or not re.match(r"(https?:)?//", source)
            if tag == "a" and (attributes["href"] or "").startswith("http"):
                assert attributes["rel"] == "nofollow noopener"
                assert (attributes["href"] or "").startswith("https://example.org/")
    for asset in (built.index.parent / "assets").iterdir():
        # datatables.js names licences; the browser test sees its requests.
        if asset.suffix != ".png" and asset.name != "datatables.js":
            text = asset.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|@import|url\([^#]", text), asset


def test_every_local_link_leads_somewhere(built: SiteSummary) -> None:
    root = built.index.parent
    ids = {
        name: {a.get("id") for _, a in Elements(page).tags} for name, page in pages(built).items()
    }
    for name, page in pages(built).items():
        if "formats.html" in name:
            continue  # has headings of one name in several sections
        found = [a["id"] for _, a in Elements(page).tags if a.get("id")]
        assert len(found) == len(set(found)), name
        for tag, attributes in Elements(page).tags:
            href = attributes.get("href") or attributes.get("src")
            if not href or href.startswith(("http", "data:")):
                continue
            path, _, fragment = href.partition("#")
            target = (root / name).parent / path if path else root / name
            assert target.is_file(), (name, tag, href)
            if fragment and "=" not in fragment and target.suffix == ".html":
                assert fragment in ids[target.resolve().relative_to(root.resolve()).as_posix()]


def test_building_twice_gives_the_same_bytes(built: SiteSummary, tmp_path: Path) -> None:
    root = built.index.parent
    again = build_site([root.parent / "results"], tmp_path / "again", with_quick=True).index.parent
    first = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    second = {path.relative_to(again): path for path in again.rglob("*") if path.is_file()}
    assert first.keys() == second.keys()
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)


def cells_of(page: str, entry: str) -> dict[str, str]:
    """Heading -> the HTML of one row's cell."""
    head = re.findall(r'<th scope="col" class="k-[^>]*>([^<]*)</th>', page)
    row = re.search(rf'<tr id="{entry}\.n.*?(?=<tr |</tbody>)', page, re.DOTALL)
    assert row is not None
    cells = re.split(r"<(?=td>|th scope=row>)", row.group())[1:]
    return {name: cell.partition(">")[2].strip() for name, cell in zip(head, cells, strict=True)}


def test_a_certifier_that_was_not_asked_is_no_zero(built: SiteSummary) -> None:
    page = pages(built)[DIGITS]
    cells = cells_of(page, "hostile")
    assert cells["CROWN"].startswith("not asked<a")
    assert cells["IBP"] == "0.0"
    assert "CROWN was not asked: 20,001 hidden units" in Elements(page).text


def test_retention_shows_its_ratio_or_its_reason(built: SiteSummary) -> None:
    page = pages(built)[DIGITS]
    assert cells_of(page, "lwm-10x")["Proven kept"].startswith("240 → 240<a")
    assert cells_of(page, "lwm-10x")["AutoAttack kept"] == "100.0"
    assert cells_of(page, "orphan")["Clean kept"].startswith("—<a")
    assert "no result of the parent gone" in Elements(page).text
    entry = pages(built)["entries/1.0/digits/lwm-10x.n500.html"]
    assert "240 → 240" in entry and "384/384" in entry


def test_every_part_of_the_bar_is_a_number_too(built: SiteSummary) -> None:
    cells = cells_of(pages(built)[DIGITS], "dense")
    assert "--c:48;--u:28.8;--a:19.2" in cells["Bracket"]
    names = ("Undecided", "Unfinished", "Broken", "Misclassified")
    assert [cells[name] for name in names] == ["28.8", "0.0", "19.2", "4.0"]
    assert cells["Proven"] == "48.0<i>43.7–52.4</i>"


def test_standing_is_said_where_it_matters(built: SiteSummary) -> None:
    text = Elements(pages(built)["index.html"]).text
    assert "quick, not ranked" in text
    assert "mirror, not ranked" in text
    assert "autoattack-pgd-gap" in text
    assert "extra data" in text
    assert "No rank groups, because an entry has no outcome table" in pages(built)[DIGITS]


def test_csv_and_json_of_a_board_hold_the_counts_of_the_result_files(built: SiteSummary) -> None:
    stem = built.index.parent / DIGITS.removesuffix(".html")
    table = pd.read_csv(f"{stem}.csv").set_index("entry")
    assert table.loc["lwm-10x", "certified"] == 240
    assert table.loc["lwm-10x", "n"] == 500
    assert table.loc["lwm-10x", "nonzero"] == 4000
    assert pd.isna(table.loc["hostile", "by_crown"])
    records = json.loads(Path(f"{stem}.json").read_text())
    assert [record["entry"] for record in records] == list(table.index)


def test_an_entry_with_outcomes_shows_classes_and_pictures(built: SiteSummary) -> None:
    page = pages(built)["entries/1.0/digits/lwm-10x.n500.html"]
    sources = [a["src"] or "" for tag, a in Elements(page).tags if tag == "img"]
    assert len(sources) > 3
    wide = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert wide.size == (8 + 1 + 8 + 1 + 8, 8)  # clean, adversarial, difference
    assert wide.getpixel((0, 0)) == (128, 255)
    assert wide.getpixel((9, 0)) == (191, 255)
    assert wide.getpixel((18, 0)) == (255, 255)  # +0.25 is beyond the radius 1/16: clipped
    seen = np.asarray(wide.getchannel("A")).any(axis=0)  # gaps have the colour of the page
    assert np.flatnonzero(~seen).tolist() == [8, 17]
    assert "Per class" in page
    assert "Per class" not in pages(built)["entries/1.0/digits/orphan.n500.html"]


def test_a_table_that_contradicts_its_result_is_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path / "results", make_result("lwm-10x"))
    write_evidence(path)
    table = path.with_name("lwm-10x.outcomes.parquet")
    rows, run = read_outcomes(table)
    open_ = rows["outcome"] == "undecided"
    rows.loc[open_, ["outcome", "decided_by"]] = ["certified", "BaB"]
    rows.loc[open_, "bab"] = True
    rows.loc[open_, "margin"] = 0.5
    table.write_bytes(encode_outcomes(rows, run))
    with pytest.raises(ResultError, match=r"1/16\.counts\.certified: 240 in the result, "):
        build_site([tmp_path / "results"], tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table: table.assign(label=-1), "label: expected classes from 0 to 9, found -1"),
        (lambda table: table.assign(label=10), "label: expected classes from 0 to 9, found 10"),
        (lambda table: pd.concat([table] * 9), "expected one row for each of 500 images"),
    ],
)
def test_a_table_that_cannot_be_of_its_track_is_refused(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], fault: str
) -> None:
    path = write_result(tmp_path, make_result("lwm-10x"))
    write_evidence(path)
    table = path.with_name("lwm-10x.outcomes.parquet")
    rows, run = read_outcomes(table)
    table.write_bytes(encode_outcomes(change(rows), run))
    with pytest.raises(ResultError, match=rf"lwm-10x\.outcomes\.parquet: {fault}"):
        build_site([tmp_path], tmp_path / "site")


def test_the_feed_lists_dated_entries_newest_first(tmp_path: Path) -> None:
    for name, date in (("old", "2026-01-02"), ("new", "2026-03-04"), ("undated", "")):
        write_result(tmp_path / "results", make_result(name, date=date, submission={"title": name}))
    address = "https://example.org/board"
    index = build_site([tmp_path / "results"], tmp_path / "site", address).index
    root = ElementTree.parse(index.parent / "feed.xml").getroot()
    space = "{http://www.w3.org/2005/Atom}"
    titles = [entry.findtext(f"{space}title") for entry in root.findall(f"{space}entry")]
    assert titles == ["new (digits)", "old (digits)"]
    assert root.findtext(f"{space}updated") == "2026-03-04T00:00:00Z"
    links = [link.get("href") for link in root.iter(f"{space}link")]
    assert "https://example.org/board/entries/1.0/digits/new.n500.html" in links


def test_rules_are_rendered_with_working_links(built: SiteSummary) -> None:
    page = pages(built)["method.html"]
    assert 'id="the-bracket"' in page
    assert 'href="health.html#claim-not-confirmed"' in page
    assert "<table" in page


def test_every_page_leads_to_the_project_where_its_address_is_known(
    built: SiteSummary, tmp_path: Path
) -> None:
    results = [built.index.parent.parent / "results"]
    site = build_site(
        results, tmp_path / "site", repository="https://git.example/blob/main/", with_quick=True
    )
    link = '<a href="https://git.example/blob/main/README.md">The project</a>'
    assert all(link in page for page in made_by_us(site).values())
    assert not any("The project</a>" in page for page in made_by_us(built).values())


def test_an_entry_page_tells_how_to_measure_it_again(built: SiteSummary) -> None:
    page = html.unescape(pages(built)["entries/1.0/fashion-mnist/fast.n100.html"])
    command = "corobench evaluate submissions/fast --track fashion-mnist --subset 100 --seed 0"
    assert command in page
    assert "ab" * 32 in page


def test_tables_have_captions_and_scopes(built: SiteSummary) -> None:
    for page in made_by_us(built).values():
        tags = Elements(page).tags
        names = [tag for tag, _ in tags]
        assert names.count("caption") == names.count("table")
        assert all("scope" in attributes for tag, attributes in tags if tag == "th")
        assert names.count("h1") == 1


def test_the_page_is_built_without_torch_and_matplotlib(built: SiteSummary, tmp_path: Path) -> None:
    results = built.index.parent.parent / "results"
    code = (
        "import sys; from pathlib import Path; import corobench.leaderboard.cli;"
        "import corobench.leaderboard.terminal;"
        "from corobench.leaderboard.build import build_site;"
        f"build_site([Path({str(results)!r})], Path({str(tmp_path)!r}), with_quick=True);"
        "bad = {'torch', 'torchvision', 'auto_LiRPA', 'matplotlib'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
