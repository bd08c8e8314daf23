"""What all records share: their base classes and the types of their keys. Imports no torch."""

from __future__ import annotations

import unicodedata
from datetime import date
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

#: Names of devices on Windows, which no file may have there, whatever follows after a dot.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}
)
#: Letters that are not seen, or that turn the order of those around them.
_UNSEEN = frozenset(
    map(
        chr,
        (
            *(0x00AD, 0x034F, 0x061C, 0x17B4, 0x17B5, 0x2800, *range(0x1D173, 0x1D17B)),
            *(0x115F, 0x1160, 0x180E, 0x200B, 0x200E, 0x200F, 0x3164, 0xFEFF),
            *(0xFFA0, *range(0x2028, 0x202F), *range(0x2060, 0x2070)),
            *(*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)),
        ),
    )
)


def _storable(name: str) -> str:
    """A name that every common file system can hold."""
    if name.endswith("."):
        raise ValueError("a name that does not end in a dot, which Windows takes away")
    if name.split(".")[0].lower() in _DEVICES:
        raise ValueError("a name that Windows can store; this one is a device there")
    return name


def visible(text: str, allowed: str = "") -> str:
    """Text in which nothing is hidden: no control, bidi or invisible characters."""
    if text.isascii() and text.isprintable():
        return text
    for letter in text:
        category = unicodedata.category(letter)
        if letter not in allowed and (category in ("Cc", "Cs") or letter in _UNSEEN):
            raise ValueError(
                "text without control characters and invisible or direction-changing letters "
                f"(here U+{ord(letter):04X})"
            )
    return text


def _visible_lines(text: str) -> str:
    return visible(text, "\n\t")


def _not_blank(text: str) -> str:
    if text and not text.strip():
        raise ValueError("text that is not blank")
    return text


def _real_day(text: str) -> str:
    """A day that was or will be, so that feeds and pages need not guess."""
    try:
        if text:
            date.fromisoformat(text)
    except ValueError:
        raise ValueError("a day such as 2026-11-28") from None
    return text


def _whole(value: object) -> object:
    """Not `true` and not 1.0, which Python takes for 1."""
    if type(value) is not int:
        raise ValueError("the whole number 1")
    return value


#: Key `schema` of the first version of a format.
FirstSchema = Annotated[Literal[1], BeforeValidator(_whole)]
#: Text in which nothing is hidden.
Visible = Annotated[str, AfterValidator(visible)]
Identifier = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$"),
    AfterValidator(_storable),
]
ShortText = Annotated[
    Visible, StringConstraints(min_length=1, max_length=200), AfterValidator(_not_blank)
]
#: Like :data:`ShortText`, but may be empty.
OptionalText = Annotated[Visible, StringConstraints(max_length=200)]
LongText = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_visible_lines)]
Link = Annotated[Visible, StringConstraints(pattern=r"^https?://[^\s<>\"']+$", max_length=500)]
FileName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200),
    AfterValidator(_storable),
]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: A sha256, or empty where none was recorded.
Digest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
Day = Annotated[
    str,
    StringConstraints(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"),
    AfterValidator(_real_day),
]
#: Name of a health flag.
Flag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
#: Seconds; at most some ten thousand years.
Duration = Annotated[float, Field(ge=0, le=1e12)]


class Record(BaseModel):
    """Base of all records that users write: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredRecord(BaseModel):
    """Base of all records that corobench writes: frozen; later versions may add keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")
