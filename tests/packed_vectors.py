"""Test vectors of the packed format, built byte by byte as docs/packed-format.md says.

python tests/packed_vectors.py > docs/packed-vectors.json
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from typing import Any

FORMAT = "corobench-packed-1"
Part = tuple[str, str, list[int], bytes]  # name, type, shape, bytes


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def packed(name: str, kind: str, mask: bytes, values: bytes, width: int) -> list[Part]:
    return [
        (f"{name}#values", kind, [len(values) // width], values),
        (f"{name}#mask", "U8", [len(mask)], mask),
    ]


def file_of(
    parts: list[Part],
    shapes: dict[str, Any] | str,
    *,
    form: str | None = FORMAT,
    padding: int = 8,
    **more: Any,
) -> bytes:
    """A file; its values follow one another as the parts are given."""
    text = shapes if isinstance(shapes, str) else json.dumps(shapes, separators=(",", ":"))
    metadata = {"shapes": text} if form is None else {"format": form, "shapes": text}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, kind, shape, content in parts:
        begin, end = end, end + len(content)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header |= more
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % padding)
    return len(head).to_bytes(8, "little") + head + b"".join(part[3] for part in parts)


W = packed("w", "F32", b"\x22", floats(1.5, -2.0), 4)
ODD = floats(float("inf"), float("-inf")) + b"\x01\x00\xc0\x7f"
F16, BF16 = struct.pack("<e", 0.25), b"\x80\xbf"  # 0.25 and -1.0
WORKS: list[tuple[str, str, bytes, dict[str, tuple[str, list[int], bytes]]]] = [
    (
        "basic",
        "two of six values",
        file_of(W, {"w": [2, 3]}),
        {"w": ("F32", [2, 3], floats(0, 1.5, 0, 0, 0, -2.0))},
    ),
    (
        "lowest bit first",
        "values 0, 8 and 9 of ten: the first byte is 0x01, the second 0x03",
        file_of(packed("w", "F32", b"\x01\x03", floats(1, 2, 3), 4), {"w": [10]}),
        {"w": ("F32", [10], floats(1, 0, 0, 0, 0, 0, 0, 0, 2, 3))},
    ),
    (
        "negative zero",
        "a bit is 0 only where all bits of the value are 0",
        file_of(packed("w", "F32", b"\x04", floats(-0.0), 4), {"w": [4]}),
        {"w": ("F32", [4], floats(0, 0, -0.0, 0))},
    ),
    (
        "no number",
        "infinities and the bits of a NaN come back",
        file_of(
            packed("w", "F32", b"\x07\x00\x00", ODD, 4),
            {"w": [20]},
        ),
        {
            "w": ("F32", [20], ODD + floats(*[0.0] * 17)),
        },
    ),
    (
        "types",
        "F64, F16 and BF16; a reader without bfloat16 may give float32",
        file_of(
            [
                *packed("d", "F64", b"\x02", struct.pack("<d", 0.1), 8),
                *packed("h", "F16", b"\x01", F16, 2),
                *packed("b", "BF16", b"\x01", BF16, 2),
            ],
            {"d": [2], "h": [3], "b": [1, 2]},
        ),
        {
            "d": ("F64", [2], struct.pack("<2d", 0, 0.1)),
            "h": ("F16", [3], F16 + bytes(4)),
            "b": ("BF16", [1, 2], BF16 + bytes(2)),
        },
    ),
    (
        "packed and plain",
        "the metadata may lack nothing but plain tensors; order of names and values is free",
        file_of(
            [("z.bias", "F32", [2], floats(3, 4)), *W, ("a", "F32", [], floats(5))], {"w": [6]}
        ),
        {
            "a": ("F32", [], floats(5)),
            "w": ("F32", [6], floats(0, 1.5, 0, 0, 0, -2.0)),
            "z.bias": ("F32", [2], floats(3, 4)),
        },
    ),
    (
        "nothing kept",
        "all values are zero; an empty tensor; a tensor without dimensions",
        file_of(
            [
                *packed("zero", "F32", bytes(2), b"", 4),
                *packed("empty", "F32", b"", b"", 4),
                *packed("one", "F32", b"\x01", floats(7), 4),
            ],
            {"zero": [3, 3], "empty": [0, 3], "one": []},
        ),
        {
            "zero": ("F32", [3, 3], bytes(36)),
            "empty": ("F32", [0, 3], b""),
            "one": ("F32", [], floats(7)),
        },
    ),
    (
        "nothing packed",
        "the shapes are an empty object",
        file_of([("w", "F32", [1], floats(1))], {}),
        {"w": ("F32", [1], floats(1))},
    ),
    (
        "without padding",
        "the header need not end at a multiple of eight",
        file_of(W, {"w": [6]}, padding=1),
        {"w": ("F32", [6], floats(0, 1.5, 0, 0, 0, -2.0))},
    ),
    (
        "names",
        "any text but `#`",
        file_of(packed("größe.0/x y", "F32", b"\x01", floats(1), 4), {"größe.0/x y": [2]}),
        {"größe.0/x y": ("F32", [2], floats(1, 0))},
    ),
]
_TWICE = file_of(W, {"w": [6]})
REFUSED: list[tuple[str, str, bytes]] = [
    (
        "another version",
        "`format` is not this one",
        file_of(W, {"w": [6]}, form="corobench-packed-2"),
    ),
    ("no version", "`format` is missing", file_of(W, {"w": [6]}, form=None)),
    (
        "ones behind the end",
        "bit 6 of six values",
        file_of(packed("w", "F32", b"\x42", floats(1.5, -2.0), 4), {"w": [6]}),
    ),
    (
        "fewer ones than values",
        "one bit, two values",
        file_of(packed("w", "F32", b"\x02", floats(1.5, -2.0), 4), {"w": [6]}),
    ),
    (
        "more ones than values",
        "three bits, two values",
        file_of(packed("w", "F32", b"\x07", floats(1.5, -2.0), 4), {"w": [6]}),
    ),
    ("no mask", "`w#mask` is missing", file_of(W[:1], {"w": [6]})),
    ("no values", "`w#values` is missing", file_of(W[1:], {"w": [6]})),
    ("no shape", "`w` is not among the shapes", file_of(W, {})),
    ("a shape alone", "`v` has a shape and no tensors", file_of(W, {"w": [6], "v": [1]})),
    (
        "packed and plain at once",
        "`w` is there twice",
        file_of([*W, ("w", "F32", [6], bytes(24))], {"w": [6]}),
    ),
    (
        "a mask too long",
        "two bytes for six values",
        file_of(packed("w", "F32", b"\x22\x00", floats(1.5, -2.0), 4), {"w": [6]}),
    ),
    (
        "a mask of another type",
        "I8 instead of U8",
        file_of([W[0], ("w#mask", "I8", [1], b"\x22")], {"w": [6]}),
    ),
    (
        "values of whole numbers",
        "I32 instead of a floating-point type",
        file_of(packed("w", "I32", b"\x22", bytes(8), 4), {"w": [6]}),
    ),
    (
        "values in two rows",
        "the values must be one row",
        file_of([("w#values", "F32", [2, 1], floats(1.5, -2.0)), W[1]], {"w": [6]}),
    ),
    ("a negative size", "shape [-6]", file_of(W, {"w": [-6]})),
    ("a size that is no whole number", "shape [6.0]", file_of(W, {"w": [6.0]})),
    ("shapes twice", "a name is listed twice in the shapes", file_of(W, '{"w":[6],"w":[6]}')),
    ("shapes that are no JSON", "the text ends early", file_of(W, '{"w":[6]')),
    ("nested shapes", "a thousand brackets", file_of(W, "[" * 1000)),
    ("truncated", "the last byte is missing", _TWICE[:-1]),
    ("bytes left over", "one byte behind the last tensor", _TWICE + b"\x00"),
    (
        "overlapping",
        "mask and values share bytes",
        file_of(W, {"w": [6]}, **{"w#mask": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}),
    ),
    ("a huge claim", "2**40 values in a file of two hundred bytes", file_of(W, {"w": [2**40]})),
    (
        "a part of nothing",
        "`v#mask` without a shape",
        file_of([*W, ("v#mask", "U8", [1], b"\x01")], {"w": [6]}),
    ),
    ("empty", "no byte at all", b""),
]


def as_json() -> str:
    """The committed file."""
    works = [
        {
            "name": name,
            "what": what,
            "file": base64.b64encode(content).decode(),
            "tensors": {
                tensor: {"dtype": kind, "shape": shape, "bytes": data.hex()}
                for tensor, (kind, shape, data) in tensors.items()
            },
        }
        for name, what, content, tensors in WORKS
    ]
    refused = [
        {"name": name, "what": what, "file": base64.b64encode(content).decode()}
        for name, what, content in REFUSED
    ]
    table = {"format": FORMAT, "works": works, "refused": refused}
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_json())
