"""A discriminator, a policy network, a transform, a metric and a corpus are added in a copy of the project, each in at
most two places, and used from the command line."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PROJECT

DISCRIMINATOR = '''
"""Which words a text holds."""

import torch
from torch import Tensor, nn

from textgan_env.discriminators.base import DiscriminatorModule
from textgan_env.ops.sampling import seeded


class WordsDiscriminator(DiscriminatorModule):
    """Logistic regression on which words a text holds."""

    kind = "words"

    def __init__(self, vocab_size: int, max_length: int, *, seed: int = 0) -> None:
        super().__init__(vocab_size, max_length, feature_size=vocab_size, dropout=0.0)
        with seeded(seed):
            self.output.reset_parameters()

    def features(self, tokens_BT: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens_BT, self.vocab_size + 1)[..., :-1].amax(1).float()

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=learning_rate or 1e-2)
'''
POLICY = '''
"""A policy that sees the last token only."""

from typing import Any

import torch
from torch import Tensor, nn

from textgan_env.ops.sampling import seeded
from textgan_env.policies.base import PolicyModule, State


class LastTokenPolicy(PolicyModule):
    """A bigram model with an embedding."""

    kind = "last_token"

    def __init__(
        self, vocab_size: int, *, start_token: int, embed_size: int = 8, forbidden: Any = (), seed: int = 0
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        self.embed_size = embed_size
        with seeded(seed):
            self.embedding = nn.Embedding(vocab_size + 1, embed_size)
            self.output = nn.Linear(embed_size, vocab_size)

    def config(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "start_token": self.start_token, "embed_size": self.embed_size,
                "forbidden": self.forbidden.tolist()}

    def begin(self, batch_size: int) -> State:
        return torch.zeros(batch_size, 1, device=self.output.weight.device)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        return self.output(self.embedding(tokens_B)), state
'''

# File, what the row is put before, and the row. A corpus has a second place: its name in the help of --task.
ROWS = [
    (
        "utils/kinds.py", '    "bleu": Kind(',
        '    "words": Kind("discriminators.words:WordsDiscriminator", "its words"),\n',
    ),
    (
        "utils/kinds.py", '    "leaked": Kind(',
        '    "last_token": Kind("policies.last_token:LastTokenPolicy", "a bigram"),\n',
    ),
    (
        "ops/reward_kinds.py", '    "log": Transform(',
        '    "cubed": Transform(lambda logits: logits.sigmoid() ** 3, "D^3"),\n',
    ),
    (
        "ops/metric_table.py", '        Metric("unique", ',
        '        Metric("vowels", "vowels", "share", None, "tokens 0 and 3", variety),\n',
    ),
    (
        "evaluation/evaluate.py", '"unique": metrics.unique_share(texts)',
        '"vowels": float(torch.isin(tokens_BT, torch.tensor([0, 3])).float().mean()), ',
    ),
    (
        "text/corpora.py", '    NamedCorpus(\n        "wordnet",',
        '    NamedCorpus("rhymes", "TextGAN/Rhymes-v0", "rhymes", {"train": DataFile("rhymes.txt", "SUM")}),\n',
    ),
    ("utils/options.py", "json-grammar.", "rhymes, "),
]  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project to which one of each was added; no file is changed in more than one place."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("textgan_env", "agents"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    package = folder / "textgan_env"
    (package / "discriminators" / "words.py").write_text(DISCRIMINATOR)
    (package / "policies" / "last_token.py").write_text(POLICY)
    for name, before, row in ROWS:
        text = (package / name).read_text("utf-8")
        assert text.count(before) == 1, (name, before)
        (package / name).write_text(text.replace(before, row + before))
    return folder


def run(copy: Path, *words: str, **environment: str) -> str:
    """What a command of the copy prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_discriminator_a_policy_and_a_transform_are_used_by_name(copy: Path) -> None:
    said = run(
        copy, "agents/seqgan.py", "--task", "toy", "--preset", "smoke", "--discriminator", "words", "--policy",
        "last_token", "--transform", "cubed",
    )  # fmt: skip
    assert "vowels" in said  # the new metric stands in the table of the evaluation
    assert "run folder" in said
    (folder,) = (copy / "runs").iterdir()
    sampled = run(copy, "-m", "agents.cli", "sample", str(folder), "-n", "2")
    assert len(sampled.strip().splitlines()) >= 2


@pytest.mark.slow
def test_help_offers_what_was_added(copy: Path) -> None:
    said = " ".join(run(copy, "agents/seqgan.py", "--help").split())
    for name in ("words", "last_token", "cubed", "rhymes"):
        assert name in said, name


@pytest.mark.slow
def test_a_corpus_has_its_task_and_its_environment(copy: Path, tmp_path: Path) -> None:
    lines = "".join(f"the cat {number} sat on mat {number % 7}\n" for number in range(200))
    (tmp_path / "rhymes.txt").write_text(lines)
    table = copy / "textgan_env" / "text" / "corpora.py"
    table.write_text(table.read_text().replace('"SUM"', f'"{hashlib.sha256(lines.encode()).hexdigest()}"'))
    code = (
        "import gymnasium, textgan_env; print(gymnasium.make('TextGAN/Rhymes-v0', control='constant').reset(seed=0)[0])"
    )
    assert "tokens" in run(copy, "-c", code, TEXTGAN_DATA=str(tmp_path))
    said = run(copy, "agents/mle.py", "--task", "rhymes", "--preset", "smoke", TEXTGAN_DATA=str(tmp_path))
    assert "run folder" in said
