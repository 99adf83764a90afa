"""Sphinx: ``make docs`` builds docs/_build/html and fails on a broken reference."""

import pkgutil
import pydoc
import re
from pathlib import Path

from docutils import nodes
from docutils.nodes import Element
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.nodes import make_refnode

from chainer_mmix import __version__ as release

project = "chainer-mmix"
version = release
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
html_theme = "furo"
autodoc_default_options = {"no-value": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpicky = True
# Words that docstrings use for types.
nitpick_ignore = [
    ("py:class", word)
    for word in (
        "array",
        "arrays",
        "callable",
        "collection",
        "device specifier",
        "iterable",
        "mapping",
        "path-like",
        "sequence",
        "sequences",
        "trigger",
    )
]
# Imported for type hints only, so that Matplotlib stays optional.
nitpick_ignore += [("py:class", word) for word in ("Axes", "Figure", "QuadMesh")]
ROOT = Path(__file__).parent.parent
# Pages of the site that lie in the root of the repository.
OUTSIDE = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
}


def read_outside(app, docname: str, source: list[str]) -> None:
    """Puts a page of the root before what is written in docs/."""
    if docname not in OUTSIDE:
        return
    text = (ROOT / OUTSIDE[docname]).read_text(encoding="utf-8")
    for page, file in OUTSIDE.items():
        text = text.replace(f"]({file})", f"]({page}.md)")
    pages = "|".join(f"{page}.md" for page in OUTSIDE)
    text = re.sub(rf"\]\((?!docs/|{pages}|\w+:)", "](../", text)
    source[0] = text.replace("](docs/", "](") + "\n" + source[0]


def read_modules(app, docname: str, source: list[str]) -> None:
    """Lists the modules of the packages whose names are used with their module's."""
    package = f"chainer_mmix.{Path(docname).name}"
    if docname not in ("reference/analysis", "reference/inference", "reference/runs"):
        return
    for _, name, _ in pkgutil.iter_modules(pydoc.locate(package).__path__):
        source[0] += (
            f"\n## {name}\n\n```{{eval-rst}}\n"
            f".. automodule:: {package}.{name}\n   :members:\n```\n"
        )


def locate(name: str) -> object:
    try:
        return pydoc.locate(name)
    except pydoc.ErrorDuringImport as e:
        return e  # it is there, and needs CuPy


def resolve(app, env, node: Element, contnode: Element) -> Element | None:
    """Finds what Sphinx does not: names of other packages, and other names of ours.

    What can be imported exists. Nothing is asked of the network.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    found = locate(target) or locate(f"{node.get('py:module')}.{target}")
    if found is None:
        return None
    for name, entry in env.get_domain("py").objects.items():
        if name.startswith("chainer_") and pydoc.locate(name) is found:
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode
            )
    return contnode


def skip(app, what, name, obj, default, options) -> bool | None:
    """Leaves out the fields of named tuples, which their docstrings list."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def mathml(self, node: Element) -> None:
    is_block = isinstance(node, nodes.math_block)
    self.body.append(str(tex2mathml(node.astext(), is_block)))
    raise nodes.SkipNode


def setup(app) -> None:
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    app.connect("source-read", read_outside)
    app.connect("source-read", read_modules)
    # Browsers know MathML; MathJax would have to be fetched from the network.
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
