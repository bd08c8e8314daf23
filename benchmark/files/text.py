"""Text files that people write: what an editor put in front of the text is named."""

from __future__ import annotations

import codecs

#: Marks that editors write in front of a text, and the encoding that each stands for.
_MARKS = (
    (codecs.BOM_UTF8, "UTF-8 with BOM"),
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def byte_order_mark(content: bytes) -> str | None:
    """The fault of a text that begins with a byte order mark, or None where there is none.

    >>> byte_order_mark(b"schema = 1")
    >>> byte_order_mark(b"\\xef\\xbb\\xbfschema = 1")[:48]
    'expected UTF-8 without a byte order mark (BOM), '
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return (
                "expected UTF-8 without a byte order mark (BOM), but the file begins with "
                f'{mark.hex(" ")}, which is {name}; save it as "UTF-8"'
            )
    return None
