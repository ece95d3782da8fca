"""How Sphinx makes the site: ``make docs``. It reads this folder and the docstrings, and nothing from the network."""

from __future__ import annotations

import builtins
import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the docstrings are those that lie here, whatever is installed

_setup = configparser.ConfigParser()
_setup.read(ROOT / "setup.cfg", encoding="utf-8")

project = "flask_hotreload"
author = _setup["metadata"]["author"]
project_copyright = author
release = version = _setup["metadata"]["version"]

extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sphinx = False

# A name that leads nowhere is a warning, and so an error; but those of other packages, whose inventories would have
# to be fetched, and the type variables, which are told in words.
nitpicky = True
_others = "_typeshed|blinker|collections|flask|logging|msgspec|typing|werkzeug"
nitpick_ignore_regex = [
    ("py:.*", rf"({_others})\..*"),
    ("py:.*", "|".join(map(re.escape, dir(builtins)))),
    ("py:class", r"flask_hotreload\.extension\.(AnyFunction|Kept)"),
    ("py:class", r"flask_hotreload\.(gunicorn\.Arbiter|boot\.Worker)"),  # gunicorn's own objects
    ("py:mod", r"flask_hotreload\.boot_sources"),  # inside
]
smartquotes = False  # what is quoted is to be typed as it stands

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"EntryDict": "flask_hotreload.document.EntryDict"}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
