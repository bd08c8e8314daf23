"""What stays patched in auto_LiRPA's own classes; nothing here touches torch or the process."""

from __future__ import annotations

import inspect
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def patch_module_class(cls: type[nn.Module]) -> None:
    """Two methods of `BoundedModule` that today's torch calls, or that call what torch dropped."""
    if "remove_duplicate" not in inspect.signature(cls._named_members).parameters:
        cls._named_members = _named_members  # type: ignore[method-assign, assignment]
    names = cls.register_parameter.__code__.co_names
    if "_six" in names and not hasattr(torch, "_six"):
        cls.register_parameter = nn.Module.register_parameter  # type: ignore[method-assign]


def _named_members(
    self: Any,
    get_members_fn: Callable[[nn.Module], Any],
    prefix: str = "",
    recurse: bool = True,
    remove_duplicate: bool = True,
) -> Iterator[tuple[str, Any]]:
    """torch's own walk, with the names of graph nodes translated to those of the model."""
    walk = nn.Module._named_members(self, get_members_fn, prefix, recurse, remove_duplicate)
    for name, member in walk:
        yield self.node_name_map.get(name, name), member


#: Values that `nn.Module` would neither register nor look for, by their exact type.
_PLAIN = frozenset({Tensor, type(None), bool, int, float, str, list, tuple, dict})


def patch_attributes(node: type[nn.Module]) -> None:
    """Attributes of graph nodes without `nn.Module`'s search for parameters and modules.

    A call on a small graph sets some 500 attributes, nearly all of them bounds. torch asks of each
    whether it is a parameter, a buffer or a module: a tenth of the time of CROWN on CNN-small.
    Whatever could be one of these, or a property of a class, goes torch's way.

    Args:
        node: the base class of graph nodes, its subclasses imported.
    """
    properties = {
        name
        for cls in (*node.__mro__, *_with_subclasses(node))
        for name, value in vars(cls).items()
        if isinstance(value, property)
    }
    before = node.__setattr__

    def put(self: Any, name: str, value: Any) -> None:
        known = self.__dict__
        is_plain = type(value) in _PLAIN and name not in properties
        if is_plain and (name in known or not any(name in known[part] for part in _REGISTERED)):
            known[name] = value
        else:
            before(self, name, value)

    node.__setattr__ = put  # type: ignore[method-assign, assignment]


_REGISTERED = ("_parameters", "_buffers", "_modules")


def _with_subclasses(cls: type) -> Iterator[type]:
    yield cls
    subclasses: list[type] = cls.__subclasses__()
    for each in subclasses:
        yield from _with_subclasses(each)


def silence(package: types.ModuleType) -> None:
    """Keep the library's own modules from printing, logging and drawing progress bars."""
    for name, module in list(sys.modules.items()):
        if name == package.__name__ or name.startswith(f"{package.__name__}."):
            module.__dict__["print"] = lambda *args, **kwargs: None
            if "tqdm" in module.__dict__:
                module.__dict__["tqdm"] = lambda iterable, *args, **kwargs: iterable
    logger = logging.getLogger(package.__name__)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
