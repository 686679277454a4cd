"""Which code a result of the suite depends on, and a hash of it.

Comments and docstrings are left out, and so are modules that only draw, print or store: no number depends on them.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
_SHOW = "utils.errors utils.files ops.colours ops.render ops.plots runs.logs runs.folder runs.checkpoints"
_NO_MATTER = {f"textgan_env.{module}" for module in _SHOW.split()}


@lru_cache
def code_version(agent: str) -> str:
    """Hash of the code that trains an agent ("": none) and measures policies, without comments and docstrings."""
    return short_hash(json.dumps(sorted(sources(agent).items())))


def sources(agent: str) -> dict[str, str]:
    """Every module of ours that training an agent ("": none) and measuring policies imports -> its bare code."""
    waiting = ["benchmarks.measure", *([f"agents.{agent}"] if agent else [])]
    found: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        path = _path_of(module)
        if path is None or module in found or module in _NO_MATTER:
            continue
        source = path.read_text(encoding="utf-8")
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += [name for node in ast.walk(ast.parse(source)) for name in _imported(node, package)]
        found[module] = bare(source)
    return found


def bare(source: str) -> str:
    """Python code without comments and docstrings, in one way of writing."""
    return ast.unparse(_Bare().visit(ast.parse(source)))


def _path_of(module: str) -> Path | None:
    """The file of one of our modules; None for names that are none."""
    base = PROJECT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """Modules that an import may mean; names that are no modules do no harm."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = f"{package}.{node.module}" if node.level else node.module or ""
        if origin != "textgan_env":  # the package itself points at everything, lazily
            yield origin
        yield from (f"{origin}.{alias.name}" for alias in node.names)


class _Bare(ast.NodeTransformer):
    """Takes out expressions that are only a string: docstrings, and what stands under the field of a config."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Nothing in place of a docstring; a body that is left empty is of no matter, since nobody runs it."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def short_hash(text: str) -> str:
    """Ten hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
