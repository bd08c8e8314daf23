"""The only door to auto_LiRPA: imports it once, patched for the installed torch, without traces.

Every patch is applied where its cause is found, not by version number, so that auto_LiRPA 0.3
(where all apply on torch 2.x) and 0.7.x (where only the speed of attributes does) pass through the
same code. What changes torch itself, or the process, lasts only as long as the import,
a conversion (`converting`) or a computation (`computing`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import io
import logging
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from corobench.benchmark.certify.lirpa.patches import patch_attributes, patch_module_class, silence
from corobench.benchmark.certify.refusals import CertifierUnavailable

OPSET = 12
"""The exporter's operator set the library understands; later ones change `mean` and others."""

_LOCK = threading.RLock()


@dataclass(frozen=True)
class Lirpa:
    """The patched library.

    Args:
        version: version of the installed distribution, such as "0.3".
        package: the module `auto_LiRPA`.
        bounds_keyword: the name `compute_bounds` has for given intermediate bounds.
    """

    version: str
    package: types.ModuleType
    bounds_keyword: str


def lirpa_version() -> str:
    """Name and version of the installed bound library, such as "auto_LiRPA 0.3".

    Raises:
        CertifierUnavailable: where it is not installed.
    """
    return f"auto_LiRPA {installed_version()}"


def installed_version() -> str:
    """Version of the installed distribution, without importing it.

    Raises:
        CertifierUnavailable: where none is installed.
    """
    try:
        return importlib.metadata.version("auto_LiRPA")
    except importlib.metadata.PackageNotFoundError:
        raise CertifierUnavailable("auto_LiRPA is not installed") from None


@functools.cache
def load() -> Lirpa:
    """Import the library and patch it; later calls return the same object.

    Raises:
        CertifierUnavailable: where it, or an internal of torch's exporter it rests on, is missing.
    """
    with _LOCK:
        version = installed_version()
        _exporter_globals()
        try:
            with _quiet_import():
                package = importlib.import_module("auto_LiRPA")
            general = importlib.import_module("auto_LiRPA.bound_general")
            patch_module_class(general.BoundedModule)
            operators = importlib.import_module("auto_LiRPA.bound_ops")
            patch_attributes(operators.Bound)
            silence(package)
            parameters = inspect.signature(general.BoundedModule.compute_bounds).parameters
        except (ImportError, AttributeError, RuntimeError) as error:
            for name in [name for name in sys.modules if name.split(".")[0] == "auto_LiRPA"]:
                del sys.modules[name]
            raise CertifierUnavailable(
                f"auto_LiRPA {version} does not load with torch {torch.__version__} ({error})"
            ) from error
        names = ("interm_bounds", "intermediate_layer_bounds")
        keyword = next((name for name in names if name in parameters), None)
        if keyword is None:
            raise CertifierUnavailable(f"auto_LiRPA {version} takes no intermediate bounds")
        return Lirpa(version, package, keyword)


def _exporter_globals() -> Any:
    """The state object of torch's graph exporter, wherever this torch keeps it."""
    for name in ("torch.onnx._internal.torchscript_exporter._globals", "torch.onnx._globals"):
        try:
            found = importlib.import_module(name).GLOBALS
            utils = importlib.import_module("torch.onnx.utils")
        except (ImportError, AttributeError):
            continue
        if hasattr(utils, "_optimize_graph") and hasattr(torch.jit, "_get_trace_graph"):
            return found
    raise CertifierUnavailable(
        f"torch {torch.__version__} has no graph exporter that auto_LiRPA could use"
    )


# --- while it is imported -------------------------------------------------------------------


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Stand-ins for names that are gone, and an undo for all that the import does to the process.

    The import sets warning filters, prints, configures the root logger on stdout, switches the
    script executor's mode and creates a folder in the user's home.
    """
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(_attribute(warnings, "simplefilter", lambda *a, **k: None))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            logging.disable(logging.CRITICAL)
            stack.enter_context(_script_mode())
            stack.enter_context(_stand_in_numpy())
            helper = importlib.import_module("torch.onnx.symbolic_helper")
            if not hasattr(helper, "_set_opset_version"):
                stack.enter_context(_attribute(helper, "_set_opset_version", lambda version: None))
            appdirs = importlib.import_module("appdirs")
            folder = tempfile.gettempdir()
            stack.enter_context(_attribute(appdirs, "user_data_dir", lambda *a, **k: folder))
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


@contextlib.contextmanager
def _stand_in_numpy() -> Iterator[None]:
    """`numpy.lib.arraysetops.isin`, imported but never used, is gone from numpy 2."""
    name = "numpy.lib.arraysetops"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            present = hasattr(importlib.import_module(name), "isin")
        except ImportError:
            present = False
    if present:
        yield
        return
    previous = sys.modules.get(name)
    stand_in = types.ModuleType(name)
    stand_in.__dict__["isin"] = None
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous


@contextlib.contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for the time of a block; afterwards it is as before, or absent."""
    absent = object()
    previous = vars(owner).get(name, absent)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if previous is absent:
            delattr(owner, name)
        else:
            setattr(owner, name, previous)


@contextlib.contextmanager
def _script_mode() -> Iterator[None]:
    """The script executor as the library wants it: without profiling."""
    names = ("_jit_set_profiling_executor", "_jit_set_profiling_mode")
    setters = [getattr(torch._C, name) for name in names if hasattr(torch._C, name)]
    previous = [setter(False) for setter in setters]
    try:
        yield
    finally:
        for setter, value in zip(setters, previous, strict=True):
            setter(value)


# --- while it works -------------------------------------------------------------------------


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """The surroundings of every call into the library; all restored afterwards."""
    with _LOCK, warnings.catch_warnings(), _script_mode():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def converting() -> Iterator[None]:
    """`computing`, with torch's exporter as the conversion of a model needs it."""
    load()
    exporter = _exporter_globals()
    parser = importlib.import_module("auto_LiRPA.parse_graph")
    opset = exporter.export_onnx_opset_version
    with contextlib.ExitStack() as stack:
        stack.enter_context(computing())
        if not hasattr(torch._C.Node, "__getitem__"):
            stack.enter_context(_attribute(torch._C.Node, "__getitem__", _node_attribute))
        if hasattr(parser, "_optimize_graph"):
            with_free_batch = _free_batch(parser._optimize_graph)
            stack.enter_context(_attribute(parser, "_optimize_graph", with_free_batch))
        try:
            exporter.export_onnx_opset_version = OPSET
            yield
        finally:
            exporter.export_onnx_opset_version = opset


def _node_attribute(node: Any, key: str) -> Any:
    """What `node[key]` was, before torch dropped it: the attribute by its own kind."""
    return getattr(node, node.kindOf(key))(key)


def _free_batch(optimize_graph: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the batch size symbolic while the graph is simplified.

    Otherwise `x.view(x.size(0), -1)` becomes a reshape to the example's batch size.
    """

    @functools.wraps(optimize_graph)
    def optimize(graph: Any, *args: Any, **kwargs: Any) -> Any:
        if "dynamic_axes" in kwargs:
            return optimize_graph(graph, *args, **kwargs)
        first = next(graph.inputs())
        sizes = first.type().sizes()
        first.setType(first.type().with_sizes([None, *sizes[1:]]))
        graph = optimize_graph(graph, *args, **kwargs)
        first = next(graph.inputs())
        first.setType(first.type().with_sizes(sizes))
        return graph

    return optimize
