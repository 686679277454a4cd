"""The agent in one file, docs/examples/ppo_from_scratch.py, learns."""

import runpy

import numpy as np
import pytest

from conftest import PROJECT

EXAMPLE = PROJECT / "docs" / "examples" / "ppo_from_scratch.py"


@pytest.mark.slow
@pytest.mark.moves_global_rng  # a script of its own: it seeds torch as such scripts do
def test_the_agent_in_one_file_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """Against a fixed discriminator; the first iteration is the random policy, whose texts are worth 0 or less."""
    example = runpy.run_path(str(EXAMPLE))
    history = example["train"](example["Args"](iterations=25, refit_every=0, entropy=0.01, learning_rate=5e-3))
    assert history[0] < 0.1
    assert np.mean(history[-5:]) > history[0] + 0.5
    assert "iteration  25  reward of a text" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.moves_global_rng  # likewise
def test_the_agent_in_one_file_refits_the_discriminator(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    assert len(example["train"](example["Args"](iterations=2, refit_every=64))) == 2
    assert "D's AUC on unseen texts 0." in capsys.readouterr().out
