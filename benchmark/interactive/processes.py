"""Processes started from a script or a notebook, without running that script again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_main() -> Iterator[None]:
    """Processes that are started within the block do not import the caller's script.

    multiprocessing imports it in every process, and a script without ``if __name__ ==
    "__main__"`` would begin again there. What we run in them needs nothing of it.
    """
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
