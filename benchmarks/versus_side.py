"""One side of `benchmarks.versus`: does a piece with the code of one checkout, old or new, when it is told to.

What a person can mend, such as missing data, is said in the place of a time: `MISTAKE`, then a sentence. Names are
looked up where each checkout has them. Nothing of the project is imported before a piece is made.
"""

import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

Run = Callable[[int], object]
#: Begins a line that holds no time.
MISTAKE = "mistake: "


def first(name: str, *modules: str) -> Any:
    """A name from the first of some modules that has it."""
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except (AttributeError, ModuleNotFoundError):
            continue
    raise ImportError(f"none of {', '.join(modules)} has {name}")


def work(name: str, **sizes: Any) -> Run:
    """A piece of `benchmarks.throughput`, as the checkout does it."""
    # In the newer ones the pieces are a module of their own.
    works = first("WORKS", "benchmarks.works", "benchmarks.throughput")
    run: Run = works[name](first("Options", "benchmarks.throughput")(**sizes)).ours
    return run


def captions() -> Any:
    """The task of COCO captions."""
    return first("make_task", "textgan_env.tasks")("coco")


def d_step_on_captions() -> Run:
    """A step of the CNN on 64 captions, half of them in the place of generated ones."""
    import torch

    discriminators = import_module("textgan_env.discriminators")
    task = captions()
    texts_BT = task.split("train").tokens_BT[:64]
    judge = discriminators.ConvDiscriminator(task.vocab_size, task.max_length)
    optimizer = judge.make_optimizer()

    def run(turn: int) -> None:
        """One turn."""
        generator = torch.Generator().manual_seed(turn)
        sides = texts_BT[::2], texts_BT[1::2]
        discriminators.fit_discriminator(judge, optimizer, *sides, steps=1, batch_size=32, generator=generator)

    return run


def evaluation() -> Run:
    """`evaluate` of 10,000 texts by a 128/128 LSTM that has read the captions once: its texts end as they do."""
    import torch

    policies, evaluate = import_module("textgan_env.policies"), first("evaluate", "textgan_env.evaluation")
    task = captions()
    options = {"start_token": task.start_token, "forbidden": task.forbidden}
    policy = policies.LSTMPolicy(task.vocab_size, embed_size=128, hidden_size=128, **options)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    for tokens_BT in task.split("train").tokens_BT.split(64):
        mask_BT = task.scored(tokens_BT)
        loss = -policy.log_prob(tokens_BT, mask_BT).sum() / mask_BT.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda turn: evaluate(policy, task, samples=10_000, seed=turn)


#: Name -> what makes the piece. Steps of G take 16 texts, so that a turn takes seconds.
PIECES: dict[str, Callable[[], Run]] = {
    "writing": lambda: work("sampling", samples=2_560),
    "MLE step": lambda: work("MLE step"),
    "MLE step 128/128": lambda: work("MLE step", hidden_size=128),
    "D step": lambda: work("D step"),
    "D step on captions": d_step_on_captions,
    "SeqGAN g-step": lambda: work("generator step", rows=16),
    "LeakGAN g-step": lambda: work("LeakGAN step", rows=16),
    "evaluate": evaluation,
}


def main() -> None:
    """For each number of a turn that is read, do the piece and say how long it took."""
    import torch

    # An editable install of one checkout would lend the other the modules that it does not have.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
    torch.set_num_threads(1)
    try:
        run = PIECES[sys.argv[1]]()
    except ValueError as error:
        if not isinstance(error, first("InputError", "textgan_env.utils.errors", "textgan_env.errors")):
            raise
        print(f"{MISTAKE}{error}", flush=True)
        return
    for line in sys.stdin:
        started = time.process_time()
        run(int(line))
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    main()
