"""Coded adversarial images: what they hold without any pixel, and their exact bits with the clean.

A file of coded images (docs/file-formats.md, "Adversarial images") has a code per value, and the
clean images come from the dataset. Everything is checked and bounded before it is unpacked; decoded
images are compared with the sha256 that was taken of them before they were coded. Imports no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from lzma import LZMAError
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from corobench.benchmark.errors import ConfigError, ResultError
from corobench.benchmark.records.base import Record
from corobench.benchmark.records.reading.arrays_file import (
    MAX_ARRAY_BYTES,
    array_names,
    read_arrays,
    read_images,
)
from corobench.benchmark.records.reading.attack_values import (
    EXCEPTION,
    MOST_STEPS,
    Ball,
    Codes,
    Floats,
    decode_values,
    draw_rows,
    last_code,
    start_of,
)
from corobench.benchmark.records.reading.code_packing import in_order, unpack_codes, unpacked
from corobench.benchmark.records.reading.faults import describe
from corobench.benchmark.records.reading.result_file import parse_object
from corobench.benchmark.tracks import parse_epsilon

#: Arrays of the file.
ARRAYS = ("about", "rows", "blocks", "others", "exceptions")
#: Columns of `rows`.
INDEX, RADIUS, STEPS, SEED, DRAWN = range(5)
#: Longest `about` that is read, in bytes.
MAX_ABOUT = 64 * 1024
#: Numbers of all streams that a file may ask for, 20 times those of the largest test set here.
MAX_DRAWN = 8_000_000_000
#: Images that are decoded at once: their candidates fit into a processor's cache or nearly so.
_AT_ONCE = 16


class Clean(Protocol):
    """Where clean images come from; `benchmark.data.Dataset` is one."""

    @property
    def fingerprint(self) -> str:
        """Of the data, 64 hex digits."""

    def take(self, indices: NDArray[np.int64]) -> Floats:
        """Images by index, float32 (len(indices), C, H, W) in [0, 1]."""


class About(Record):
    """The record inside a file of coded images.

    Attributes:
        version: of the format.
        shape: m, C, H, W of the images.
        fingerprint: of the data that the clean images come from.
        sha256: of the images as they were, float32 in C order, little-endian.
        epsilons: radii that the rows name.
        step_rate: length of a step as a share of the radius.
        most_steps: K of the codes.
        seeds: of the streams that the rows name.
    """

    version: Literal[2]
    shape: tuple[int, int, int, int]
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    epsilons: tuple[str, ...] = Field(max_length=64)
    step_rate: float = Field(gt=0, le=1)
    most_steps: int = Field(ge=1, le=MOST_STEPS)
    seeds: tuple[int, ...] = Field(max_length=4096)


@dataclass(frozen=True)
class CodedImages:
    """Adversarial images whose clean images are not here.

    Attributes:
        path: of the file, for messages.
        about: the record inside.
        rows: int64 (m, 5): index of the clean image in its dataset, or -1 where none is known and
            the image is stored as it is; radius, a place in `about.epsilons`; steps; stream, a
            place in `about.seeds` or -1; row of the stream.
        codes: uint8 (m, V).
        exceptions: uint32, the values of code 255, image by image: how many float32 values each
            lies above the lower border of its ball, or above 0 where no clean image is known.
    """

    path: Path
    about: About
    rows: NDArray[np.int64]
    codes: Codes
    exceptions: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def indices(self) -> NDArray[np.int64]:
        """Index of each clean image in its dataset; -1 where none is needed."""
        return self.rows[:, INDEX]

    def is_same(self, other: CodedImages) -> bool:
        """Whether another file holds the same codes of the same images."""
        return (
            self.about == other.about
            and np.array_equal(self.rows, other.rows)
            and np.array_equal(self.codes, other.codes)
            and np.array_equal(self.exceptions, other.exceptions)
        )

    def decode(self, clean: Clean) -> Floats:
        """All images, float32 (m, C, H, W), with the bits they had.

        Raises:
            ResultError: the clean images are other ones, or the images differ from their sha256.
        """
        images = self.some(np.arange(len(self)), clean)
        found = hashlib.sha256(images.astype("<f4", copy=False).tobytes()).hexdigest()
        if found != self.about.sha256:
            raise self._fault(
                f"expected images of sha256 {self.about.sha256[:12]}..., but decoded "
                f"{found[:12]}...; bring the file back from a copy"
            )
        return images

    def some(self, numbers: NDArray[np.int64], clean: Clean) -> Floats:
        """Some images, float32 (len(numbers), C, H, W) in [0, 1]; no sha256 is compared.

        Raises:
            ResultError: the clean images are other ones, or a code has no meaning.
        """
        if clean.fingerprint != self.about.fingerprint:
            raise self._fault(
                f"its clean images are those of the data {self.about.fingerprint[:12]}, but the "
                f"data here are {clean.fingerprint[:12]}; name the same data with --data-root"
            )
        shape = self.about.shape[1:]
        found = np.empty((len(numbers), self.codes.shape[1]), np.float32)
        starts = self._starts(numbers)
        for place, epsilon in enumerate(self.about.epsilons):
            here = np.flatnonzero(self.rows[numbers, RADIUS] == place)
            for first in range(0, len(here), _AT_ONCE):
                part = here[first : first + _AT_ONCE]
                images = self._clean(numbers[part], clean)
                drawn = {int(row): starts[int(row)] for row in part if int(row) in starts}
                found[part] = self._decoded(
                    numbers[part], images, parse_epsilon(epsilon), [drawn.get(int(r)) for r in part]
                )
        if not ((found >= 0) & (found <= 1)).all():
            raise self._fault("exceptions: expected values in [0, 1], but found others")
        return found.reshape(len(numbers), *shape)

    def _starts(self, numbers: NDArray[np.int64]) -> dict[int, Floats]:
        """Place in `numbers` -> what was drawn for its start, (V,)."""
        found: dict[int, Floats] = {}
        for stream, seed in enumerate(self.about.seeds):
            places = np.flatnonzero(self.rows[numbers, SEED] == stream)
            drawn = draw_rows(seed, self.rows[numbers[places], DRAWN], self.codes.shape[1])
            found.update(zip(places.tolist(), drawn, strict=True))
        return found

    def _clean(self, numbers: NDArray[np.int64], clean: Clean) -> Floats:
        indices = self.indices[numbers]
        images = np.zeros((len(numbers), self.codes.shape[1]), np.float32)
        known = indices >= 0
        if known.any():
            try:
                images[known] = clean.take(indices[known]).reshape(int(known.sum()), -1)
            except (IndexError, KeyError, ValueError) as error:
                raise self._fault(f"names a clean image that the data have not ({error})") from None
        return images

    def _decoded(
        self,
        numbers: NDArray[np.int64],
        clean: Floats,
        radius: Fraction,
        drawn: list[Floats | None],
    ) -> Floats:
        start = clean.copy()
        for row, numbers_drawn in enumerate(drawn):
            if numbers_drawn is not None:
                start[row] = start_of(clean[row], numbers_drawn, radius)
        ball = Ball.of(clean, start, radius, self.about.step_rate, self.rows[numbers, STEPS])
        codes, is_whole = self.codes[numbers], self.indices[numbers] < 0
        values, is_unknown = decode_values(codes, ball, self.about.most_steps)
        if is_unknown.any() or (codes[is_whole] != EXCEPTION).any():
            raise self._fault("codes: expected codes of the table in docs/file-formats.md")
        ball.lower[is_whole] = 0
        ends = self._ends[numbers]
        for row, end in enumerate(ends.tolist()):
            here = codes[row] == EXCEPTION
            above = self.exceptions[end - int(here.sum()) : end]
            values[row, here] = (ball.lower[row, here].view(np.uint32) + above).view(np.float32)
        return values

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where the exceptions of each image end."""
        return np.cumsum((self.codes == EXCEPTION).sum(axis=1))

    def _fault(self, what: str) -> ResultError:
        return ResultError(f"{self.path}: {what}")


