"""Hub-style parquet: a struct ``img`` or ``image`` {bytes, path} and an integer ``label``.

Files are named ``train-*.parquet`` or ``test-*.parquet`` and lie in the folder itself or in one
of the folders hubs use. Shards are read in the order of their names, rows in the order they have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.pictures import decode
from corobench.benchmark.data.read import Images
from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import Track

#: Folders below a data root that may hold the files.
LAYOUTS = ("", "data", "plain_text", "fashion_mnist", "cropped_digits")
IMAGE_COLUMNS = ("img", "image")
MAX_ROWS = 1_000_000
MAX_UNCOMPRESSED_BYTES = 4 * 1024**3
BATCH_ROWS = 512


def find(folder: Path, split: Split) -> list[Path]:
    """The parquet files of a split, sorted by name, from the first layout that has any."""
    for layout in LAYOUTS:
        candidate = folder / layout if layout else folder
        shards = sorted(candidate.glob(f"{split}-*.parquet"), key=lambda path: path.name)
        if shards:
            return shards
    return []


def read(shards: list[Path], track: Track) -> Images:
    """Images and labels from the files that :func:`find` returned.

    Raises:
        DatasetError: not parquet, other columns, a picture or label that does not fit the
            track, or sizes above the stated limits; names the file and row.
    """
    pixels: list[Any] = []
    labels: list[int] = []
    for shard in shards:
        _read_shard(shard, track, pixels, labels)
        if len(labels) > MAX_ROWS:
            raise DatasetError(f"{shard.parent}: expected at most {MAX_ROWS} rows in all shards")
    if not labels:
        raise DatasetError(f"{shards[0]}: expected images, but found no rows")
    source = str(shards[0] if len(shards) == 1 else shards[0].parent)
    return Images(np.stack(pixels), np.asarray(labels, dtype=np.int64), source=source)


def _read_shard(path: Path, track: Track, pixels: list[Any], labels: list[int]) -> None:
    """Append the rows of one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = _check_schema(path, file)
            row = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[column, "label"]):
                for record in batch.to_pylist():
                    where = f"{path} row {row}"
                    pixels.append(decode(_bytes_of(record[column], where), track, where))
                    labels.append(_label_of(record["label"], track, where))
                    row += 1
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: expected a parquet file, but cannot read it: {error}") from (
            error
        )


def _check_schema(path: Path, file: Any) -> str:
    """The name of the image column of an open file, after its sizes and columns were checked."""
    metadata = file.metadata
    uncompressed = sum(
        metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)
    )
    if metadata.num_rows > MAX_ROWS or uncompressed > MAX_UNCOMPRESSED_BYTES:
        raise DatasetError(
            f"{path}: expected at most {MAX_ROWS} rows and {MAX_UNCOMPRESSED_BYTES} bytes "
            f"uncompressed, but found {metadata.num_rows} and {uncompressed}"
        )
    names = set(file.schema_arrow.names)
    columns = [name for name in IMAGE_COLUMNS if name in names]
    if not columns or "label" not in names:
        raise DatasetError(
            f"{path}: expected the columns `img` or `image` {{bytes, path}} and `label`, "
            f"but found {', '.join(sorted(names)) or 'none'}"
        )
    return columns[0]


def _bytes_of(value: Any, where: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DatasetError(f"{where}: expected the bytes of a picture, but found {type(content)}")
    return content


def _label_of(value: Any, track: Track, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < track.num_classes:
        raise DatasetError(
            f"{where}: expected a label 0 to {track.num_classes - 1} (track {track.name}), "
            f"but found {value!r}"
        )
    return value
