"""Options that several commands share, with one wording."""

from __future__ import annotations

from pathlib import Path

import click

data_root = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="COROBENCH_DATA",
    help="Folder of the dataset; otherwise system copies and downloads are tried.",
)
device = click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
