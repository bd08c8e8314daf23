"""A network's tensors found in a file by the names that the network has.

Wrappers put words before a name (``module.``, ``model.``, ``_orig_mod.``, an attribute of
somebody's own) or into it (``features.module.0``), and files put names under keys. None of these is
listed here: what stands before a wanted name is a prefix, and a prefix under which every wanted
name is there, in its shape, is where the network is. Where there are two, with other values, nobody
guesses: a file with raw and averaged weights asks which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations

import torch
from torch import Tensor

#: Words of a name that are looked at, from its end.
MAX_WORDS = 24
#: Words that may be left out or called otherwise at most.
MAX_UNKNOWN, MAX_RENAMED = 8, 4


@dataclass(frozen=True)
class Place:
    """Where a network's tensors are.

    Attributes:
        prefix: what stands before each name.
        names: name of the network -> name in the file.
        dropped: words that stand within names and are no part of them.
        renamed: word of the file -> word of the network.
        missing_biases: biases that the file lacks, as their layers have none.
    """

    prefix: str
    names: dict[str, str]
    dropped: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    missing_biases: tuple[str, ...] = ()

    def own(self, name: str) -> str | None:
        """A name of the file as the network would call it; None for one that is not in this place.

        A word that the network has by another name has that name here.
        """
        short = without(name, self.dropped)
        if not short.startswith(self.prefix):
            return None
        words = short.removeprefix(self.prefix).split(".")
        return ".".join(self.renamed.get(word, word) for word in words)


def without(name: str, words: tuple[str, ...]) -> str:
    """A name without some of its words.

    >>> without("features.module.0.weight", ("module",))
    'features.0.weight'
    """
    return ".".join(word for word in name.split(".") if word not in words) if words else name


def find_places(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[Place]:
    """The places where the whole network is, each with other values; none where it is nowhere.

    Args:
        given: the tensors of a file, whatever stands before their names.
        wanted: the network's own.
    """
    known = _words(wanted)
    unknown = sorted(_words(given) - known)
    several = [(word,) for word in unknown][:MAX_UNKNOWN]
    nothing: tuple[str, ...] = ()
    for dropped in dict.fromkeys([nothing, *several, tuple(unknown)]):
        places = list(_shortened(given, wanted, dropped))
        whole = [place for place in places if not _list_missing(place, given, wanted)]
        found = whole or [
            with_zeros for place in places if (with_zeros := _no_biases(place, given, wanted))
        ]
        if found:
            return _distinct(found, given)
    renamed = [
        place
        for near in _shortened(given, wanted, ())
        if (place := _renamed(near, given, wanted)) is not None
    ]
    return _distinct(renamed, given)


def nearest_place(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Place:
    """The place where most of the network is; the file itself where nothing is anywhere."""
    places = list(_shortened(given, wanted, ()))
    return max(places, key=lambda place: len(place.names), default=Place("", {}))


def _words(names: Iterable[str]) -> set[str]:
    """The words of names but the last one of each, which says what a tensor is to its layer."""
    return {word for name in names for word in name.split(".")[:-1]}


def _shortened(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], dropped: tuple[str, ...]
) -> Iterator[Place]:
    """Each prefix that a wanted name has in the file, with all wanted names that have it."""
    found: dict[str, dict[str, str]] = {}
    for name in given:
        words = without(name, dropped).split(".")
        for start in range(max(0, len(words) - MAX_WORDS), len(words)):
            own = ".".join(words[start:])
            if own in wanted:
                prefix = "".join(f"{word}." for word in words[:start])
                if own in found.setdefault(prefix, {}):
                    found[prefix][own] = ""  # two names in one: no place
                found[prefix].setdefault(own, name)
    for prefix, names in found.items():
        if all(names.values()):
            yield Place(prefix, names, dropped)


def _list_missing(
    place: Place, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[str]:
    """Wanted names that a place lacks, or has in another shape."""
    return [
        name
        for name, tensor in wanted.items()
        if name not in place.names or given[place.names[name]].shape != tensor.shape
    ]


def _no_biases(
    place: Place, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Place | None:
    """The place, if it lacks nothing but biases of layers that have none."""
    missing = _list_missing(place, given, wanted)
    if any(
        name in place.names or not is_missing_bias(name, place.names, given) for name in missing
    ):
        return None
    return Place(place.prefix, place.names, place.dropped, place.renamed, tuple(sorted(missing)))


def is_missing_bias(name: str, names: Mapping[str, str], given: Mapping[str, Tensor]) -> bool:
    """Whether `name` is the bias of a convolution or a linear layer whose weight alone is there."""
    weight = names.get(name.removesuffix("bias") + "weight")
    return name.rpartition(".")[2] == "bias" and weight is not None and given[weight].dim() > 1


def _renamed(
    place: Place, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Place | None:
    """The place with a few words of the file in place of words of the network; one way or none."""
    missing = [name for name in wanted if name not in place.names]
    if not missing or 2 * len(missing) > len(wanted):
        return None
    used = set(place.names.values())
    others = {
        name.removeprefix(place.prefix): tensor
        for name, tensor in given.items()
        if name.startswith(place.prefix) and name not in used
    }
    new = sorted(_words(missing) - _words(others))
    old = sorted(_words(others) - _words(wanted))
    if not 1 <= len(new) <= len(old) <= MAX_RENAMED:
        return None
    found = []
    for chosen in permutations(old, len(new)):
        words = dict(zip(chosen, new, strict=True))
        called = {
            ".".join(words.get(word, word) for word in name.split(".")): place.prefix + name
            for name in others
        }
        names = place.names | {name: called[name] for name in missing if name in called}
        one = Place(place.prefix, names, renamed=words)
        if len(called) == len(others) and not _list_missing(one, given, wanted):
            found.append(one)
    return found[0] if len(found) == 1 else None


def _distinct(places: list[Place], given: Mapping[str, Tensor]) -> list[Place]:
    """Of places that hold the same values the one with the shortest prefix."""
    kept: list[Place] = []
    for place in sorted(places, key=lambda one: (len(one.prefix), one.prefix)):
        if not any(_is_same(place, other, given) for other in kept):
            kept.append(place)
    return kept


def _is_same(one: Place, other: Place, given: Mapping[str, Tensor]) -> bool:
    return set(one.names) == set(other.names) and all(
        given[name].dtype == given[other.names[own]].dtype
        and torch.equal(given[name], given[other.names[own]])
        for own, name in one.names.items()
    )
