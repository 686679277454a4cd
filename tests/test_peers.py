"""The command that times TextGAN-PyTorch beside ours: what it refuses, and that it runs on a stand-in for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import peers
from conftest import PROJECT, mistake_of

# As small as the interface allows: names, arguments and shapes are those of the real one, the arithmetic is not.
STAND_IN = {
    "config.py": """
        CUDA, if_real_data, batch_size, vocab_size, max_seq_len = True, False, 64, 9, 20
        padding_idx, start_letter = 0, 1
        gen_embed_dim = gen_hidden_dim = dis_embed_dim = goal_size = 2
        gen_lr, dis_lr, clip_norm, step_size = 0.01, 1e-4, 5.0, 4
    """,
    "models/SeqGAN_G.py": """
        import config, torch
        class SeqGAN_G(torch.nn.Module):
            def __init__(self, embed, hidden, vocab, length, padding, gpu):
                super().__init__()
                assert not gpu and not config.CUDA and config.batch_size == 4
                self.shape, self.table = (length, vocab), torch.nn.Parameter(torch.zeros(length, vocab))
            def sample(self, number, batch):
                assert number == batch  # asked for more than a batch it writes one too many
                return torch.randint(self.shape[1], (number, self.shape[0]))
            def init_hidden(self, batch):
                return None
            def forward(self, inp, hidden):
                assert (inp[:, 0] == config.start_letter).all()
                return self.table.log_softmax(1).repeat(len(inp), 1)
            def batchPGLoss(self, inp, target, reward):
                assert torch.equal(inp[:, 1:], target[:, :-1]) and reward.shape == target.shape
                return -(self.table.log_softmax(1)[torch.arange(self.shape[0]), target] * reward).sum()
    """,
    "models/SeqGAN_D.py": """
        import torch
        class SeqGAN_D(torch.nn.Module):
            def __init__(self, embed, vocab, padding, gpu):
                super().__init__()
                self.table = torch.nn.Parameter(torch.zeros(vocab, 2))
            def forward(self, inp):
                return self.table[inp].mean(1)
    """,
    "models/LeakGAN_D.py": """
        from models.SeqGAN_D import SeqGAN_D
        class LeakGAN_D(SeqGAN_D):
            pass
    """,
    "models/LeakGAN_G.py": """
        import torch
        class LeakGAN_G(torch.nn.Module):
            def __init__(self, embed, hidden, vocab, length, padding, goal, step, gpu):
                super().__init__()
                self.shape = (length, vocab)
                self.manager, self.worker = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
            def split_params(self):
                return [self.manager], [self.worker]
            def sample(self, number, batch, dis, train):
                assert train and not torch.is_grad_enabled()
                return torch.randint(self.shape[1], (number, self.shape[0]))
            def adversarial_loss(self, target, rewards, dis):
                shared = (self.manager * self.worker).square()  # a step between the two backward passes is refused
                return (shared * rewards.mean()).sum(), shared.sum()
    """,
    "utils/rollout.py": """
        import torch
        class ROLLOUT:
            def __init__(self, gen, gpu):
                assert not gpu
            def get_reward(self, sentences, number, dis):
                return torch.full(sentences.shape, 1.0 / number)
            def get_reward_leakgan(self, sentences, number, dis, k):
                return torch.ones(len(sentences), sentences.shape[1] // 4)
    """,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, code in STAND_IN.items():
        file = tmp_path / "TextGAN-PyTorch" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line[8:] for line in code.strip("\n").split("\n")) + "\n")
    return tmp_path / "TextGAN-PyTorch"


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own: the checkout's modules have names like ``config``."""
    command = [sys.executable, "-m", "benchmarks.peers", *words]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_piece_is_timed_beside_ours(checkout: Path) -> None:
    done = run("--path", str(checkout), "--repeats", "1", "--rows", "4", "--vocab-size", "30", "--batches", "2")
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line[0].removeprefix("| ") for line in lines[2:]] == list(peers.PIECES)
    assert all(float(line[6]) >= 0 for line in lines[2:])  # the ratio
    assert "N=4" in lines[2][1]
    assert "N=16" in lines[3][1]
    assert lines[5][1].endswith("32 texts")
    assert "TextGAN-PyTorch's (commit unknown)" in done.stdout
    assert "CUDA is False" in done.stdout


@pytest.mark.moves_global_rng
@pytest.mark.parametrize(("gone", "sentence"), [
    (None, "--path must name a checkout of https://github.com/williamSYSU/TextGAN-PyTorch"),
    ("", "--path must be a folder, a checkout of TextGAN-PyTorch, found"),
    ("models/SeqGAN_D.py", "is no checkout of TextGAN-PyTorch: it has no models/SeqGAN_D.py"),
])  # fmt: skip
def test_what_is_no_checkout_is_one_sentence(
    gone: str | None, sentence: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [] if gone is None else ["--path", str(checkout if gone else checkout / "none")]
    if gone:
        (checkout / gone).unlink()
    assert sentence in mistake_of(peers.main, words, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "code", "sentence"), [
    ("utils/rollout.py", "import no_such", "TextGAN-PyTorch does not run: it needs the module no_such"),
    ("utils/rollout.py", "import utils.other", "is not TextGAN-PyTorch of commit 7ff8909: it needs the module"),
    ("models/SeqGAN_D.py", "class Other: pass", "is not TextGAN-PyTorch of commit 7ff8909: module 'models."),
])  # fmt: skip
def test_another_version_or_a_missing_package_is_one_sentence(
    file: str, code: str, sentence: str, checkout: Path
) -> None:
    (checkout / file).write_text(code + "\n")
    done = run("--path", str(checkout), "--rows", "4")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert sentence in done.stderr
