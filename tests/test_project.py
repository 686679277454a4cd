"""The rules of the house that no tool checks: who imports whom, what is installed, what the files say."""

import ast
import configparser
import math
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import PROJECT, PositionDiscriminator, StubPolicy, global_rng_state
from textgan_env.policies.base import Policy

# ----------------------------------------------------------------------------------------------------
# Who may import whom. A module may import what stands before it here, and nothing else of the project.
FLOORS = [
    ["utils"],
    ["text", "ops"],
    ["discriminators", "policies"],
    ["rewards"],
    ["tasks"],
    ["evaluation"],
    ["envs"],
    ["runs"],
    ["training"],
    ["show"],
    ["agents"],
    ["benchmarks"],
]
ORDER = [room for floor in FLOORS for room in floor]
SB3 = {"stable_baselines3", "sb3_contrib"}
# The command that starts them lies beside them.
AGENT_FILES = sorted(path for path in (PROJECT / "agents").glob("*.py") if path.stem not in ("__init__", "cli"))


@dataclass(frozen=True)
class Import:
    """One imported module or name, dotted in full."""

    line: int
    target: str


def module_name(path: Path) -> str:
    """Dotted name of a source file: textgan_env/policies/base.py is textgan_env.policies.base."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import in a file: inside functions and under TYPE_CHECKING, too.

    Args:
        source: Text of the file.
        package: Dotted name of the package that the file lies in, for relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """Place of a module in ORDER; "" for the package textgan_env itself, None for another distribution."""
    head, *rest = module.split(".")
    if head in ("agents", "benchmarks"):
        return head
    if head != "textgan_env":
        return None
    return rest[0] if rest else ""


def complaints(module: str, source: str, is_package: bool = False) -> list[str]:
    """What a file's imports do against the order, one sentence for each."""
    room = room_of(module)
    if room not in (*ORDER, ""):
        return [f"{module} has no place in ORDER (tests/test_project.py); give it one"]
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for imported in imports_of(source, package):
        where = f"{module}:{imported.line} imports {imported.target}"
        target = room_of(imported.target)
        if imported.target.split(".")[0] in SB3 and not (module.endswith(".sb3") or room == "agents"):
            found.append(f"{where}; in textgan_env and benchmarks only envs/sb3.py and training/sb3.py may")
        elif room == "agents" and target == "agents":
            found.append(f"{where}; an agent never imports another, shared code lives in textgan_env")
        elif target in ("agents", "benchmarks") and ORDER.index(target) > _rank(room):
            found.append(f"{where}, which stands to its right")
        elif target is None or target == room or imported.target.startswith("textgan_env.__"):
            continue
        elif room in ORDER[: ORDER.index("agents")] and target not in ORDER:
            found.append(f"{where} through the package; name the module that defines it")
        elif target in ORDER and ORDER.index(target) > _rank(room):
            found.append(f"{where}, which stands to its right")
    return found


def _rank(room: str | None) -> int:
    # The package's own __init__ may point at everything in the package, not at what is built on it.
    return ORDER.index(room) if room else ORDER.index("agents") - 1


