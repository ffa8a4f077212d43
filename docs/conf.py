"""How Sphinx builds these pages: `./dev docs`."""

from retrograde.version import __version__

project = "retrograde"
author = "The retrograde developers"
project_copyright = "The retrograde developers, GPL-2.0-or-later"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
]
# Docstrings put code in single backticks.
default_role = "code"
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"retrograde {version}"
html_show_sourcelink = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"

man_pages = [
    ("reference/recording", "retrograde-recording", "a recording on disk", [author], 5),
]
