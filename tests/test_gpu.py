"""The code's way on a GPU, walked on the CPU: no operation that a GPU refuses, few launches, hardly a wait.

The fake GPU needs a process of its own (see fake_gpu.py), so each test starts one and reads what it has found.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import backend_registration

from conftest import PROJECT, assert_refused
from textgan_env.training.launch import _set_up_torch
from textgan_env.utils.options import CommonConfig

needs_fake_gpu = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no backend written in Python",
)

#: Of a g-step: launches whatever T is, launches for each of T positions, and waits. What a change may not exceed.
BUDGETS = {
    "SeqGAN as published": (582, 27, 5),
    "SeqGAN": (653, 28, 8),
    "LeakGAN": (816, 92, 7),
}


def found(group: str, folder: Path, *numbers: int) -> dict[str, Any]:
    """What ``gpu_paths.py`` finds."""
    file = folder / "found.json"
    command = [sys.executable, str(PROJECT / "tests" / "gpu_paths.py"), group, str(file), *map(str, numbers)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return read


@needs_fake_gpu
def test_launches_and_waits_of_a_step_stay_within_their_budgets(tmp_path: Path) -> None:
    over = []
    for name, step in found("steps", tmp_path, 8, 20).items():
        kind, length = name.split(", T=")
        fixed, each, waits = BUDGETS[kind]
        if step["launches"] > fixed + each * int(length) or step["syncs"] > waits:
            over.append((name, step))
    assert over == []


@needs_fake_gpu
@pytest.mark.slow
@pytest.mark.parametrize("group", ["paths", "runs"])
def test_a_gpu_refuses_no_path_and_gives_what_the_cpu_gives(group: str, tmp_path: Path) -> None:
    paths = found(group, tmp_path)
    assert len(paths) >= 7
    assert {name: path["wrong"] for name, path in paths.items() if path["wrong"] is not None} == {}


@needs_fake_gpu
@pytest.mark.slow
def test_faults_of_devices_are_found(tmp_path: Path) -> None:
    mutants = found("mutants", tmp_path)
    assert mutants.pop("none")["wrong"] is None
    assert len(mutants) == 7
    assert [name for name, path in mutants.items() if path["wrong"] is None] == []


def test_tf32_is_off_unless_it_was_asked_for() -> None:
    products, networks = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, networks.allow_tf32
    try:
        for asked in (False, True):
            products.allow_tf32, networks.allow_tf32 = asked, not asked
            _set_up_torch(CommonConfig(device="cpu"))
            assert (products.allow_tf32, networks.allow_tf32) == (asked, asked)
    finally:
        products.allow_tf32, networks.allow_tf32 = before


def test_a_device_without_numbers_of_64_bits_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = torch.zeros

    def of_mps(*shape: int, dtype: torch.dtype | None = None, device: str | None = None) -> torch.Tensor:
        if dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return zeros(*shape)

    monkeypatch.setattr(torch, "zeros", of_mps)
    assert_refused("device 'mps' cannot be used: draws need numbers of 64", _set_up_torch, CommonConfig(device="mps"))