def read_adversarial(path: Path, shape: tuple[int, int, int]) -> Floats | CodedImages:
    """The adversarial images of a result, or their codes.

    Args:
        path: npz file, coded or with the array ``images``.
        shape: channels, height, width of the track's images.

    Raises:
        ResultError: unreadable, or neither.
    """
    return read_coded(path, shape) if is_coded(path) else read_images(path, shape)


def is_coded(path: Path) -> bool:
    """Whether a file says that it holds coded images.

    Raises:
        ResultError: unreadable, or no archive.
    """
    return "images" not in (names := array_names(path)) and ARRAYS[0] in names


def decoded(stored: Floats | CodedImages, clean: Clean) -> Floats:
    """Images that were read, as float32 (m, C, H, W).

    Raises:
        ResultError: see :meth:`CodedImages.decode`.
    """
    return stored.decode(clean) if isinstance(stored, CodedImages) else stored


def read_coded(path: Path, shape: tuple[int, int, int]) -> CodedImages:
    """The coded images of a file, checked as far as no clean image is needed.

    Args:
        path: npz file with the arrays :data:`ARRAYS`.
        shape: channels, height, width of the track's images.

    Raises:
        ResultError: unreadable, no such file, or something in it that no writer writes.
    """
    arrays = read_arrays(path, ARRAYS)
    try:
        about = _about(arrays["about"])
        return _checked(path, about, arrays, shape)
    except (ValueError, ConfigError, LZMAError) as error:
        raise ResultError(f"{path}: expected coded adversarial images: {error}") from error


