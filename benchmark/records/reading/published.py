"""Which images a result must be about: the published order, and digests of the labels.

No dataset is needed. The order follows from the track's name. Of every test set that is
known, the sha256 of its labels in that order is kept here for each subset of its track, which are
all numbers of images that a public result may have; of `digits`, which are few, the labels
themselves. All labels would be 20,000 more values in the code and show no more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.records.result import DataInfo
from corobench.benchmark.tracks import TRACKS, get_track, published_order

IntArray = NDArray[np.integer]

#: A mirror has at most so many times the images of the canonical test set.
MAX_MIRROR = 10


@dataclass(frozen=True)
class Known:
    """A test set that is known without being there.

    Attributes:
        track: it is of.
        num_images: in it.
        labels: n -> :func:`label_digest` of the first n labels of the published order.
        all_labels: the labels themselves, one digit each, or empty.
    """

    track: str
    num_images: int
    labels: dict[int, str]
    all_labels: str = ""


#: Fingerprint -> what is known. The last one is a JPEG copy of CIFAR-10 (`data: mirror`).
KNOWN: dict[str, Known] = {
    "2859c6218aa8c6de01eaf56acb676c8d47ed10a7f6331f44695dbeb570304b93": Known(
        "digits",
        500,
        {
            100: "65fb253532ed6455a46034dcd1e70fb80ab183f2293e00c941e3b0fc682974c0",
            500: "46f40cbd71ba73d71bac2cc3fde36b89fad903c18f2855f1f7888bacb2f4da81",
        },
        "1491750808227011199303011015630735541797492369623491670248788369264762290449377325014878254381591963"
        "2726720200300973046026033517656423864491270105238286170686845275183659428904183769659119737956754377"
        "5124801445534169843247189158397641687498716272490260301810275237563326417351325687971557789561656596"
        "7288923035551471526971381541143746708894813206547329910620115260655762205462210023727799133816849914"
        "6654734673745083949404625277949028995752967521575194340421396540322764019099083862858506966416441316",
    ),
    "eb62b81c56823ecc3bd377cd89477dc85d76a5bf175637f970740a57fda0004a": Known(
        "fashion-mnist",
        10000,
        {
            100: "8181567303efb0d456324c35c2b38a2d529a7e160104aa1fee5a678eb4739cae",
            1000: "e956bd0920f4e39c79dbb5d6bff17dafa5b503e5b95d005393597b70fd0b9e1a",
            10000: "963fbac68895114d3b1dd6cfba87eb5a9e8cc54f995bf56866c2cd1e440cd50a",
        },
    ),
    "446e3900cbf1518ea7b1c8f244b097c9bcd7265fd234dd4fab0160ac3e4605ff": Known(
        "cifar10",
        10000,
        {
            100: "31dded3d0f194250ab17742db9f2a771da4c2b4b4e738e5b1509211d13519d74",
            1000: "783148cf5807fe25d070b24ff8fb08cb902b3844b4bb8e8ecba05e8a1f198373",
            10000: "512ddbe3dc261f7fe821c79415a0382cbfaac8a154dc2b1208eba1c9c0cdd7ca",
        },
    ),
}


def label_digest(labels: IntArray) -> str:
    """sha256 over labels as unsigned 16-bit little-endian numbers.

    >>> label_digest(np.array([3, 1]))[:16]
    '8b629f0ae492bf75'
    """
    return hashlib.sha256(np.asarray(labels).astype("<u2").tobytes()).hexdigest()


@lru_cache(maxsize=32)
def order_of(track: str, num_images: int) -> IntArray:
    """`benchmark.tracks.published_order` as a read-only int64 array, kept for the next one."""
    order = np.asarray(published_order(track, num_images), dtype=np.int64)
    order.flags.writeable = False
    return order


def data_faults(track: str, data: DataInfo, n: int) -> list[str]:
    """What a result says of its images that cannot be true, one line per fault.

    Args:
        track: name of the track; an unknown one has no faults here.
        data: what the result says.
        n: images it is about.
    """
    if track not in TRACKS:
        return []
    known, canonical = KNOWN.get(data.fingerprint), TRACKS[track].fingerprint
    faults = []
    if known is not None and known.track != track:
        faults.append(f"data.fingerprint: expected images of {track}, found those of {known.track}")
    elif known is not None and n > known.num_images:
        faults.append(
            f"n: expected at most {known.num_images}, the size of the test set, found {n}"
        )
    if canonical and (data.kind == "canonical") != (data.fingerprint == canonical):
        faults.append(
            f"data.kind: expected 'canonical' for the fingerprint {canonical[:12]} and 'mirror' "
            f"for all others, found {data.kind!r} for {data.fingerprint[:12]!r}"
        )
    return faults


def images_fault(track: str, data: DataInfo, images: IntArray) -> str:
    """Why images are not the first n of the published order; empty where they are.

    A mirror may have fewer images than the canonical test set, and keeps the order of those it
    has. How many is not in the result; but the first n of all up to the largest index among them
    are the same for every size that is large enough.

    Args:
        track: name of the track.
        data: which images the result says it is about.
        images: (n,) indices in the test set, by position.
    """
    if not len(images):
        return "image: expected at least one, found none"
    known = KNOWN.get(data.fingerprint)
    if known is None and data.kind == "mirror":
        num_images = int(images.max()) + 1
        largest = MAX_MIRROR * get_track(track).num_test
        if not 0 < num_images <= largest:
            return f"image: expected indices from 0 to {largest - 1}, found {num_images - 1}"
    else:
        num_images = known.num_images if known else get_track(track).num_test
    order = order_of(track, num_images)
    if len(images) > len(order):
        return f"image: expected at most {len(order)} images, found {len(images)}"
    wrong = np.flatnonzero(images != order[: len(images)])
    if not len(wrong):
        return ""
    first = int(wrong[0])
    return (
        f"image: expected the published order of {track}, so test image {int(order[first])} at "
        f"position {first}, found {int(images[first])} ({len(wrong)} of {len(images)} differ)"
    )


def labels_fault(track: str, data: DataInfo, labels: IntArray) -> str:
    """Why labels cannot be those of the images; empty where nothing speaks against them.

    Args:
        track: name of the track.
        data: which images the result says it is about.
        labels: (n,) classes, by position.
    """
    num_classes = get_track(track).num_classes
    other = labels[(labels < 0) | (labels >= num_classes)]
    if len(other):
        return f"label: expected classes from 0 to {num_classes - 1}, found {int(other[0])}"
    known = KNOWN.get(data.fingerprint)
    if known is None:
        return ""
    if known.all_labels:
        expected = np.array([int(label) for label in known.all_labels[: len(labels)]])
        wrong = np.flatnonzero(labels != expected)
        if len(wrong):
            first = int(wrong[0])
            return (
                f"label: expected {expected[first]} at position {first} as in the published images "
                f"of {track}, found {int(labels[first])} ({len(wrong)} of {len(labels)} differ)"
            )
    for n, digest in known.labels.items():
        if n <= len(labels) and label_digest(labels[:n]) != digest:
            return (
                f"label: expected the labels of the first {n} published images of {track} "
                f"(fingerprint {data.fingerprint[:12]}), found others"
            )
    return ""
