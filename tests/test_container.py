"""What can be checked of the Dockerfile without Docker: what it copies, builds, installs and starts exists."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from agents.cli import COMMANDS
from conftest import PROJECT

# (instruction, the rest), continued lines as one, comments left out.
STEPS = [
    (step.partition(" ")[0], step.partition(" ")[2].strip())
    for step in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", (PROJECT / "Dockerfile").read_text())).splitlines()
    if step
]
COPIED = [source for step, rest in STEPS if step == "COPY" and "--from" not in rest for source in rest.split()[:-1]]


def of(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def test_what_is_copied_exists_and_is_sent() -> None:
    assert [source for source in COPIED if not (PROJECT / source).exists()] == []
    sent = {
        rule[1:].partition("/")[0] for rule in (PROJECT / ".dockerignore").read_text().split("\n") if rule[:1] == "!"
    }
    assert {"agents", "textgan_env"} < sent == set(COPIED)


@pytest.mark.slow
def test_the_empty_copy_whose_requirements_are_installed_first_can_be_built(tmp_path: Path) -> None:
    for source in COPIED[: COPIED.index("README.md")]:
        shutil.copy(PROJECT / source, tmp_path)
    (layer,) = [re.sub(r"--mount=\S+", "", rest) for rest in of("RUN") if "mkdir" in rest]
    subprocess.run(["sh", "-c", layer.partition("&& /opt")[0]], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_installs_extras_that_exist_starts_the_page_and_has_the_run_of_make_demo() -> None:
    setup = ConfigParser()
    setup.read(PROJECT / "setup.cfg", "utf-8")
    arguments = dict(rest.split("=") for rest in of("ARG"))
    assert {"demo", "wordnet"} <= set(arguments["EXTRAS"].split(",")) <= set(setup["options.extras_require"])
    assert setup["options"]["python_requires"] == f">={arguments['PYTHON']}"
    assert (json.loads(of("ENTRYPOINT")[0]), json.loads(of("CMD")[0])[0]) == (["textgan"], "play")
    assert of("EXPOSE") == [str(inspect.signature(COMMANDS["play"]).parameters["port"].default)]
    (demo,) = re.findall(r"^\t\$\(BIN\)/python agents/(\w+)\.py (.*)$", (PROJECT / "Makefile").read_text(), re.M)
    assert f"textgan train {demo[0]} {demo[1]}" in of("RUN")
