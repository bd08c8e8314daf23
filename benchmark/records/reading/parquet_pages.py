"""How much a parquet file unpacks to, by its footer and by every page's own header.

The footer's sizes are what a writer says of its pages, and readers do not compare the two: a page
of some kilobytes can claim to unpack to gigabytes while the footer says little. So the headers of
the pages are read here, a few bytes each, before a library unpacks one. Layout: "PageHeader" in
parquet.thrift, in thrift's compact protocol.
"""

from __future__ import annotations

from typing import Any

#: Row groups of a table, and columns that it may have beside ours.
MAX_GROUPS, MAX_COLUMNS = 256, 256
#: A column's pages unpack to at most so many bytes, and so many more per row.
COLUMN_BYTES, ROW_BYTES = 64 * 1024, 64

#: Items of all lists in a footer together: a library makes an object of each.
MAX_ITEMS = 100_000

_COMPRESSIONS = {"UNCOMPRESSED", "ZSTD", "SNAPPY"}
#: Encodings whose values take the bytes that they fill, save for repetition within a page.
_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_ENCODING_NUMBERS = {0, 2, 3, 4, 8}
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
#: Where a page header keeps the header of its kind, and that one its number of values and encoding.
_KINDS = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_V2: (8, 1, 4)}
#: Where a footer keeps its own keys and values, such as the run record.
_METADATA = 5
_MAX_HEADER_BYTES = 64 * 1024


def check_footer(content: bytes, max_bytes: int) -> None:
    """Refuse a file whose footer is no parquet footer, or larger than a limit.

    Raises:
        ValueError: says which.
    """
    if len(content) < 12 or content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise ValueError("it does not begin and end like a parquet file")
    length = int.from_bytes(content[-8:-4], "little")
    if length > min(max_bytes, len(content) - 12):
        raise ValueError(f"its footer claims {length} bytes; at most {max_bytes} are allowed")
    end = len(content) - 8
    fields, place = _Compact(content, end - length, end, MAX_ITEMS).struct()
    if place != end:
        raise ValueError("its footer does not end where it says")
    keys = [one.get(1) for one in fields.get(_METADATA) or () if isinstance(one, dict)]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise ValueError(f"key {str(twice[0])[:40]} beside its columns is there twice")


def check_pages(content: bytes, file: Any, names: list[str], max_bytes: int) -> None:
    """Refuse a table that unpacks to too much, before it is unpacked.

    Args:
        content: of the file.
        file: the same as an open ``pyarrow.parquet.ParquetFile``.
        names: columns that will be read.
        max_bytes: of all of them together, unpacked.

    Raises:
        ValueError: says what is too large or not read.
    """
    metadata = file.metadata
    if metadata.num_row_groups > MAX_GROUPS or metadata.num_columns > MAX_COLUMNS:
        raise ValueError(
            f"at most {MAX_GROUPS} row groups and {MAX_COLUMNS} columns are allowed, but it claims "
            f"{metadata.num_row_groups} and {metadata.num_columns}"
        )
    places = [place for place in range(len(file.schema)) if file.schema.column(place).path in names]
    total = 0
    spans: list[tuple[int, int]] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in places:
            unpacked, begin, end = _check_column(content, group.column(place), group.num_rows)
            total, spans = total + unpacked, [*spans, (begin, end)]
    _check_whole(content, sorted(spans))
    if total > max_bytes:
        raise ValueError(
            f"at most {max_bytes} unpacked bytes are allowed, but it claims {total} bytes"
        )


def _check_whole(content: bytes, spans: list[tuple[int, int]]) -> None:
    """Every byte of the file is of a column or of the footer."""
    place = 4
    for begin, end in spans:
        if begin != place:
            raise ValueError(f"{place} bytes into it is something that is no column")
        place = end
    if place != len(content) - 8 - int.from_bytes(content[-8:-4], "little"):
        raise ValueError(f"{place} bytes into it is something that is no column")


