"""Comparisons of policies: what was run, what was measured."""

import importlib.util
import sys
from pathlib import Path


def _make_top_level(name: str, folder: Path) -> None:
    """Let a package that is installed inside another one be imported by its own name, in this process.

    Args:
        name: Its own name; whatever else has it is not meant.
        folder: Where it lies.
    """
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


if __name__ != "benchmarks":
    # Installed, this is textgan_env.benchmarks; its modules name one another, and the agents, as in a checkout.
    _make_top_level("benchmarks", Path(__file__).parent)
    _make_top_level("agents", Path(__file__).parents[1] / "agents")