def _about(found: NDArray[np.generic]) -> About:
    if found.dtype != np.uint8 or found.ndim != 1 or len(found) > MAX_ABOUT:
        raise ValueError(f"about: expected JSON in at most {MAX_ABOUT} bytes")
    try:
        parse_object(found.tobytes().decode())  # no key twice
    except ValueError as error:
        raise ValueError(f"about: {error}") from None
    try:
        return About.model_validate_json(found.tobytes(), strict=True)
    except ValidationError as error:
        faults = "; ".join(describe(fault, About) for fault in error.errors()[:5])
        raise ValueError(f"about: {faults}") from None


def _checked(
    path: Path,
    about: About,
    arrays: dict[str, NDArray[np.generic]],
    shape: tuple[int, int, int],
) -> CodedImages:
    num, num_values = about.shape[0], int(np.prod(shape))
    if about.shape[1:] != shape or num < 0 or num * num_values * 4 > MAX_ARRAY_BYTES:
        raise ValueError(f"about.shape: expected (m, {', '.join(map(str, shape))})")
    for epsilon in about.epsilons:
        parse_epsilon(epsilon)
    if not all(0 <= seed < 2**32 for seed in about.seeds):
        raise ValueError("about.seeds: expected numbers of 32 bits")
    found = arrays["rows"]
    if found.dtype != np.int32 or found.shape != (num, 5):
        raise ValueError(f"rows: expected int32 ({num}, 5), found {found.dtype} {found.shape}")
    rows = found.astype(np.int64)
    _check_rows(rows, about, num_values)
    codes = np.empty((num, num_values), np.uint8)
    codes[in_order(rows[:, STEPS])] = unpack_codes(arrays, num, shape)
    is_exception = codes == EXCEPTION
    last = last_code(about.most_steps)
    if ((codes > last) & ~is_exception).any():
        raise ValueError(f"codes: expected at most {last}, or {EXCEPTION}")
    planes = unpacked(arrays, "exceptions", 4 * int(np.count_nonzero(is_exception))).reshape(4, -1)
    exceptions = np.ascontiguousarray(planes.T).view("<u4").astype(np.uint32).reshape(-1)
    return CodedImages(path, about, rows, codes, exceptions)


def _check_rows(rows: NDArray[np.int64], about: About, num_values: int) -> None:
    ranges = {
        "index": (INDEX, -1, 2**31),
        "radius": (RADIUS, 0, len(about.epsilons)),
        "steps": (STEPS, 1, about.most_steps + 1),
        "stream": (SEED, -1, len(about.seeds)),
        "drawn": (DRAWN, 0, 2**31),
    }
    for name, (column, least, end) in ranges.items():
        if not ((rows[:, column] >= least) & (rows[:, column] < end)).all():
            raise ValueError(f"rows: {name}: expected whole numbers from {least} to {end - 1}")
    last = [
        rows[rows[:, SEED] == stream, DRAWN].max(initial=-1) for stream in range(len(about.seeds))
    ]
    if num_values * sum(int(row) + 1 for row in last) > MAX_DRAWN:
        raise ValueError(f"rows: drawn: expected at most {MAX_DRAWN} random numbers in all")
