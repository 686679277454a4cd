"""Which code a result of the suite depends on, and a hash of it.

Comments and docstrings are left out, and so are modules that only draw, print or store: no number depends on them.
"""

import ast
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path

from textgan_env.utils.errors import require_package

_SHOW = "utils.errors utils.files ops.colours ops.render ops.plots runs.logs runs.folder runs.checkpoints"


@cache
def code_version(agent: str) -> str:
    """Hash of the code that trains an agent ("": none) and measures policies, without comments and docstrings."""
    return short_hash(json.dumps(sorted(sources(agent).items())))


def sources(agent: str) -> dict[str, str]:
    """Every module of ours that training an agent ("": none) and measuring policies imports -> its bare code."""
    require_package("grimp", "suite", "the suite")
    import grimp

    graph = grimp.build_graph("textgan_env", "agents", "benchmarks", cache_dir=None)
    for module in _SHOW.split():
        graph.remove_module(f"textgan_env.{module}")
    for imported in graph.find_modules_directly_imported_by("textgan_env"):  # the package points at others, lazily
        graph.remove_import(importer="textgan_env", imported=imported)
    roots = ["benchmarks.measure", *([f"agents.{agent}"] if agent else [])]
    return {module: _source(module) for module in {*roots}.union(*map(graph.find_upstream_modules, roots))}


def _source(module: str) -> str:
    """The bare code of one of our modules."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return bare(Path(spec.origin).read_text(encoding="utf-8"))


def bare(source: str) -> str:
    """Python code without comments and docstrings, in one way of writing."""
    return ast.unparse(_Bare().visit(ast.parse(source)))


class _Bare(ast.NodeTransformer):
    """Takes out expressions that are only a string: docstrings, and what stands under the field of a config."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Nothing in place of a docstring; a body that is left empty is of no matter, since nobody runs it."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def short_hash(text: str) -> str:
    """Ten hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
