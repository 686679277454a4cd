"""A few of the kills of `make faults`, and the signals that ask a process to end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.parametrize(("signal", "kills"), [("KILL", 6), ("TERM", 4)])
def test_killed_runs_go_on_to_the_same_end(signal: str, kills: int) -> None:
    """100 of them: make faults."""
    words = [sys.executable, str(KILLS), "--kills", str(kills), "--signal", signal, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] >= kills
    assert told["unequal"] == []
