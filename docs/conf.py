"""How Sphinx builds these pages: ``make docs``. Nothing here needs a network."""

from __future__ import annotations

import redislogkit

project = "redislogkit"
author = "The authors of redislogkit"
copyright = "the authors of redislogkit"  # noqa: A001 - the name is Sphinx's
version = release = redislogkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Docstrings write names as `name`, which is no link.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# The standard library's pages are on a network, and so is its index.
nitpick_ignore_regex = [
    ("py:.*", r"(logging|os|collections|typing|_?contextlib)\..*"),
    ("py:class", r"(Any|Config|Iterable|Mapping|PathLike|StopEvent|optional)"),
]

html_theme = "furo"
html_title = f"redislogkit {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
    "navigation_with_keys": True,
}
