"""The documentation site: `make docs` builds it, with every warning an error."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

project = "medlens"
author = "The medlens authors"
copyright = "2026, The medlens authors"  # noqa: A001 - Sphinx names it so
release = version = version_of("medlens")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "generated_reference",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
default_role = "literal"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
smartquotes_action = "qe"  # quotes and dots; two hyphens begin an option, so they are never a dash
nitpicky = False

# MEDLENS_DOCS_OFFLINE=1 builds without the network: other projects' names are then not links.
online = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "pydicom": ("https://pydicom.github.io/pydicom/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}
intersphinx_mapping = {} if os.environ.get("MEDLENS_DOCS_OFFLINE") else online
intersphinx_timeout = 5

html_theme = "furo"
html_title = "medlens"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
