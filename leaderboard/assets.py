"""Files that the pages share: our own, and the table library out of its installed package.

DataTables comes with the package `itables`, as a module. A browser does not load modules from
``file://``, so the module's only export is turned into a global; nothing else of it is changed. It
travels gzipped inside a script, which makes the first load of a page 380 kB lighter where nobody
compresses on the way.
"""

from __future__ import annotations

import base64
import gzip
import io
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageDraw

from corobench.benchmark.errors import DependencyError

#: Beside this file and not looked up by the package's name: Python may take the folder
#: `leaderboard/` of a working directory for a part of the package.
STATIC = Path(__file__).resolve().parent / "static"
TEMPLATES = STATIC.with_name("templates")
OWN = (
    "board-rows.js",
    "board-view.js",
    "board.js",
    "compare.js",
    "entry.js",
    "export.js",
    "findings.css",
    "plot-card.js",
    "plot-zoom.js",
    "plots.css",
    "security-card.js",
    "security.js",
    "style.css",
    "tools.js",
)
LIBRARY = "datatables.js"

_NOTICE = (
    "/*! DataTables (MIT licence, SpryMedia Ltd and contributors) with what itables bundles,\n"
    "    gzipped; the licences of all parts stand at its end. */\n"
)
_EXPORT = re.compile(r"export\s*\{([^{}]*)\};?\s*")


def assets() -> dict[str, bytes]:
    """Path inside the site -> content."""
    own = {f"assets/{name}": (STATIC / name).read_bytes() for name in OWN}
    return {**own, f"assets/{LIBRARY}": table_library(), "assets/card.png": card()}


@lru_cache(maxsize=1)
def card() -> bytes:
    """The picture that goes with a link to the site: the mark, a bracket around what is proven."""
    image = Image.new("RGB", (1200, 630), "#fdfdfc")
    draw = ImageDraw.Draw(image)
    for left, color, width in ((150, "#1f6fbf", 520), (670, "#cfe2f5", 90), (760, "#e07b1a", 170)):
        draw.rectangle((left, 255, left + width, 375), color)
    draw.rectangle((930, 255, 1050, 375), "#a9adb5")
    draw.line(((670, 400), (670, 430), (760, 430), (760, 400)), "#1b1d21", 8)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def table_library() -> bytes:
    """DataTables packed into a script that sets ``corobench.packed``; the board unpacks it.

    Raises:
        DependencyError: the installed itables holds no such module.
    """
    try:
        source = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    except (ModuleNotFoundError, OSError) as error:
        raise DependencyError(
            f"itables: expected its file html/dt_bundle.js ({error}); "
            "install it again: python -m pip install 'itables>=2.5'"
        ) from error
    packed = base64.b64encode(gzip.compress(classic_script(source).encode(), mtime=0)).decode()
    return f'{_NOTICE}(window.corobench ??= {{}}).packed = "{packed}";\n'.encode()


def classic_script(source: str) -> str:
    """A module whose default export is DataTables -> a script that sets a global.

    >>> classic_script("const a = 1; export{a as default, b as c};")
    '"use strict";(() => {const a = 1; window.DataTable = a;\\n})();\\n'

    Raises:
        DependencyError: no default export is found, or more than one export statement.
    """
    found = _EXPORT.findall(source)
    default = re.search(r"([\w$]+)\s+as\s+default", found[0]) if len(found) == 1 else None
    if default is None:
        raise DependencyError(
            "itables: expected a module with one default export in html/dt_bundle.js, found "
            f"{len(found)} export statements; the versions that work are 2.5 to 2.9"
        )
    body = _EXPORT.sub(f"window.DataTable = {default.group(1)};\n", source)
    return f'"use strict";(() => {{{body}}})();\n'