def source_files() -> list[Path]:
    return sorted(
        path for folder in ("textgan_env", "agents", "benchmarks") for path in (PROJECT / folder).rglob("*.py")
    )


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_imports_run_from_right_to_left_of_the_order(path: Path) -> None:
    assert complaints(module_name(path), path.read_text("utf-8"), path.stem == "__init__") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("textgan_env.ops.sampling", "from textgan_env.rewards import complete"),
        ("textgan_env.ops.sampling", "import textgan_env.rewards.rollouts"),
        ("textgan_env.ops.sampling", "from textgan_env import rollouts"),
        ("textgan_env.ops.sampling", "from .. import rewards"),
        ("textgan_env.ops.sampling", "from ..rewards import complete"),
        ("textgan_env.policies.base", "from ..envs import TextGANEnv"),
        ("textgan_env.ops.sampling", "def f():\n    from textgan_env.rewards import complete"),
        ("textgan_env.ops.sampling", "if TYPE_CHECKING:\n    from textgan_env.rewards import complete"),
        ("textgan_env.rewards.rollouts", "from textgan_env import LSTMPolicy"),
        ("textgan_env.rewards.rollouts", "import textgan_env"),
        ("textgan_env.training.loop", "from agents.mle import main"),
        ("textgan_env.training.loop", "from textgan_env.agents.mle import main"),
        ("textgan_env.training.loop", "import benchmarks"),
        ("textgan_env", "from agents import mle"),
        ("textgan_env.envs", "from stable_baselines3 import PPO"),
        ("benchmarks.suite", "import sb3_contrib"),
        ("agents.seqgan", "from agents.mle import main"),
        ("agents.seqgan", "from textgan_env.agents.mle import main"),
        ("agents.seqgan", "from .mle import main"),
        ("agents.seqgan", "from benchmarks.suite import run"),
        ("textgan_env.novelty", "import ast"),
    ],
)
def test_an_import_against_the_order_is_found(module: str, source: str) -> None:
    assert len(complaints(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("textgan_env.rewards.rollouts", "from textgan_env.ops.sampling import seeded\nimport torch"),
        ("textgan_env.policies.lstm", "from textgan_env.policies.base import PolicyModule"),
        ("textgan_env.policies.lstm", "from .base import PolicyModule"),
        ("textgan_env.runs.folder", "from textgan_env import __version__"),
        ("textgan_env", "def load():\n    from textgan_env.training import Schedule"),
        ("textgan_env.envs.sb3", "from stable_baselines3.common.vec_env import VecEnv"),
        (
            "agents.ppo",
            "import textgan_env\nfrom textgan_env import evaluate\nfrom stable_baselines3 import PPO",
        ),
        ("benchmarks.suite", "from agents import mle\nfrom benchmarks.report import table"),
    ],
)
def test_an_import_along_the_order_is_fine(module: str, source: str) -> None:
    assert complaints(module, source) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["torch", "stable_baselines3", "matplotlib", "tensorboard", "nltk", "wn"]
    code = f"import sys, textgan_env; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ----------------------------------------------------------------------------------------------------
# What is installed, and the version that it says.
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "setup.cfg", "utf-8")
    return parser


def package_folders() -> set[str]:
    """Every folder with Python files that belongs into the wheel, by the name it is installed under."""
    own = {module_name(path.parent / "__init__.py") for path in (PROJECT / "textgan_env").rglob("*.py")}
    return own | {"textgan_env.agents"}


def test_packages_of_setup_cfg_are_the_folders() -> None:
    assert set(setup_cfg()["options"]["packages"].split()) == package_folders()


@pytest.mark.slow
def test_wheel_holds_only_textgan_env(tmp_path: Path) -> None:
    # Built from a copy: a build leaves folders behind in its source tree.
    source = tmp_path / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "build", "*.egg-info"))
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    top = {name.parts[0] for name in names}
    version = setup_cfg_version()
    assert top == {"textgan_env", f"textgan_env-{version}.dist-info"}
    assert {".".join(name.parent.parts) for name in names if name.suffix == ".py"} == package_folders()
    assert Path("textgan_env/py.typed") in names
    assert {Path(f"textgan_env/show/viewer/page.{kind}") for kind in ("html", "css", "js")} <= set(names)
    (scripts,) = [name for name in names if name.name == "entry_points.txt"]
    assert "textgan = textgan_env.agents.cli:main" in zipfile.ZipFile(wheel).read(str(scripts)).decode()


