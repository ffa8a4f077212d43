"""How Sphinx builds these pages: `./dev docs`."""

from retrograde.version import __version__

project = "retrograde"
author = "The retrograde developers"
project_copyright = "The retrograde developers, GPL-2.0-or-later"
version = release = __version__

extensions = [
    "myst_nb",
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
# They are shown as they were run last; ./dev nightly runs them.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"

man_pages = [
    ("reference/recording", "retrograde-recording", "a recording on disk", [author], 5),
]
