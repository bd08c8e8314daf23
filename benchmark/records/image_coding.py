"""Adversarial images -> a small file with their exact bits, given the clean images.

The reader is `benchmark.records.reading.coded_images`. What is guessed here (which image a row
belongs to, from which random start an attack came, after how many steps) only makes the file small:
a value that no guess explains is stored as it is, and all are decoded and compared before they are
kept. Why it is done this way is in docs/decisions/0009. Imports no torch.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.records.reading.attack_values import (
    EXCEPTION,
    MOST_STEPS,
    Ball,
    Codes,
    Floats,
    borders,
    count_corners,
    draw,
    draw_rows,
    encode_values,
    start_of,
    step_length,
)
from corobench.benchmark.records.reading.code_packing import in_order, pack, pack_codes
from corobench.benchmark.records.reading.coded_images import (
    DRAWN,
    INDEX,
    RADIUS,
    SEED,
    STEPS,
    About,
    Clean,
    CodedImages,
)
from corobench.benchmark.records.result import Run
from corobench.benchmark.tracks import Protocol, derive_seed, get_track, parse_epsilon

if TYPE_CHECKING:
    import pandas as pd

#: Values of an image that are compared with a random stream, and how many must fit.
NUM_PROBED, NUM_FIT = 64, 4
#: How far a value may be from a whole number of steps, in 2**-16 of a step: rounding of float32.
_SLACK = 32
#: Images that are coded at once.
_AT_ONCE = 16
#: Streams that are kept while images are looked up.
_STREAMS_KEPT = 12


def encode(images: Floats, table: pd.DataFrame, run: Run, clean: Clean) -> bytes:
    """The content of a file of coded images; see :func:`code`."""
    return _content(code(images, table, run, clean))


def code(images: Floats, table: pd.DataFrame, run: Run, clean: Clean) -> CodedImages:
    """Adversarial images as codes.

    Args:
        images: float32 (m, C, H, W), the stored adversarial images.
        table: outcome table, whose rows name them.
        run: the table's.
        clean: the dataset that the images were made from.

    Returns:
        Codes that were decoded again and gave these bits.
    """
    shape = get_track(run.track).shape
    images = np.ascontiguousarray(images, np.float32).reshape(-1, *shape)
    flat = images.reshape(len(images), math.prod(shape))
    plan = _Plan.of(run)
    rows, attacks = _rows_of(table, len(images), run)
    codes = np.full(flat.shape, EXCEPTION, np.uint8)
    above = flat.view(np.uint32).copy()
    for place, epsilon in enumerate(run.epsilons):
        here = np.flatnonzero((rows[:, RADIUS] == place) & (rows[:, INDEX] >= 0))
        radius = parse_epsilon(epsilon)
        tried = here[attacks[here] == plan.attack]
        rows[tried, SEED], rows[tried, DRAWN] = _find_starts(
            flat[tried], _take(clean, rows[tried, INDEX]), radius, plan, place
        )
        noise = _drawn(rows[here], flat.shape[1])
        for first in range(0, len(here), _AT_ONCE):
            part = here[first : first + _AT_ONCE]
            before = _take(clean, rows[part, INDEX])
            codes[part], rows[part, STEPS] = _coded(
                flat[part], before, noise[first : first + _AT_ONCE], radius, plan
            )
            above[part] -= borders(before, radius)[0].view(np.uint32)
    about = About(
        version=2,
        shape=(len(images), *shape),
        fingerprint=clean.fingerprint,
        sha256=hashlib.sha256(images.astype("<f4", copy=False).tobytes()).hexdigest(),
        epsilons=run.epsilons,
        step_rate=plan.step_rate,
        most_steps=plan.most_steps,
        seeds=plan.used(rows),
    )
    coded = CodedImages(Path("images"), about, rows, codes, above[codes == EXCEPTION])
    coded.decode(clean)
    return coded


@dataclass
class _Plan:
    """Where random starts of a run came from.

    Attributes:
        attack: name of the attack with random starts.
        step_rate: length of its steps as a share of the radius.
        most_steps: steps that always lead from border to border.
        seeds: per radius, the seed of each chunk.
        num_drawn: rows of a stream, at most.
    """

    attack: str
    step_rate: float
    most_steps: int
    seeds: tuple[tuple[int, ...], ...]
    num_drawn: int

    @classmethod
    def of(cls, run: Run) -> _Plan:
        track = get_track(run.track)
        known = {**Protocol().as_settings(), "chunk_size": track.chunk_size, **run.settings}
        size, rate = int(str(known["chunk_size"])), float(str(known["pgd_step_rate"]))
        attack = f"pgd{known['pgd_steps']}"
        chunks = range(-(-run.n // max(1, size)))
        return cls(
            attack,
            rate,
            max(1, min(MOST_STEPS, int(np.ceil(2 / rate)))),
            tuple(
                tuple(
                    derive_seed(run.seed, run.track, f"{attack}:{epsilon}", chunk)
                    for chunk in chunks
                )
                for epsilon in run.epsilons
            ),
            size * int(str(known["pgd_restarts"])),
        )

    def used(self, rows: NDArray[np.int64]) -> tuple[int, ...]:
        """The seeds that rows name, which from then on name their places among these."""
        number = {seed: place for place, seed in enumerate(sorted(set(rows[:, SEED]) - {-1}))}
        rows[:, SEED] = [number.get(seed, -1) for seed in rows[:, SEED].tolist()]
        return tuple(int(seed) for seed in number)


@dataclass
class _Search:
    """Looks up the random start that an image came from, at one radius."""

    plan: _Plan
    radius: int
    num_values: int
    _streams: dict[int, NDArray[np.uint16]] = field(default_factory=dict)
    _last: int = 0

    def find(self, offsets: Floats, probed: NDArray[np.int64]) -> tuple[int, int]:
        """The seed and the row of its stream that fit best, or (-1, 0).

        Args:
            offsets: (P,) distance of values from the clean image, in steps.
            probed: (P,) which values.
        """
        seeds = self.plan.seeds[self.radius]
        order = sorted(range(len(seeds)), key=lambda chunk: abs(chunk - self._last))
        phases = _phase(offsets)
        best, found = NUM_FIT - 1, (-1, 0)
        for chunk in order:
            # Unsigned differences wrap around, as phases do.
            apart = self._stream(chunk)[:, probed] - phases + np.uint16(_SLACK)
            fits = (apart <= 2 * _SLACK).sum(axis=1)
            row = int(fits.argmax())
            if fits[row] > best:
                best, found = int(fits[row]), (seeds[chunk], row)
                self._last = chunk
            if 2 * best > len(probed):
                break
        return found

    def _stream(self, chunk: int) -> NDArray[np.uint16]:
        """The noise of a chunk in steps, as phases: uint16 (rows, V)."""
        if chunk not in self._streams:
            while len(self._streams) >= _STREAMS_KEPT:
                del self._streams[next(iter(self._streams))]
            rate = self.plan.step_rate
            drawn = [
                _phase((part.astype(np.float64) * 2 - 1) / rate)
                for part in np.array_split(
                    draw(
                        self.plan.seeds[self.radius][chunk], self.plan.num_drawn * self.num_values
                    ),
                    16,
                )
            ]
            self._streams[chunk] = np.concatenate(drawn).reshape(-1, self.num_values)
        return self._streams[chunk]


def _phase(steps: NDArray[np.floating]) -> NDArray[np.uint16]:
    """The part of a number of steps beyond a whole number, in 2**-16."""
    return (np.rint(steps.astype(np.float64) * 65536).astype(np.int64) & 0xFFFF).astype(np.uint16)


def _rows_of(
    table: pd.DataFrame, num: int, run: Run
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Of each stored image what the table says: clean image and smallest radius; what broke it."""
    rows = np.tile(np.array([-1, 0, 1, -1, 0], dtype=np.int64), (num, 1))
    attacks = np.full(num, "", dtype=object)
    for place, epsilon in reversed(list(enumerate(run.epsilons))):
        here = table[(table["epsilon"] == epsilon) & table["adversarial"].between(0, num - 1)]
        stored = here["adversarial"].to_numpy()
        rows[stored, INDEX], rows[stored, RADIUS] = here["image"].to_numpy(), place
        attacks[stored] = here["decided_by"].to_numpy()
    return rows, attacks


