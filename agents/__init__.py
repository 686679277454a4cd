"""The agents: one algorithm a file, each a script and a module. Installed as `textgan_env.agents`."""

from importlib import import_module
from typing import Any


def module_of(name: str) -> Any:
    """The file of an agent by its name: its presets, its class and its command."""
    return import_module(f"{__name__}.{name}")


def class_of(name: str) -> Any:
    """The class of an agent by the name of its file: the one that is called so, but for underscores and capitals."""
    (found,) = [one for called, one in vars(module_of(name)).items() if called.lower() == name.replace("_", "")]
    return found
