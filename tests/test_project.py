"""Rules of the project that no tool checks: what an import loads, what is installed, which versions the files name."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import PROJECT


@pytest.mark.parametrize(("imported", "heavy"), [
    ("textgan_env; textgan_env.load", ["torch", "stable_baselines3", "matplotlib", "tensorboard", "nltk", "wn"]),
    ("textgan_env.text.vocabulary", ["torch", "nltk"]),
    ("textgan_env.trl", ["trl", "transformers", "accelerate", "datasets"]),
    ("textgan_env.ops.plots", ["torch", "matplotlib", "PIL", "tqdm"]),
    ("textgan_env.utils.kinds, textgan_env.ops.metric_table", ["torch"]),
])  # fmt: skip
def test_an_import_loads_nothing_heavy(imported: str, heavy: list[str]) -> None:
    code = f"import sys, {imported}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "setup.cfg", "utf-8")
    return parser


def package_folders() -> set[str]:
    """Every folder with Python files that belongs into the wheel, by the name it is installed under."""
    own = {".".join(path.parent.relative_to(PROJECT).parts) for path in (PROJECT / "textgan_env").rglob("*.py")}
    return own | {"textgan_env.agents", "textgan_env.benchmarks"}


def test_packages_of_setup_cfg_are_the_folders() -> None:
    assert set(setup_cfg()["options"]["packages"].split()) == package_folders()


@pytest.mark.slow
def test_wheel_holds_only_textgan_env(tmp_path: Path) -> None:
    # Built from a copy: a build leaves folders behind in its source tree.
    source = tmp_path / "source"
    for folder in ("textgan_env", "agents", "benchmarks"):
        shutil.copytree(PROJECT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / file, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert {name.parts[0] for name in names} == {"textgan_env", f"textgan_env-{version()}.dist-info"}
    assert {".".join(name.parent.parts) for name in names if name.suffix == ".py"} == package_folders()
    assert Path("textgan_env/py.typed") in names
    assert {Path(f"textgan_env/show/viewer/page.{kind}") for kind in ("html", "css", "js")} <= set(names)
    assert Path("textgan_env/benchmarks/report.html") in names
    assert not any("results" in name.parts for name in names)
    runs_suite(wheel, tmp_path)
    (scripts,) = [name for name in names if name.name == "entry_points.txt"]
    assert "textgan = textgan_env.agents.cli:main" in zipfile.ZipFile(wheel).read(str(scripts)).decode()


def runs_suite(wheel: Path, tmp_path: Path) -> None:
    """What the wheel installs runs a job of the suite and makes its tables, far from the checkout."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    words = ["--agents", "uniform", "mle", "--tasks", "toy", "--seeds", "1", "--preset", "smoke", "--out", "suite"]
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", "from textgan_env.agents.cli import main; main()", "suite", *words]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    # An editable checkout in the environment must not be what is found.
    asked = [sys.executable, "-c", "from textgan_env.agents import mle; print(mle.__file__)"]
    found = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path / "work", env=environment).stdout
    assert found.startswith(str(tmp_path / "site")), found
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "work", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "python -m textgan_env.benchmarks.report suite" in done.stdout
    assert "uniform" in (tmp_path / "work" / "suite" / "tables.tex").read_text()
    (log,) = (tmp_path / "work" / "suite" / "jobs").glob("mle.*/log.txt")
    assert f"{PROJECT}/agents" not in log.read_text()


def version() -> str:
    """Value of ``__version__`` as setup.cfg's ``attr:`` reads it, without importing the package."""
    (found,) = re.findall(r'^__version__ = "(.*)"$', (PROJECT / "textgan_env" / "__init__.py").read_text("utf-8"), re.M)
    return str(found)


@pytest.mark.parametrize(
    ("file", "pattern"), [("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## (\d+\.\d+\.\d+)")]
)
def test_files_name_the_version_of_the_package(file: str, pattern: str) -> None:
    assert re.findall(pattern, (PROJECT / file).read_text("utf-8"), re.MULTILINE)[0] == version()


# Cut in two here, so that this file does not name them itself.
PRIVATE_PLACES = [
    place.replace("|", "")
    for place in (
        "py|pi.org", "python|hosted.org", "download.|pytorch.org", "npm|js.org", "debian|.org", "/wo|rk/",
        "/ro|ot/",
    )
]  # fmt: skip


def test_no_file_names_a_registry_host_or_a_folder_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("needs git to know which files belong to the project")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = PROJECT / name
        text = path.read_bytes().decode("utf-8", "ignore") if path.is_file() else ""
        found += [f"{name}: {place}" for place in PRIVATE_PLACES if place in text]
    assert found == []


def test_the_oldest_versions_that_are_tested_are_those_that_may_be_installed() -> None:
    wanted = setup_cfg()["options"]["install_requires"] + setup_cfg()["options.extras_require"]["sb3"]
    least = dict(re.findall(r"^([a-z0-9-]+)>=([0-9.]+)", wanted, re.MULTILINE))
    tested = dict(
        re.findall(r"^([a-z0-9-]+)==([0-9.]+)$", (PROJECT / "constraints-oldest.txt").read_text("utf-8"), re.M)
    )
    assert {name: [*version.split("."), "0", "0"][:3] for name, version in least.items()} == {
        name: version.split(".") for name, version in tested.items()
    }


def test_every_config_field_of_an_agent_is_read() -> None:
    files = (file for folder in ("agents", "textgan_env/training") for file in (PROJECT / folder).glob("*.py"))
    source = "\n".join(file.read_text("utf-8") for file in files)
    configs = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name.endswith("Config")
    ]
    fields = {
        statement.target.id
        for config in configs
        for statement in config.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not ast.unparse(statement.annotation).startswith("ClassVar")
    }
    assert len(fields) > 50
    # Some are read by their names; a check of the range is no use of a field.
    used = re.sub(r"\b(at_least|above_zero)\([^)]*\)", "", source)
    assert {field for field in fields if not re.search(rf"\b(_?config|self)\.{field}\b|\"{field}\"", used)} == set()
