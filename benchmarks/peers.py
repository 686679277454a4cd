"""How fast TextGAN-PyTorch is beside ours: its pieces and ours in turns, in one process, processor time of one thread.

With a clone of https://github.com/williamSYSU/TextGAN-PyTorch: ``python -m benchmarks.peers --path TextGAN-PyTorch``.
Its code is imported from there and runs as it is, at the published sizes, but for what `CHANGES` says. Written for its
commit 7ff8909; it needs the packages that its own README names.
"""

import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import throughput
from benchmarks.results import command, show, table
from textgan_env.utils.errors import InputError, MissingDataError, require, require_known
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

KNOWN = "7ff8909"
FILES = ("config.py", *(f"models/{name}.py" for name in ("SeqGAN_G", "SeqGAN_D", "LeakGAN_G", "LeakGAN_D")))
CHANGES = (
    "CUDA is False in its config; LeakGAN's two optimizers step after both backward passes, as PyTorch refuses to go "
    "back through weights that a step has changed; its loops, loaders, logs and the metrics that it takes after each "
    "step are left out. As they are: D never leaves training mode, and the finished text is scored once for each of "
    "the N completions."
)


@dataclass(frozen=True)
class Options:
    """Time TextGAN-PyTorch beside ours."""

    path: Path | None = None
    """A checkout of williamSYSU/TextGAN-PyTorch."""
    works: tuple[str, ...] = ()
    """Which pieces; none: all."""
    repeats: int = 3
    """Turns that are timed, after one that is not."""
    rows: int = 64
    """B, also the texts of a step of D (half real, half written) and of maximum likelihood."""
    max_length: int = 20
    """T; its CNN has windows of 20 tokens."""
    vocab_size: int = 5000
    """V."""
    batches: int = 10
    """Batches of 4 B texts where texts are written."""
    name: str | None = None
    """Of the result files; none are written without."""


@command
def main(options: Options) -> None:
    """The command."""
    for name in options.works:
        require_known("work", name, PIECES)
    at_least(1, options, "repeats", "rows", "vocab_size", "batches")
    at_least(20, options, "max_length")
    path = _checkout(options.path)
    import torch

    torch.set_num_threads(1)
    peer = _Peer(path, options)
    rows = [_row(name, peer, options) for name in options.works or PIECES]
    notes = (
        f"Processor time on one thread, median over turns (lowest - highest); the ratio is the median, over turns, of "
        f"TextGAN-PyTorch's ({_commit(path)}) by ours. {CHANGES}"
    )
    if options.name is None:
        print(f"{table(rows)}\n\n{notes}")
    else:
        show(options.name, rows, notes=notes)


def _checkout(path: Path | None) -> Path:
    """The folder of the checkout.

    Raises:
        MissingDataError: If none was named.
        InputError: If it is something else.
    """
    if path is None:
        raise MissingDataError("--path must name a checkout of https://github.com/williamSYSU/TextGAN-PyTorch")
    require(path.is_dir(), f"--path must be a folder, a checkout of TextGAN-PyTorch, found '{path}'")
    missing = [name for name in (*FILES, "utils/rollout.py") if not (path / name).is_file()]
    require(not missing, f"'{path}' is no checkout of TextGAN-PyTorch: it has no {' and no '.join(missing[:2])}")
    return path.resolve()


def _commit(path: Path) -> str:
    """Which commit the checkout is at, as far as git says."""
    words = ["git", "-C", str(path), "rev-parse", "--show-toplevel", "--short=7", "HEAD"]
    try:
        top, commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")[:2]
    except (OSError, subprocess.CalledProcessError):
        return "commit unknown"
    return f"commit {commit}" if Path(top).resolve() == path else "commit unknown"