def _take(clean: Clean, indices: NDArray[np.int64]) -> Floats:
    """Clean images, flat: float32 (len(indices), V)."""
    images = clean.take(indices)
    return images.reshape(len(indices), math.prod(images.shape[1:]))


def _find_starts(
    values: Floats, clean: Floats, radius: Fraction, plan: _Plan, place: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Seeds (-1 for none that is known) and rows of their streams, of images of one radius."""
    search = _Search(plan, place, values.shape[1])
    lower, upper = borders(clean, radius)
    step = step_length(radius, plan.step_rate)
    seeds, drawn = np.full(len(values), -1), np.zeros(len(values), dtype=np.int64)
    for row in range(len(values)):
        inside = np.flatnonzero((values[row] != lower[row]) & (values[row] != upper[row]))
        # Values in the middle lose least to rounding and were stopped at neither 0 nor 1.
        probed = inside[np.argsort(abs(clean[row, inside] - 0.5), kind="stable")][:NUM_PROBED]
        offsets = (values[row, probed] - clean[row, probed]) / step
        seeds[row], drawn[row] = search.find(offsets, probed)
    return seeds, drawn


def _drawn(rows: NDArray[np.int64], num_values: int) -> Floats:
    """The noise of the starts of some images, (R, V); NaN where no start is known."""
    found = np.full((len(rows), num_values), np.nan, np.float32)
    for seed in set(rows[:, SEED].tolist()) - {-1}:
        here = rows[:, SEED] == seed
        found[here] = draw_rows(seed, rows[here, DRAWN], num_values)
    return found


def _coded(
    values: Floats, clean: Floats, noise: Floats, radius: Fraction, plan: _Plan
) -> tuple[Codes, NDArray[np.int64]]:
    """Codes and steps of some images of one radius."""
    is_known = ~np.isnan(noise[:, :1])
    start = np.where(is_known, start_of(clean, noise, radius), clean)
    steps = np.full(len(values), plan.most_steps)
    ball = Ball.of(clean, start, radius, plan.step_rate, steps)
    counts = count_corners(values, ball, plan.most_steps)
    steps[is_known[:, 0]] = (counts.argmax(axis=0) + 1)[is_known[:, 0]]
    return encode_values(values, ball, plan.most_steps), steps


def _content(coded: CodedImages) -> bytes:
    """The archive of some coded images."""
    exceptions = coded.exceptions.astype("<u4").view(np.uint8).reshape(-1, 4).T
    ordered = coded.codes[in_order(coded.rows[:, STEPS])]
    blocks, others = pack_codes(ordered, coded.about.shape[1:])
    arrays: Sequence[tuple[str, NDArray[np.generic]]] = (
        ("about", np.frombuffer(coded.about.model_dump_json().encode(), np.uint8)),
        ("rows", coded.rows.astype(np.int32)),
        ("blocks", blocks),
        ("others", others),
        ("exceptions", pack(np.ascontiguousarray(exceptions).tobytes())),
    )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()
