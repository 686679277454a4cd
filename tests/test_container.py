"""The Dockerfile says true things: what it copies exists, what it installs is declared, what it starts is a command."""

import inspect
import json
import re
from configparser import ConfigParser
from fnmatch import fnmatch

from agents.cli import COMMANDS
from conftest import PROJECT

TEXT = (PROJECT / "Dockerfile").read_text("utf-8")
# (instruction, the rest), continued lines as one, comments left out.
STEPS = [
    (step.partition(" ")[0], step.partition(" ")[2].strip())
    for step in re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if step
]


def of(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(PROJECT / "setup.cfg", "utf-8")
    return parser


def test_the_python_is_one_that_the_package_supports_and_is_checked_with() -> None:
    (version,) = [rest.partition("=")[2] for rest in of("ARG") if rest.startswith("PYTHON=")]
    assert setup_cfg()["options"]["python_requires"] == f">={version}" == f">={setup_cfg()['mypy']['python_version']}"
    assert all(rest.startswith("python:${PYTHON}-slim") for rest in of("FROM"))


def test_what_is_copied_exists_and_nothing_else_is_sent() -> None:
    sources = {source for rest in of("COPY") if "--from" not in rest for source in rest.split()[:-1]}
    assert sources
    assert all((PROJECT / source).exists() for source in sources)
    rules = (PROJECT / ".dockerignore").read_text("utf-8").split("\n")
    assert "*" in rules
    let_in = [rule[1:] for rule in rules if rule.startswith("!")]
    assert {rule.partition("/")[0] for rule in let_in} == sources
    files = [str(path.relative_to(PROJECT)) for path in (PROJECT / "agents").glob("*.py")]
    assert all(any(fnmatch(file, rule) for rule in let_in) for file in files)


def test_every_package_of_the_project_is_copied() -> None:
    packages, folders = (setup_cfg()["options"][name].split() for name in ("packages", "package_dir"))
    moved = dict(zip(folders[::3], folders[2::3], strict=True))
    copied = [rest.split()[0] for rest in of("COPY")]
    assert {moved.get(name, name).partition(".")[0] for name in packages} <= set(copied)


def test_what_is_installed_is_declared_and_pinned() -> None:
    (extras,) = [rest.partition("=")[2].split(",") for rest in of("ARG") if rest.startswith("EXTRAS=")]
    assert set(extras) <= set(setup_cfg()["options.extras_require"])
    assert {"demo", "wordnet"} <= set(extras)  # what the page and its first run need
    installs = [command for rest in of("RUN") for command in rest.split("&&") if "pip install" in command]
    assert installs
    assert all("-c constraints.txt" in command or "--no-deps" in command for command in installs)


def test_the_empty_copy_leaves_nothing_that_a_later_build_would_take_for_newer() -> None:
    (stub,) = [command for command in of("RUN") if "touch" in command]
    assert stub.endswith("&& rm -rf build ./*.egg-info")


def test_it_runs_as_an_ordinary_user_and_opens_the_page() -> None:
    order = [name for name, _ in STEPS]
    assert of("USER") == [re.findall(r"--uid (\d+)", " ".join(of("RUN")))[0]] != ["0"]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert json.loads(of("ENTRYPOINT")[0]) == ["textgan"]
    assert json.loads(of("CMD")[0]) == ["play", "--host", "0.0.0.0"]
    assert of("EXPOSE") == [str(inspect.signature(COMMANDS["play"]).parameters["port"].default)]


def test_the_first_run_is_that_of_make_demo() -> None:
    (demo,) = re.findall(r"^\t\$\(BIN\)/python agents/(\w+)\.py (.*)$", (PROJECT / "Makefile").read_text("utf-8"), re.M)
    assert f"textgan train {demo[0]} {demo[1]}" in of("RUN")


def test_the_page_about_it_names_its_build_arguments() -> None:
    page = (PROJECT / "docs" / "container.md").read_text("utf-8")
    arguments = {rest.partition("=")[0] for rest in of("ARG")}
    assert {name for name in arguments if f"`{name}`" in page or f"{name}=" in page} == arguments
