"""A site is written whole or not at all, and foreign files are left alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corobench.benchmark.errors import OutputError
from corobench.leaderboard.writing import LEDGER, write_site

OLD = {"index.html": b"old", "entries/a.html": b"old a", "entries/b.html": b"old b"}
NEW = {"index.html": b"new", "entries/a.html": b"new a", "assets/c.css": b"new c"}


def content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != LEDGER
    }


def test_a_new_site_appears_with_its_parents_and_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "build" / "site"
    write_site(NEW, out)
    assert content(out) == NEW
    assert [path.name for path in out.parent.iterdir()] == ["site"]


def test_a_second_build_replaces_ours_and_keeps_foreign_files(tmp_path: Path) -> None:
    write_site(OLD, tmp_path)
    (tmp_path / "CNAME").write_bytes(b"mine")
    (tmp_path / "entries" / "mine.txt").write_bytes(b"mine")
    write_site(NEW, tmp_path)
    foreign = {"CNAME": b"mine", "entries/mine.txt": b"mine"}
    assert content(tmp_path) == NEW | foreign
    write_site({"index.html": b"x"}, tmp_path)
    assert content(tmp_path) == {"index.html": b"x"} | foreign
    assert not (tmp_path / "assets").exists()


def test_the_same_site_twice_is_the_same_folder(tmp_path: Path) -> None:
    write_site(NEW, tmp_path / "once")
    write_site(NEW, tmp_path / "twice")
    write_site(NEW, tmp_path / "twice")
    assert (tmp_path / "once" / LEDGER).read_bytes() == (tmp_path / "twice" / LEDGER).read_bytes()


def test_a_stale_page_that_someone_edited_stays(tmp_path: Path) -> None:
    write_site(OLD, tmp_path)
    (tmp_path / "entries" / "b.html").write_bytes(b"edited")
    write_site(NEW, tmp_path)
    assert content(tmp_path) == NEW | {"entries/b.html": b"edited"}


def test_a_foreign_file_under_one_of_our_names_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"my home page")
    with pytest.raises(OutputError, match=r"index\.html: already there"):
        write_site(NEW, tmp_path)
    assert content(tmp_path) == {"index.html": b"my home page"}


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "site"
    out.mkdir()
    (out / "assets").symlink_to(outside)
    with pytest.raises(OutputError, match="link that leads outside"):
        write_site(NEW, out)
    assert not list(outside.iterdir())


def test_a_ledger_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    out = tmp_path / "site"
    out.mkdir()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (out / LEDGER).write_text(json.dumps({"files": {"../victim": empty}}))
    write_site(NEW, out)
    assert victim.exists()


def test_a_failure_midway_puts_the_old_site_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(OLD, tmp_path)
    ledger = (tmp_path / LEDGER).read_bytes()
    replace = Path.replace

    def fail_at_the_index(self: Path, target: Path) -> Path:
        if target == tmp_path / "index.html" and self.read_bytes() == b"new":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_index)
    with pytest.raises(OutputError, match="No space left on device"):
        write_site(NEW, tmp_path)
    assert content(tmp_path) == OLD
    assert (tmp_path / LEDGER).read_bytes() == ledger


def test_a_failure_of_a_new_site_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError):
        write_site(NEW, tmp_path / "site")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for out in (file, file / "site"):
        with pytest.raises(OutputError) as caught:
            write_site(NEW, out)
        assert str(out) in caught.value.message
        assert caught.value.exit_code == 2


def test_writers_of_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    """Whoever comes last has the whole site; both made half of it each, in one try of eight."""
    sites = [{f"{name}.html": bytes([65 + number]) * 50 for name in "abcdef"} for number in (0, 1)]
    for trial in range(8):
        out = tmp_path / str(trial)
        with ThreadPoolExecutor(2) as pool:
            for made in [pool.submit(write_site, site, out) for site in sites]:
                made.result()
        assert content(out) in sites
        assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []
