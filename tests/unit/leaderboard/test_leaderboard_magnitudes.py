"""The picture of an entry's weights says what its numbers say, and is left out without them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from leaderboard_factory import make_compactness, make_result, write_result

from corobench.benchmark.errors import ResultError
from corobench.leaderboard.boards import Row, group_results
from corobench.leaderboard.build import build_site
from corobench.leaderboard.magnitudes import PANEL, picture

KEPT, ZEROS = 2800, 25200  # of the two layers of `make_compactness`
OWN = {"edges": [0.25, 0.297302, 0.353553], "counts": [700, 2100], "num_zeros": ZEROS}
PARENT = {"edges": [0.0, 6e-8, 0.25, 1.0], "counts": [1, 27998, 1], "num_zeros": 0}


def entries(**own: Any) -> list[Any]:
    child = make_compactness() | {"magnitudes": OWN | own}
    dense = make_compactness(keep_ratio=1.0) | {"magnitudes": PARENT}
    return [
        make_result("lwm-10x", compactness=child, submission={"parent": "dense"}),
        make_result("dense", compactness=dense),
    ]


def row_of(results: list[Any], entry: str) -> Row:
    (group,) = group_results(results)
    return next(row for row in group.boards[0].rows if row.result.entry == entry)


def test_bars_are_as_high_as_their_counts() -> None:
    shown = picture(row_of(entries(), "lwm-10x"))
    assert shown is not None
    parent, own = shown.panels
    assert (own.num_kept, own.num_zeros, own.largest) == (KEPT, ZEROS, 2100)
    heights = [own.bottom - float(y) for y in re.findall(r"V([\d.]+)H", own.path)]
    assert heights == pytest.approx([PANEL / 3, PANEL])
    assert parent.bottom < own.top
    assert [line.counts for line in shown.lines] == [(1, 0), (27998, 0), (0, KEPT), (1, 0)]
    assert shown.num_outside == 2  # the two tails of the parent


def test_panels_share_their_axis() -> None:
    shown = picture(row_of(entries(), "lwm-10x"))
    assert shown is not None
    starts = [float(re.match(r"M([\d.]+) ", panel.path)[1]) for panel in shown.panels]  # type: ignore[index]
    assert starts[0] == shown.left
    assert starts[1] > starts[0]


def test_a_dense_entry_has_one_panel() -> None:
    shown = picture(row_of(entries(), "dense"))
    assert shown is not None
    assert [(panel.entry, panel.who) for panel in shown.panels] == [("dense", "this entry")]


def test_the_page_has_the_picture_and_its_numbers(tmp_path: Path) -> None:
    for result in [*entries(), make_result("older")]:
        write_result(tmp_path / "results", result)
    site = build_site([tmp_path / "results"], tmp_path / "site").index.parent
    folder = site / "entries" / "1.0" / "digits"
    page = (folder / "lwm-10x.n500.html").read_text()
    assert page.count('class="plot magnitudes"') == 1
    assert "<bdi>lwm-10x</bdi>, this entry: 2,800 kept, 25,200 zero" in page
    assert "<bdi>dense</bdi>, its dense parent: 28,000 kept, 0 zero" in page
    assert "magnitudes" not in (folder / "older.n500.html").read_text()


def test_all_zeros_have_no_picture() -> None:
    nothing = make_result(
        compactness=make_compactness() | {"magnitudes": {"edges": [], "counts": [], "num_zeros": 1}}
    )
    assert picture(row_of([nothing], "lwm-10x")) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"num_zeros": 3}, "magnitudes.num_zeros: expected 25200 weights"),
        ({"counts": [700, 2101]}, "magnitudes.counts: expected 2800 weights"),
    ],
)
def test_a_histogram_that_contradicts_the_layers_is_refused(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    write_result(tmp_path / "results", entries(**change)[0])
    with pytest.raises(ResultError, match=fault):
        build_site([tmp_path / "results"], tmp_path / "site")


def test_a_long_axis_has_few_ticks() -> None:
    edges = [1e-30, 1e-15, 1.0, 1e30]
    wide = make_result(
        compactness=make_compactness()
        | {"magnitudes": {"edges": edges, "counts": [900, 1000, 900], "num_zeros": ZEROS}}
    )
    shown = picture(row_of([wide], "lwm-10x"))
    assert shown is not None
    assert 2 <= len(shown.x_ticks) <= 9
    assert all(shown.left <= tick.at <= shown.right for tick in shown.x_ticks)
