"""The book: `make docs`. Needs no network, neither to build nor to view."""

import json
import os
import re
import sys
from pathlib import Path

from docutils import nodes

HERE = Path(__file__).parent
# For the lessons' kernels: small products only lose by more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(HERE.parent))


def with_folded_drawings(notebook):
    """The notebook's text, in which the code of cells that show a figure folds away: the figure is what a reader came for."""
    book = json.loads(notebook.read_text())
    for cell in book["cells"]:
        if cell["cell_type"] == "code" and "plt.show()" in "".join(cell["source"]):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    return json.dumps(book, indent=1)


# Sphinx reads only what lies below this folder; the lessons live in notebooks/. What has not changed is not written, and not run again.
for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    copy, text = HERE / "lessons" / notebook.name, with_folded_drawings(notebook)
    if not copy.exists() or copy.read_text() != text:
        copy.write_text(text)

project = "syncbn-sim"
author = "the syncbn-sim authors"
copyright = "2026, the syncbn-sim authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "results/*.md", "**/.ipynb_checkpoints"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]  # NumPy's own names have no pages without a network

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "cache")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_code_prompt_show = "show code"
nb_code_prompt_hide = "hide code"
nb_ipywidgets_js = {}  # the book shows the static twins; the scripts would come from the network

add_module_names = False
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Array": "Array", "DTypeLike": "DTypeLike"}
python_maximum_signature_line_length = 100
default_role = "code"  # docstrings write `name` as Markdown does
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "syncbn-sim"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_copy_source = False
html_show_sphinx = False
mathjax_path = "mathjax/tex-svg.js"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0060a0", "color-brand-content": "#0060a0"},
    "dark_css_variables": {"color-brand-primary": "#6cb6e8", "color-brand-content": "#6cb6e8"},
}


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: a star or a bar outside of code is multiplication or an absolute value, not markup."""
    outside_code = re.compile(r"(`[^`]*`)|([*|])")
    lines[:] = [outside_code.sub(lambda m: m[1] or "\\" + m[2], line) for line in lines]


def short_types(app, what, name, obj, options, signature, returns):
    """`Array | None`, where Sphinx writes out how it remembers an alias."""
    alias = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
    return tuple(alias.sub(r"\1", text) if text else text for text in (signature, returns))


def field_of_named_tuple(app, what, name, obj, skip, options):
    """Named tuples describe their fields in the class's own docstring."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def without_object(app, tree):
    """That a class is an object is no news."""
    for paragraph in list(tree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def setup(app):
    app.connect("doctree-read", without_object)
    app.connect("autodoc-process-signature", short_types)
    app.connect("autodoc-skip-member", field_of_named_tuple)
    app.connect("autodoc-process-docstring", plain_text, priority=1)
