"""Settings of Sphinx, which builds these pages into a site: ``make docs``."""

import ppcls

project = "ppcls"
author = "the ppcls authors"
version = release = ppcls.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = f"ppcls {version}"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 4  # as code hosts make them, so that links to headings work there and here
myst_enable_extensions = ["dollarmath", "colon_fence"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_use_rtype = False

# The start pages are the READMEs, which name files by their places in the repository.
_PAGES = {
    "(README_zh.md)": "(index_zh.md)",
    "(README.md)": "(index.md)",
    "(CHANGELOG.md)": "(changelog.md)",
    "(dataset/README.md)": "(dataset.md)",
    "(examples/serve/README.md)": "(serve.md)",
    "(examples/serve/README_zh.md)": "(serve_zh.md)",
    "(./README.md)": "(serve.md)",  # the two READMEs of that example name each other
    "(./README_zh.md)": "(serve_zh.md)",
}


def _name_pages(app, path, docname, content):
    for place, page in _PAGES.items():
        content[0] = content[0].replace(place, page)


def setup(app):
    """Connect to Sphinx."""
    app.connect("include-read", _name_pages)