class _Peer:
    """The networks of the checkout, and what its training does with them, a batch at a time.

    Args:
        path: The checkout.
        options: Sizes.

    Raises:
        InputError: If it is another version, or a package that it needs is not installed.
    """

    def __init__(self, path: Path, options: Options) -> None:
        import torch

        sys.path.insert(0, str(path))
        try:
            self.config = importlib.import_module("config")
            settings = {
                "CUDA": False, "if_real_data": False, "batch_size": options.rows, "vocab_size": options.vocab_size,
                "max_seq_len": options.max_length,
            }  # fmt: skip
            # Before its networks are imported: they take some of these as defaults of their functions.
            vars(self.config).update(settings)
            self._make()
        except ModuleNotFoundError as error:
            ours = (path / (error.name or "").partition(".")[0]).exists()
            expected = f"'{path}' is not TextGAN-PyTorch of commit {KNOWN}" if ours else "TextGAN-PyTorch does not run"
            raise InputError(f"{expected}: it needs the module {error.name}, which is not here") from None
        except (AttributeError, ImportError, TypeError) as error:
            raise InputError(f"'{path}' is not TextGAN-PyTorch of commit {KNOWN}: {error}") from None
        finally:
            sys.path.remove(str(path))
        adam = torch.optim.Adam
        self.gen_optimizer = adam(self.gen.parameters(), lr=self.config.gen_lr)
        self.dis_optimizer = adam(self.dis.parameters(), lr=self.config.dis_lr)
        self.leak_optimizers = [adam(part, lr=self.config.gen_lr) for part in self.leak_gen.split_params()]
        self.real_BT = self.gen.sample(options.rows, options.rows)

    def _make(self) -> None:
        """Import its code, and make its networks as its instructors do."""
        cfg = self.config
        made = {name: getattr(importlib.import_module(f"models.{name}"), name) for name in map(_stem, FILES[1:])}
        self.rollout: Any = importlib.import_module("utils.rollout").ROLLOUT
        sizes = (cfg.gen_embed_dim, cfg.gen_hidden_dim, cfg.vocab_size, cfg.max_seq_len, cfg.padding_idx)
        self.gen: Any = made["SeqGAN_G"](*sizes, gpu=False)
        self.dis: Any = made["SeqGAN_D"](cfg.dis_embed_dim, cfg.vocab_size, cfg.padding_idx, gpu=False)
        self.leak_gen: Any = made["LeakGAN_G"](*sizes, cfg.goal_size, cfg.step_size, gpu=False)
        self.leak_dis: Any = made["LeakGAN_D"](cfg.dis_embed_dim, cfg.vocab_size, cfg.padding_idx, gpu=False)

    def inputs(self, tokens_BT: "Tensor") -> "Tensor":
        """What G reads before each token."""
        read_BT = tokens_BT.roll(1, 1)
        read_BT[:, 0] = self.config.start_letter
        return read_BT

    def descend(self, optimizer: "torch.optim.Optimizer", loss: "Tensor", clipped: "nn.Module | None" = None) -> None:
        """A step of an optimizer; in pre-training and for D gradients are clipped."""
        import torch

        optimizer.zero_grad()
        loss.backward()
        if clipped is not None:
            torch.nn.utils.clip_grad_norm_(clipped.parameters(), self.config.clip_norm)
        optimizer.step()

    def seqgan_step(self, rollouts: int) -> None:
        """Write B texts, complete and score every prefix N times, REINFORCE."""
        tokens_BT = self.gen.sample(len(self.real_BT), len(self.real_BT))
        credit_BT = self.rollout(self.gen, False).get_reward(tokens_BT, rollouts, self.dis)
        self.descend(self.gen_optimizer, self.gen.batchPGLoss(self.inputs(tokens_BT), tokens_BT, credit_BT))

    def leakgan_step(self) -> None:
        """Write B texts, Q after every c-th token by 4 completions, Manager's and Worker's losses."""
        import torch

        with torch.no_grad():
            tokens_BT = self.leak_gen.sample(len(self.real_BT), len(self.real_BT), self.leak_dis, train=True)
        credit = self.rollout(self.leak_gen, False).get_reward_leakgan(tokens_BT, 4, self.leak_dis, 0)
        manager_loss, worker_loss = self.leak_gen.adversarial_loss(tokens_BT, credit, self.leak_dis)
        for optimizer in self.leak_optimizers:
            optimizer.zero_grad()
        manager_loss.backward(retain_graph=True)
        worker_loss.backward()
        for optimizer in self.leak_optimizers:
            optimizer.step()

    def write(self, batches: int) -> None:
        """Batches of 4 B texts."""
        import torch

        size = 4 * len(self.real_BT)
        with torch.no_grad():
            for _ in range(batches):  # asked for many at once it would write one batch more
                self.gen.sample(size, size)

    def d_step(self) -> None:
        """One step of D on B texts, half of them real."""
        import torch

        real_is_one_B = (torch.arange(len(self.real_BT)) < len(self.real_BT) // 2).long()
        loss = torch.nn.functional.cross_entropy(self.dis(self.real_BT), real_is_one_B)
        self.descend(self.dis_optimizer, loss, self.dis)

    def mle_step(self) -> None:
        """One step of maximum likelihood on B texts."""
        import torch

        logp_RV = self.gen(self.inputs(self.real_BT), self.gen.init_hidden(len(self.real_BT)))
        loss = torch.nn.functional.nll_loss(logp_RV, self.real_BT.flatten())
        self.descend(self.gen_optimizer, loss, self.gen)


def _stem(file: str) -> str:
    """models/SeqGAN_G.py -> SeqGAN_G."""
    return Path(file).stem


@dataclass(frozen=True)
class Piece:
    """A piece of training.

    Attributes:
        work: Ours, in `benchmarks.works`.
        sizes: In which it differs from the others.
        theirs: The peer's.
    """

    work: str
    sizes: dict[str, int]
    theirs: Callable[[_Peer, Options], None]


PIECES = {
    "SeqGAN g-step, N=4": Piece("generator step", {"rollouts": 4}, lambda peer, _: peer.seqgan_step(4)),
    "SeqGAN g-step, N=16": Piece("generator step", {"rollouts": 16}, lambda peer, _: peer.seqgan_step(16)),
    "LeakGAN g-step, N=4": Piece("LeakGAN step", {"leakgan_rollouts": 4}, lambda peer, _: peer.leakgan_step()),
    "writing": Piece("sampling", {}, lambda peer, options: peer.write(options.batches)),
    "D step": Piece("D step", {}, lambda peer, _: peer.d_step()),
    "MLE step": Piece("MLE step", {}, lambda peer, _: peer.mle_step()),
}


def _row(name: str, peer: _Peer, options: Options) -> dict[str, Any]:
    """Time a piece: the peer's and ours in turn."""
    from benchmarks.works import WORKS

    print(f"timing {name} ...", file=sys.stderr, flush=True)
    piece = PIECES[name]
    sizes = throughput.Options(rows=options.rows, max_length=options.max_length, vocab_size=options.vocab_size)
    sizes = replace(sizes, samples=4 * options.rows * options.batches, **piece.sizes)  # type: ignore[arg-type]
    ours = WORKS[piece.work](sizes)
    turns = []
    for turn in range(options.repeats + 1):
        turns.append((_seconds(partial(piece.theirs, peer, options)), _seconds(partial(ours.ours, turn))))
    theirs, own = zip(*turns[1:], strict=True)
    ratios = [slow / fast for slow, fast in turns[1:]]
    row: dict[str, Any] = {"work": name, "sizes": f"{ours.sizes}, {ours.count} {ours.unit}"}
    for side, seconds in (("TextGAN-PyTorch, s", theirs), ("ours, s", own)):
        row |= {side: statistics.median(seconds), f"{side}, range": f"{min(seconds):.3f} - {max(seconds):.3f}"}
    return row | {"ratio": round(statistics.median(ratios), 2), "ratios": f"{min(ratios):.2f} - {max(ratios):.2f}"}


def _seconds(run: Callable[[], object]) -> float:
    """Processor time that something takes."""
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
