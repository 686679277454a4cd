"""What the pages need beside Sphinx: pages made of other files, Markdown tables in docstrings, equations as MathML.

`docs/generated/` is written at the start of every build:

- ``files/``: a page for each file outside docs/ that a page links to (GitHub shows it where it is); of a notebook
  with what it shows, see docs/notebook_pages.py,
- ``api/``: a page for each module,
- ``options/``: a page for each agent with what its ``--help`` says.
"""

import ast
import contextlib
import importlib
import io
import os
import pkgutil
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import notebook_pages
from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.roles import XRefRole
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).parent
PROJECT = DOCS.parent
GENERATED = DOCS / "generated"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".cfg": "ini"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("builder-inited", lambda _: generate())
    app.connect("source-read", lambda app, page, content: send_links(app.srcdir / f"{page}.md", content))
    app.connect("source-read", lambda _, page, content: list_new_pages(page, content))
    # Napoleon, at 500, would read the first colon of what is said of a field as the end of its type.
    app.connect("autodoc-process-docstring", set_field_aside, priority=400)
    app.connect("autodoc-process-docstring", take_field_back, priority=600)
    app.connect("autodoc-process-docstring", tables_in_docstring, priority=400)
    app.add_role("ours", OursRole())
    app.connect("missing-reference", find_ours)
    app.connect("doctree-resolved", link_code)
    app.connect("env-get-outdated", lambda *_: ["index"])  # `list_new_pages`
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ----------------------------------------------------------------------------------------------------
# Pages that are made.
def generate() -> None:
    """Write all generated pages, and remove those that are not needed any more."""
    pages = dict(api_pages()) | dict(option_pages())
    todo = [*sorted(DOCS.glob("*.md")), PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md"]
    seen = set(todo)
    for page in todo:  # grows
        if page.parent != DOCS:
            pages[page_of(page)] = file_page(page)
        if page.suffix == ".md":
            new = {target for target in links(page) if has_page(target)} - seen
            seen |= new
            todo += sorted(new)
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, "utf-8")
    for path in GENERATED.rglob("*.md"):
        if path not in pages:
            path.unlink()


def links(page: Path) -> Iterator[Path]:
    """Files that the local links of a Markdown page lead to."""
    for match in LINK.finditer(page.read_text("utf-8")):
        yield Path(os.path.normpath(page.parent / match[1]))


def has_page(target: Path) -> bool:
    """Whether a file that is linked to needs a page made of it: no picture, and no page of its own."""
    own = target.suffix == ".md" and DOCS in target.parents
    return target.is_file() and not own and target.suffix not in (".png", ".svg", ".gif")


def page_of(target: Path) -> Path:
    """Where the page made of a file lies."""
    if target.name == "README.md" and target.parent == PROJECT:
        return DOCS / "index.md"
    return GENERATED / "files" / (target.relative_to(PROJECT).as_posix().removesuffix(".md") + ".md")


def file_page(file: Path) -> str:
    """Markdown as it is (its links are sent on when it is read), anything else as a block of code."""
    if file.suffix == ".md":
        return "---\norphan: true\n---\n\n" + file.read_text("utf-8")
    if notebook_pages.is_notebook(file):
        return "---\norphan: true\n---\n\n" + notebook_pages.page(file, page_of(file).parent / "pictures")
    name, language = file.relative_to(PROJECT).as_posix(), LANGUAGES.get(file.suffix, "text")
    return f"---\norphan: true\n---\n\n# {name}\n\n``````{language}\n{file.read_text('utf-8')}``````\n"


def send_links(page: Path, content: list[str]) -> None:
    """Let the local links of a page lead to where their targets are on the site.

    Args:
        page: The page that Sphinx reads.
        content: Its text, which is changed in place.
    """
    files = GENERATED / "files"
    origin = PROJECT / page.relative_to(files) if files in page.parents else page

    def sent(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(origin.parent / match[1]))
        found = page_of(target) if has_page(target) else target
        return os.path.relpath(found, page.parent) + (match[2] or "") if target.exists() else match[0]

    content[0] = LINK.sub(sent, content[0])


def list_new_pages(page: str, content: list[str]) -> None:
    """Put pages that the first page does not list at the end of its contents, so that none is lost, in place."""
    if page == "index":
        listed = set(re.findall(r"^[\w/]+$", content[0], re.MULTILINE)) | {"index"}
        new = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in listed)
        content[0] += "\n```{toctree}\n:hidden:\n:caption: More\n\n" + "\n".join(new) + "\n```\n" if new else ""


def modules() -> list[str]:
    """Every public module of the package, the agents included, by name."""
    import textgan_env

    found = [module.name for module in pkgutil.walk_packages(textgan_env.__path__, "textgan_env.")]
    agents = [f"agents.{path.stem}" for path in sorted((PROJECT / "agents").glob("[!_]*.py"))]
    return ["textgan_env", *(name for name in found if ".agents" not in name and "._" not in name), *agents]


def public_names(module: ModuleType) -> list[str]:
    """What a module defines itself and does not hide, in the order of its source."""
    found = []
    for node in ast.parse(Path(str(module.__file__)).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "TypeVar":
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(found) if not name.startswith("_")]


def offered_names(module: ModuleType) -> list[str]:
    """What a module offers of others': its ``__all__``, and what it imports ``as`` itself."""
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    imported = [name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names]
    return [*getattr(module, "__all__", ()), *(name.name for name in imported if name.name == name.asname)]


