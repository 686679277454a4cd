"""What the pages show works: each block of Python, each command and what it prints, each link; and they build.

A page is a Markdown file of the repository. In it,

- ``python`` is run as it stands, or is an excerpt of docs/examples; a ``text`` block behind it is its output;
- ``console`` is run, and prints the lines shown below each ``$ command`` in that order (``...`` leaves some out);
- ``sh``, and code in a line that begins with textgan, python or make, is a command whose options exist.
"""

import contextlib
import functools
import importlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import textgan_env.training.launch
from agents import cli
from conftest import PROJECT

PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((PROJECT / "docs").glob("*.md")))]
FENCE = re.compile(r"^(?P<fence>```+)(?P<kind>[\w{}-]*)\n(?P<body>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE)
EXAMPLES = [path.read_text("utf-8") for path in sorted((PROJECT / "docs" / "examples").glob("*.py"))]


@functools.cache
def text_of(page: str) -> str:
    return (PROJECT / page).read_text("utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """Kind and content of each block of code."""
    return [(match["kind"], match["body"]) for match in FENCE.finditer(text_of(page))]


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text_of(page))


def dialogues(body: str) -> list[tuple[str, list[str]]]:
    """Each command of a console, and the lines shown below it."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    return [(part.splitlines()[0], part.splitlines()[1:]) for part in parts]


# ----------------------------------------------------------------------------------------------------
# What is run.
@pytest.fixture(scope="module")
def with_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader's: a text, and the run of a policy that has hardly learnt it."""
    folder = tmp_path_factory.mktemp("reader")
    nouns, verbs = ("cat", "dog", "fox", "cow", "bee"), ("sat", "ran", "ate", "hid")
    lines = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in nouns for verb in verbs]
    (folder / "my.txt").write_text("\n".join(lines) + "\n")
    done = in_shell("textgan train mle --corpus my.txt --preset smoke --show-samples 0", folder)
    assert done.returncode == 0, done.stderr
    return folder


def in_shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a reader does who stands in a checkout with an active environment."""
    for name in ("agents", "benchmarks", "docs"):
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(PROJECT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def alike(shown: str, printed: str) -> bool:
    """The same words; numbers with a point may differ by .02, since rounding differs from machine to machine."""
    number = r"\d+\.\d+"
    pairs = zip(re.findall(number, shown), re.findall(number, printed), strict=False)
    words, others = (re.sub(number, "#", line).split() for line in (shown, printed))
    return words == others and all(abs(float(one) - float(other)) <= 0.02 for one, other in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if {"python", "console"} & {kind for kind, _ in blocks(page)}])
def test_what_a_page_shows_runs_and_prints_what_it_says(page: str, tmp_path: Path, with_a_run: Path) -> None:
    """Blocks in their order; a page that trains a run of its own begins in an empty folder."""
    found = blocks(page)
    trains = any(kind == "console" and "$ textgan train" in body for kind, body in found)
    folder = tmp_path if trains else with_a_run
    for number, (kind, body) in enumerate(found):
        if kind == "python" and not any(body in source for source in EXAMPLES):
            done = subprocess.run([sys.executable, "-c", body], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{body}\n{done.stderr}"
            if number + 1 < len(found) and found[number + 1][0] == "text":
                shown, printed = found[number + 1][1].splitlines(), done.stdout.splitlines()
                assert len(shown) == len(printed), done.stdout
                assert [line for line, other in zip(shown, printed, strict=True) if not alike(line, other)] == []
        elif kind == "console":
            for command, shown in dialogues(body):
                done = in_shell(command, folder)
                assert done.returncode == 0, f"{command}\n{done.stderr}"
                rest = iter(done.stdout.splitlines())
                lost = [line for line in shown if line != "..." and not any(alike(line, other) for other in rest)]
                assert lost == [], f"{command} does not print this in this order; it prints\n{done.stdout}"


# ----------------------------------------------------------------------------------------------------
# What is typed.
def commands(page: str) -> Iterator[str]:
    """Each command that a page shows, pipes and loops taken apart."""
    for kind, body in blocks(page):
        if kind == "sh":
            yield from _parted(body)
        elif kind == "console":
            for command, _ in dialogues(body):
                yield from _parted(command)
    yield from re.findall(r"`((?:textgan|python|make) [^`]+)`", prose(page))


def _parted(lines: str) -> Iterator[str]:
    for line in lines.replace("\\\n", " ").splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line)
        for part in re.split(r"\s\|\s|;\s|\s&&\s", re.sub(r"(\"[^\"]*\")", "WORDS", bare)):
            yield part.strip().removeprefix("do ").strip()


def complaint(command: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is wrong with a command, told without running it; None: nothing, or it is none of ours."""
    words = shlex.split(re.sub(r"\s(>|<)\s*\S+", "", command).replace("\\|", "|").partition(" | ")[0])
    match words:
        case [_] | ["textgan", _] | ["textgan", "COMMAND", *_]:  # a name, not a command
            return None
        case ["textgan", *rest] | ["python", "-m", "agents.cli", *rest]:
            return _refused([{"AGENT": "mle"}.get(word, word) for word in rest], monkeypatch)
        case ["python", script, *rest] if script.startswith("agents/"):
            return _refused(["train", Path(script).stem, *rest], monkeypatch)
        case ["torchrun", "--nproc-per-node", _, "--no-python", *rest]:
            return complaint(shlex.join(rest), monkeypatch)
        case ["torchrun", "--nproc-per-node", _, *rest]:
            return complaint(shlex.join(["python", *rest]), monkeypatch)
        case ["python", "-m", module, *rest] if module.startswith("benchmarks."):
            return _lacks(f"{module.replace('.', '/')}.py", rest)
        case ["python", script] if script.startswith("docs/notebooks/"):  # has no options, and no help
            return None if (PROJECT / script).is_file() else "no such file"
        case ["python", script, *rest] if script.startswith("docs/"):
            return _lacks(script, rest)
        case ["make", *rest]:
            targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
            unknown = {word for word in rest if "=" not in word} - targets - {"TARGET"}
            return f"no target {', '.join(unknown)}" if unknown else None
        case ["pip", "install", *_]:
            extras = set(re.findall(r"^(\w+) =$", text_of("setup.cfg"), re.MULTILINE))
            asked = {name for extra in re.findall(r"textgan[-_]env\[([\w,]+)\]", command) for name in extra.split(",")}
            return f"no extra {', '.join(asked - extras)}" if asked - extras else None
    return None


def _refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What `textgan` says when it reads these words; what it would do then is left undone."""
    for name, function in cli.COMMANDS.items():
        if name != "train":
            # What `wraps` leaves behind is the signature, from which the command line is read.
            monkeypatch.setitem(cli.COMMANDS, name, functools.wraps(function)(lambda *_, **__: None))
    monkeypatch.setattr(textgan_env.training.launch, "launch", lambda *_: None)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(words)
        except SystemExit as leaving:
            return said.getvalue() if leaving.code else None
    return None


@functools.cache
def _help(script: str, *subcommand: str) -> str:
    """What a script prints, run in this process: a process each would spend seconds to load torch."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        patch.setattr(sys, "argv", [script, *subcommand, "--help"])
        runpy.run_path(str(PROJECT / script), run_name="__main__")
    return said.getvalue()


def _lacks(script: str, words: list[str]) -> str | None:
    """Options of a script that its help does not list."""
    help_text = _help(script, *(word for word in words[:1] if word.isidentifier()))
    unknown = [word for word in words if word.startswith("--") and not re.search(rf"{word}\b", help_text)]
    return f"no option {', '.join(unknown)}" if unknown or not help_text else None


@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_has_the_options_it_is_given(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {command: complaint(command, monkeypatch) for command in commands(page)}
    assert {command: said for command, said in told.items() if said} == {}


def test_the_page_of_the_command_line_has_every_command() -> None:
    named = re.findall(r"^\| `textgan ((?:data )?[a-z]+)", text_of("docs/command_line.md"), re.MULTILINE)
    assert set(named) == set(cli.COMMANDS)


# ----------------------------------------------------------------------------------------------------
# What is linked.
LINK = re.compile(r"\]\(([^)\s]+)\)")


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/README.md"])
def test_every_local_link_of_a_page_leads_somewhere(page: str) -> None:
    file, lost = PROJECT / page, []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        if "://" not in link and (not target.exists() or (anchor and anchor not in slugs(target))):
            lost.append(link)
    assert lost == []


def test_the_readme_is_short_and_fits_a_terminal() -> None:
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 120] == []


def test_the_moving_picture_is_small() -> None:
    assert (PROJECT / "docs" / "images" / "writes.gif").stat().st_size < 300_000


def test_every_function_beside_a_line_of_an_algorithm_is_in_the_file_it_links_to() -> None:
    named = re.findall(r"\[`(?:(\w+)\.)?(\w+)`\]\(\.\./([\w/]+\.py)\)", text_of("docs/algorithms.md"))
    assert len(named) > 30
    lost = []
    for owner, name, file in named:
        source = (PROJECT / file).read_text("utf-8")
        inside = re.split(rf"^class {owner}\b", source, flags=re.MULTILINE)[-1] if owner else source
        body = re.split(r"^class ", inside, flags=re.MULTILINE)[0] if owner else inside
        if not re.search(rf"^\s*(def|class) {name}\b", body, re.MULTILINE):
            lost.append(f"{owner}.{name} in {file}")
    assert lost == []


# ----------------------------------------------------------------------------------------------------
# The site.
@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them: any warning is an error."""
    pytest.importorskip("furo", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html", "docs", str(folder)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_asks_nobody_for_anything(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//")
    assert [page.name for page in pages if fetched.search(page.read_text("utf-8"))] == []
    imported = re.compile(r"(url\(|@import)\W*(https?:)?//")
    assert [style.name for style in site.rglob("*.css") if imported.search(style.read_text("utf-8"))] == []


@pytest.mark.slow
@pytest.mark.moves_global_rng  # importing Stable-Baselines3 does
def test_every_public_name_has_a_place_on_the_site(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT / "docs")
    extension = importlib.import_module("extension")
    listed = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    places = {line.split(" ")[0] for line in listed.splitlines()}
    names = [
        f"{module}.{name}"
        for module in extension.modules()
        for name in extension.public_names(importlib.import_module(module))
    ]
    assert len(names) > 150
    assert [name for name in names if name not in places] == []


@pytest.mark.slow
def test_equations_are_shown_without_a_script(site: Path) -> None:
    page = (site / "ideas.html").read_text("utf-8")
    assert page.count("<math ") == text_of("docs/ideas.md").count("```math") >= 3
    assert "mathjax" not in page.lower()