def _check_column(content: bytes, chunk: Any, num_rows: int) -> tuple[int, int, int]:
    """Bytes that one column of a row group unpacks to, where it begins and where it ends."""
    name = chunk.path_in_schema
    if chunk.compression not in _COMPRESSIONS or not set(chunk.encodings) <= _ENCODINGS:
        found = ", ".join([chunk.compression, *chunk.encodings])
        raise ValueError(f"column {name}: is compressed or encoded in an unsupported way ({found})")
    if chunk.num_values != num_rows or num_rows < 0:
        raise ValueError(f"column {name}: has {chunk.num_values} values in {num_rows} rows")
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        begin = min(begin, chunk.dictionary_page_offset)
    first, end = begin, begin + chunk.total_compressed_size
    if not 4 <= begin <= end <= len(content):
        raise ValueError(f"column {name}: lies outside the file")
    limit = COLUMN_BYTES + ROW_BYTES * num_rows
    total, values = max(0, int(chunk.total_uncompressed_size)), 0
    unpacked = 0
    while begin < end:
        size, packed, num_values, begin = _page(content, begin, end, name)
        unpacked, values, begin = unpacked + size, values + num_values, begin + packed
        if max(unpacked, total) > limit:
            raise ValueError(
                f"column {name}: at most {limit} unpacked bytes are allowed, but it claims "
                f"{max(unpacked, total)} bytes"
            )
    if begin != end or values != num_rows:
        raise ValueError(f"column {name}: its pages do not match its size in the file")
    return max(unpacked, total), first, end


def _page(content: bytes, begin: int, end: int, name: str) -> tuple[int, int, int, int]:
    """Bytes unpacked and packed, values that are rows, and where the page's content begins."""
    header, place = _Compact(content, begin, min(end, begin + _MAX_HEADER_BYTES)).struct()
    kind = header.get(1)
    if kind not in _KINDS:
        raise ValueError(f"column {name}: has a page of kind {kind}, which is not supported")
    field, num_key, encoding_key = _KINDS[kind]
    inner = header.get(field)
    if not isinstance(inner, dict) or inner.get(encoding_key) not in _ENCODING_NUMBERS:
        raise ValueError(f"column {name}: is encoded in an unsupported way")
    sizes = [header.get(2), header.get(3), inner.get(num_key)]
    if not all(isinstance(one, int) and one >= 0 for one in sizes):
        raise ValueError(f"column {name}: has a page without sizes")
    size, packed, values = (int(one or 0) for one in sizes)
    return size, packed, 0 if kind == _DICTIONARY else values, place


class _Compact:
    """Thrift's compact protocol: as much of it as the headers of pages and a footer need.

    Args:
        content: of the file.
        place: where to begin.
        end: where to give up.
        max_items: of all lists together.
    """

    def __init__(self, content: bytes, place: int, end: int, max_items: int = 1000) -> None:
        self.content, self.place, self.end = content, place, end
        self.left = max_items

    def struct(self, depth: int = 0) -> tuple[dict[int, Any], int]:
        """Field number -> value, and where the struct ends."""
        if depth > 8:
            raise ValueError("a header is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while True:
            byte = self._byte()
            kind = byte & 0x0F
            if kind == 0:
                return fields, self.place
            number = number + (byte >> 4) if byte >> 4 else self._zigzag()
            fields[number] = self._value(kind, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            size = self._varint()
            self._skip(size)
            return self.content[self.place - size : self.place]
        if kind in (9, 10):
            return self._items(depth)
        if kind == 12:
            return self.struct(depth + 1)[0]
        raise ValueError("a header cannot be read")

    def _items(self, depth: int) -> list[Any]:
        """A list or set."""
        byte = self._byte()
        size = byte >> 4 if byte >> 4 != 15 else self._varint()
        self.left -= size
        if self.left < 0:
            raise ValueError("it has more lists than a table of outcomes")
        kind = byte & 0x0F
        # In a list a truth value has a byte of its own.
        return [
            self._byte() if kind in (1, 2) else self._value(kind, depth + 1) for _ in range(size)
        ]

    def _byte(self) -> int:
        if self.place >= self.end:
            raise ValueError("a header does not end")
        self.place += 1
        return self.content[self.place - 1]

    def _skip(self, num_bytes: int) -> None:
        self.place += num_bytes
        if self.place > self.end:
            raise ValueError("a header does not end")

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise ValueError("a header has a number without an end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
