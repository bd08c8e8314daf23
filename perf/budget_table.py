"""The table of what each reference entry was trained for, read from the recipes.

    python perf/budget_table.py TRACK

`docs/reference-entries.md` holds the one of `fashion-mnist`.
"""

from __future__ import annotations

import argparse

from corobench.baselines.budgets import budget_table
from corobench.baselines.recipe import packaged_names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    tracks = sorted({name.split("/")[0] for name in packaged_names()})
    parser.add_argument("track", choices=tracks)
    print(budget_table(parser.parse_args().track), end="")


if __name__ == "__main__":
    main()
