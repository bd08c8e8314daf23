"""Take a new entry out of a pull request: its own files as data, and nothing else of it.

    python -I ci/request.py REPOSITORY BASE HEAD OUT

REPOSITORY is a git folder that holds both commits. What HEAD changes since it left BASE must be new
regular files of one entry: submissions/<id>/ and its result files. Anything else is refused, with
every reason, before a byte of the pull request is looked at. Then the files are written below OUT
from git's objects, so that no tree of the pull request is ever checked out: no link is followed, no
filter or hook of it is run. OUT/changed.txt lists them, and standard output is the entry's id.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ID = r"[a-z0-9][a-z0-9._-]{0,79}"
#: A file of an entry, and one of its results; clean images belong to a track.
ENTRY_FILE = re.compile(rf"submissions/(?P<id>{ID})/[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}")
RESULT_FILE = re.compile(
    rf"leaderboard/results/\d+\.\d+/[a-z0-9-]+/(?P<id>{ID}?)(?:@\d{{1,9}})?"
    r"\.(?:json|outcomes\.parquet|adversarial\.npz)"
)
CLEAN_IMAGES = re.compile(r"leaderboard/results/\d+\.\d+/[a-z0-9-]+/clean-images\.[0-9a-f]{8}\.npz")
REGULAR, ADDED = "100644", "A"
MAX_FILES = 64
MAX_BYTES = 4 * 1024**3


def git(repository: Path, *arguments: str) -> bytes:
    """What git says; it runs nothing of the repository's own."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603


def changes(repository: Path, base: str, head: str) -> list[tuple[str, str, str, str]]:
    """Mode, object, status and path of every file that HEAD changes since it left BASE."""
    options = ("--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv")
    text = git(repository, "diff", *options, "--end-of-options", f"{base}...{head}")
    fields = text.decode("utf-8", "backslashreplace").split("\0")
    found = []
    for about, path in zip(fields[:-1:2], fields[1::2], strict=True):
        _, mode, _, name, status = about.removeprefix(":").split(" ")
        found.append((mode, name, status, path))
    return found


def faults(changed: list[tuple[str, str, str, str]]) -> tuple[str, list[str]]:
    """The entry's id, and why the pull request is refused, one line for each reason."""
    ids, lines = set(), []
    for mode, _, status, path in changed:
        shown = ascii(path)[1:-1]
        entry = ENTRY_FILE.fullmatch(path)
        result = RESULT_FILE.fullmatch(path)
        if entry is not None:
            ids.add(entry["id"])
        if entry is None and result is None and not CLEAN_IMAGES.fullmatch(path):
            lines.append(f"{shown}: is not part of the entry")
        elif status != ADDED:
            lines.append(
                f"{shown}: already exists and is changed ({status}); a new entry only adds files"
            )
        elif mode != REGULAR:
            lines.append(f"{shown}: expected a regular file (mode {REGULAR}), but found {mode}")
    if not ids:
        lines.append("submissions/: expected one new entry; results change without an entry")
    if len(ids) > 1:
        lines.append(f"submissions/: expected one entry, but found {', '.join(sorted(ids))}")
    if len(changed) > MAX_FILES:
        lines.append(f"expected at most {MAX_FILES} files, but found {len(changed)}")
    name = min(ids, default="")
    foreign = [
        ascii(path)[1:-1]
        for _, _, _, path in changed
        if (found := RESULT_FILE.fullmatch(path)) is not None and found["id"] != name
    ]
    lines += [f"{path}: is a result of another entry than {name!r}" for path in foreign]
    return name, lines


def main(repository: Path, base: str, head: str, out: Path) -> int:
    """Refuse, or write the entry's files; the exit code."""
    changed = changes(repository, base, head)
    name, lines = faults(changed)
    sizes = [int(git(repository, "cat-file", "-s", blob)) for _, blob, _, _ in changed if not lines]
    if sum(sizes) > MAX_BYTES:
        lines.append(f"expected at most {MAX_BYTES} bytes in all, but found {sum(sizes)}")
    places = [out / path for _, _, _, path in changed]
    lines += [f"{path}: already exists" for path in places if not lines and path.exists()]
    for line in lines:
        sys.stderr.write(f"::error title=intake::{line}\n")
    if lines:
        return 1
    for (_, blob, _, _), place in zip(changed, places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as stream:
            stream.write(git(repository, "cat-file", "blob", blob))
    (out / "changed.txt").write_text("".join(f"{path}\n" for _, _, _, path in changed))
    sys.stdout.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])))