def setup_cfg_version() -> str:
    """Value of ``__version__``, read as setup.cfg's ``attr:`` reads it: without importing the package."""
    for node in ast.parse((PROJECT / "textgan_env" / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise AssertionError("textgan_env/__init__.py assigns no literal __version__")


def test_citation_names_the_version_of_the_package() -> None:
    text = (PROJECT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (\S+)$", text, re.MULTILINE) == [setup_cfg_version()]


def test_changelog_begins_with_the_version_of_the_package() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (\d+\.\d+\.\d+)", text, re.MULTILINE)[0] == setup_cfg_version()


# ----------------------------------------------------------------------------------------------------
# What the files may say.
# Cut in two here, so that this file does not name them itself.
PRIVATE_PLACES = [
    place.replace("|", "")
    for place in (
        "py|pi.org",
        "python|hosted.org",
        "download.|pytorch.org",
        "npm|js.org",
        "debian|.org",
        "/wo|rk/",
        "/ro|ot/",
    )
]


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
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["sb3"]
    least = dict(re.findall(r"^([a-z0-9-]+)>=([0-9.]+)", wanted, re.MULTILINE))
    tested = dict(
        re.findall(r"^([a-z0-9-]+)==([0-9.]+)$", (PROJECT / "constraints-oldest.txt").read_text("utf-8"), re.M)
    )
    assert {name: [*version.split("."), "0", "0"][:3] for name, version in least.items()} == {
        name: version.split(".") for name, version in tested.items()
    }


# ----------------------------------------------------------------------------------------------------
# The agents' scripts.
@pytest.mark.parametrize("path", AGENT_FILES, ids=lambda path: path.stem)
def test_help_of_an_agent_needs_no_torch(path: Path) -> None:
    # The script runs as a person runs it; what it has loaded by then is asked afterwards.
    code = f"""
import runpy, sys
sys.argv = [{str(path)!r}, "--help"]
sys.path[0] = {str(path.parent)!r}
code = "--help did not end the script"
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as leaving:
    code = leaving.code
sys.exit("--help loads torch: import it inside functions" if "torch" in sys.modules else code)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--device" in done.stdout


def unread_fields(source: str) -> list[str]:
    """Fields of a file's config dataclasses (classes named ...Config) that nothing in the file reads."""
    tree = ast.parse(source)
    configs = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name.endswith("Config")]
    fields = [
        f"{config.name}.{statement.target.id}"
        for config in configs
        for statement in config.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_config(node.value)
    }
    return [field for field in fields if field.rpartition(".")[2] not in read]


def _is_config(node: ast.expr) -> bool:
    """Whether an expression is a config by its name: ``config``, ``self``, ``self._config.model``."""
    while isinstance(node, ast.Attribute) and "config" not in node.attr:
        node = node.value
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name == "self" or "config" in name


def test_every_config_field_of_an_agent_is_read() -> None:
    # What agents share is read by what they share, or by each of them.
    bodies = [PROJECT / "textgan_env" / "training" / name for name in ("adversarial.py", "sb3.py")]
    assert unread_fields("\n".join(file.read_text("utf-8") for file in (*AGENT_FILES, *bodies))) == []


def test_a_config_field_that_nothing_reads_is_found() -> None:
    source = """
@dataclass(frozen=True)
class ToyConfig:
    steps: int = 1
    rate: float = 0.1
    width: int = 32
    device: str = "cpu"

def train(config, tokens):
    config.rate = 2
    return config.steps, config.model.width, tokens.device
"""
    assert unread_fields(source) == ["ToyConfig.rate", "ToyConfig.device"]


# ----------------------------------------------------------------------------------------------------
# What conftest.py promises to every test.
@pytest.mark.moves_global_rng  # on purpose: each must be noticed
@pytest.mark.parametrize(
    ("name", "draw"),
    [("torch", lambda: torch.rand(1)), ("numpy", lambda: np.random.rand()), ("random", random.random)],  # noqa: NPY002
)
def test_a_global_draw_shows_in_the_global_state(name: str, draw: Callable[[], object]) -> None:
    before = global_rng_state()
    draw()
    after = global_rng_state()
    assert [key for key in before if before[key] != after[key]] == [name]


@pytest.mark.slow
def test_a_test_that_draws_globally_fails_unless_marked(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = moves_global_rng\n")
    (tmp_path / "test_draws.py").write_text("""
import pytest, torch

def test_draws():
    torch.rand(1)

@pytest.mark.moves_global_rng
def test_may_draw():
    torch.rand(1)

def test_draws_from_its_own():
    torch.rand(1, generator=torch.Generator().manual_seed(0))
""")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "3 passed, 1 error" in done.stdout
    assert "ERROR at teardown of test_draws " in done.stdout
    assert "the global random state of torch moved" in done.stdout


def test_stub_policy_gives_its_logits_and_counts_tokens_by_row() -> None:
    policy = StubPolicy([0.0, math.log(3.0)])
    assert isinstance(policy, Policy)
    state = policy.begin(2)
    logits_BV, state = policy.step(torch.tensor([policy.start_token] * 2), state)
    state = policy.reset_rows(state, torch.tensor([True, False]))
    assert state.tolist() == [0, 1]
    assert torch.allclose(logits_BV.softmax(1), torch.tensor([[0.25, 0.75], [0.25, 0.75]]))
    logp_BT = policy.log_prob(torch.tensor([[1, 2]]), torch.tensor([[True, False]]))
    assert torch.allclose(logp_BT, torch.tensor([[math.log(0.75), 0.0]]))


def test_position_discriminator_spells_the_text_in_its_logit() -> None:
    discriminator = PositionDiscriminator(vocab_size=9, max_length=4)
    tokens_BT = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 9]])
    logits_B = discriminator.logits(tokens_BT)
    assert logits_B.tolist() == [4321.0, 9234.0]
    assert discriminator.decode(logits_B).equal(tokens_BT)
    assert discriminator.head(discriminator.features(tokens_BT)).equal(logits_B)


def test_position_discriminator_refuses_texts_it_cannot_tell_apart() -> None:
    with pytest.raises(ValueError, match="tell apart"):
        PositionDiscriminator(vocab_size=5000, max_length=20)