def api_pages() -> Iterator[tuple[Path, str]]:
    """A page for each module, and the list of them."""
    rows = []
    for name in modules():
        module = importlib.import_module(name)
        # Without names autodoc would show all of `__all__`, which each module shows itself.
        own, offered = public_names(module), [f"`{offered}`" for offered in offered_names(module)]
        members = f"   :members: {', '.join(own)}\n" if own else ""
        page = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n{members}```\n"
        page += f"\nImport from here: {', '.join(offered)}.\n" if offered else ""
        yield GENERATED / "api" / f"{name}.md", page
        first = (module.__doc__ or "").strip().partition("\n")[0]
        rows.append(f"| [{name}]({name}.md) | {first} |")
    toctree = "\n".join(modules())
    yield (
        GENERATED / "api" / "index.md",
        "# Modules\n\n| module | what it is |\n|---|---|\n"
        + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{toctree}\n```\n",
    )


def option_pages() -> Iterator[tuple[Path, str]]:
    """A page for each agent with what its ``--help`` says."""
    from agents.cli import AGENTS, main

    for agent in AGENTS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main(["train", agent, "--help"])
        text = "\n".join(map(wrapped, re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).splitlines()))
        yield GENERATED / "options" / f"{agent}.md", f"# textgan train {agent}\n\n```text\n{text}\n```\n"


def wrapped(line: str, width: int = 84) -> str:
    """A line of a help in lines that fit the page, those after the first below its last column."""
    first = re.match(r"\s*\S+\s{2,}", line) or re.match(r"\s*", line)
    assert first is not None
    return textwrap.fill(line, width, subsequent_indent=" " * first.end(), drop_whitespace=bool(line.strip()))


# ----------------------------------------------------------------------------------------------------
# Docstrings.
_ASIDE: dict[str, list[str]] = {}


def set_field_aside(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Hide the docstring of a field or a constant, which is plain prose, from what comes next."""
    if what in ("attribute", "data", "property"):
        _ASIDE[name] = lines[:]
        lines.clear()


def take_field_back(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Undo `set_field_aside`."""
    lines[:] = _ASIDE.pop(name, lines)


def tables_in_docstring(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Turn Markdown tables, which are easily read in the source, into those of reStructuredText, in place."""
    result: list[str] = []
    for line, following in pairwise([*lines, ""]):
        if line.endswith(":") and following.lstrip().startswith("|"):
            line = line.removesuffix(":")  # no section of arguments that Napoleon knows
        line = re.sub(r"^(\s*\w+: )(\w\.)$", r"\1\\\2", line)  # "rows: B." is no list of A, B, C
        if not line.lstrip().startswith("|"):
            result.append(line)
            continue
        indent = " " * (len(line) - len(line.lstrip()))
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if all(set(cell) <= set("-:") and cell for cell in cells):
            continue
        if not result or not result[-1].startswith(f"{indent}   "):
            result += ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
        result += [f"{indent}   {'* -' if at == 0 else '  -'} {cell}" for at, cell in enumerate(cells)]
    lines[:] = result


class OursRole(XRefRole):
    """What stands in single backticks: a link where it names one thing of ours, else code as it is."""

    def process_link(
        self, env: Any, refnode: Any, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        """Keep where it was said, since a bare name means a neighbour first."""
        refnode["module"] = env.ref_context.get("py:module", "")
        refnode["class"] = env.ref_context.get("py:class", "")
        return title, target


def find_ours(app: Sphinx, env: Any, node: Any, contents: nodes.Element) -> nodes.Element | None:
    """Resolve `OursRole`."""
    if node["reftype"] != "ours":
        return None
    module, name = node["module"], node["reftarget"]
    near = (f"{module}.{node['class']}.{name}", f"{module}.{name}")
    return link_to_name(app, node["refdoc"], name, contents, near) or contents


def link_code(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Let code in a line of a page, such as `LSTMPolicy`, be a link where it names one thing of ours."""
    for code in list(doctree.findall(nodes.literal)):
        name = code.astext()
        if re.fullmatch(r"[A-Z]\w+|[a-z]+_\w+|textgan_env[\w.]+|[A-Z]\w+\.\w+", name) and not is_linked(code):
            link = link_to_name(app, page, name, code.deepcopy())
            if link is not None:
                code.replace_self(link)


def is_linked(node: nodes.Node) -> bool:
    """Whether a node is part of a link already, or of a heading."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, nodes.reference | nodes.title):
            return True
    return False


def link_to_name(
    app: Sphinx, page: str, name: str, contents: nodes.Element, near: Iterable[str] = ()
) -> nodes.reference | None:
    """A link to a neighbour, to what the name says in full, or to the only thing that is called so."""
    things = app.env.domains["py"].objects
    same = [full for full in things if full.endswith(f".{name}")]
    found = next((full for full in (*near, name) if full in things), same[0] if len(same) == 1 else None)
    if found is None:
        return None
    return make_refnode(app.builder, page, things[found].docname, things[found].node_id, contents, found)


# ----------------------------------------------------------------------------------------------------
# Equations.
def inline_math(writer: Any, node: nodes.math) -> None:
    """An equation in a line."""
    writer.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def display_math(writer: Any, node: nodes.math_block) -> None:
    """An equation of its own."""
    writer.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def mathml(latex: str, block: bool) -> str:
    """LaTeX as MathML, by docutils."""
    return str(latex2mathml.tex2mathml(latex, as_block=block))
