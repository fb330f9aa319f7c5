"""How Sphinx makes the site of the Markdown pages and the docstrings: `make docs`.

The source folder is that of the repository, so that links lead where they lead on any host of it. Nothing is read from
the network; names of torch and numpy are text.
"""

import inspect
import re
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

import hybridvq

ROOT = Path(__file__).parents[1]

project, author = "hybridvq", "The hybridvq authors"
copyright = "the hybridvq authors"
release = hybridvq.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "benchmarks/**.md", "experiments/*.md"]
exclude_patterns = [".*", ".venv", "build", "src", "tests"]

myst_enable_extensions = ["dollarmath", "html_image"]
myst_fence_as_directive = ["math"]  # as repositories show it
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "toc.not_included"]  # pages of benchmarks are reached from their list
highlight_language = "none"  # of blocks that do not name one: command lines

html_theme = "furo"
html_title = "hybridvq"
html_extra_path = ["site"]  # index.html, which leads to the start page
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures have them
autodoc_preserve_defaults = True
napoleon_use_ivar = True
html_math_renderer = "mathml"
default_role = "code"  # `name` is code, as in Markdown

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Shapes?|Note|Example)s?:$")


def contents(index: str) -> str:
    """A hidden table of contents for each section of the index page, from its list of links."""
    trees = []
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", index, re.MULTILINE | re.DOTALL):
        links = re.findall(r"^- \[(.*?)\]\((.*?)\.md\)$", body, re.MULTILINE)
        entries = [f"{name} </{path[3:] if path.startswith('../') else 'docs/' + path}>" for name, path in links]
        trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *entries, "```"]))
    return "\n\n".join(trees)


def add_contents(app: object, docname: str, source: list[str]) -> None:
    if docname == root_doc:
        source[0] += "\n" + contents(source[0])


def as_rst(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: keep drawings and formulas as they stand, and bars and stars as characters."""
    done: list[str] = []
    section = literal = False
    for line in lines:
        if line.strip() and not line.startswith("    "):
            section, literal = bool(SECTION.match(line)), False
        elif line.strip() and not section and not literal:
            done += ["::", ""] if not done or not done[-1].strip() else []
            literal = not done or not done[-1].strip()
        parts = re.split(r"(`[^`]*`)", line)
        done.append(line if literal else "".join(p if p[:1] == "`" else re.sub(r"([|*\\])", r"\\\1", p) for p in parts))
    lines[:] = done


def constructor(app: object, what: str, name: str, thing: object, options: object, given: str, back: object) -> object:
    """The arguments of `__init__` for a class whose base takes any in `__new__`."""
    if what != "class" or given != "(*args, **kwargs)":
        return None
    _, *own = inspect.signature(thing.__init__).parameters.values()  # type: ignore[misc]
    return str(inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in own])), back


def write_math(translator, node) -> None:  # type: ignore[no-untyped-def]
    """Formulas as MathML, which browsers draw without a script from elsewhere."""
    display = "block" if node.tagname == "math_block" else "inline"
    formula = re.sub(r"\\arg\\(min|max)", r"\\operatorname{arg\\,\1}", node.astext())
    translator.body.append(convert(formula, display=display))
    raise SkipNode


def setup(app) -> None:  # type: ignore[no-untyped-def]
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("autodoc-process-signature", constructor)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon
