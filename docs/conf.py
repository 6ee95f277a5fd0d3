"""Sphinx builds the documentation: python -m sphinx -W --keep-going -b html docs build/docs."""

from __future__ import annotations

from importlib import metadata

project = "ternrun"
copyright = "the ternrun contributors"
release = metadata.version("ternrun")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "ternrun"
html_show_sphinx = False
