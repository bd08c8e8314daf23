"""An entry whose audit found a contradiction is shown as frozen and never ranked."""

from pathlib import Path

from leaderboard_factory import make_result, write_result

from corobench.benchmark.records.result import Audit
from corobench.leaderboard.boards import group_results
from corobench.leaderboard.build import build_site


def test_frozen_is_apart_and_says_so(tmp_path: Path) -> None:
    sound = make_result("sound")
    frozen = make_result("liar").model_copy(
        update={"audit": Audit(num_images=50, contradictions=("image 3 at 1/16: ...",))}
    )
    groups = group_results([sound, frozen])
    standing = {
        row.result.entry: group.ranked
        for group in groups
        for board in group.boards
        for row in board.rows
    }
    assert standing == {"sound": True, "liar": False}
    for result in (sound, frozen):
        write_result(tmp_path / "results", result)
    index = build_site([tmp_path / "results"], tmp_path / "site").index
    boards = (index.parent / "boards").glob("*.html")
    page = "".join(path.read_text(encoding="utf-8") for path in sorted(boards))
    assert "Frozen: at least one image was both proven right and broken" in page
    assert "frozen: proven images were broken" in page
