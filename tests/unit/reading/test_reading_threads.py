"""Reading a table leaves no thread that its process could end before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TABLE = (
    Path(__file__).parents[3] / "leaderboard/results/1.0/digits/digits-adv-dense.outcomes.parquet"
)
READ = """
import sys
from pathlib import Path
from corobench.benchmark.records.reading.table_file import read_outcomes
frame, _ = read_outcomes(Path(sys.argv[1]))
assert len(frame)
print(sorted(name for name in sys.modules if name.startswith("pyarrow") and "dataset" in name))
"""


def test_a_table_is_read_without_the_threads_of_arrows_datasets() -> None:
    """They abort a process that ends at once (`terminate called without an active exception`)."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(TABLE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
