"""How `make docs` builds these pages; docs/extension.py has what Sphinx does not bring along."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # extension.py
sys.path.insert(1, str(Path(__file__).parent.parent))  # agents

from textgan_env import __version__

project = "textgan_env"
author = "textgan_env contributors"
copyright = author
release = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "extension"]
exclude_patterns = ["examples", "notebooks"]

# -- Pages: the Markdown that GitHub shows -------------------------------------------------------------------------
myst_heading_anchors = 4
# GitHub's ```math; `extension` writes it as MathML, which browsers show without any script.
myst_fence_as_directive = ["math"]
html_math_renderer = "mathml"

# -- The interface, from docstrings --------------------------------------------------------------------------------
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# A name in single backticks is a link where it names something of ours.
default_role = "ours"
# What others document, there is no network to ask them.
nitpick_ignore_regex = [
    ("py:.*", r"(?!textgan_env|agents).*"),
    ("py:.*", r".*\.(_\w+|AnyConfig|Config|Item|Kind|Network|Read|Module|Value)"),  # hidden names and type variables
]

# -- What it looks like --------------------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"textgan_env {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
