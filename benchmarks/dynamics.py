"""Pictures of training: credit and completions, a gradient that vanishes, D and G that chase each other."""

import copy
import math
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.seqgan import SeqGAN, SeqGANConfig
from benchmarks.measure import uniform, written
from benchmarks.pictures import Chase, Credit, Rollouts, Vanishing
from benchmarks.results import table
from textgan_env.discriminators import (
    DiscriminatorModule,
    discriminator_report,
    fit_discriminator,
    make_discriminator,
    score_logits,
)  # fmt: skip
from textgan_env.envs import TextGANVectorEnv
from textgan_env.ops.losses import baseline, policy_gradient_sum
from textgan_env.ops.plots import FAKE, REAL, heat_map, learning_curve, save_png
from textgan_env.ops.render import rgb_array, score_list
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.policies import PolicyModule
from textgan_env.rewards import TextCredit, Texts
from textgan_env.runs.loading import load_policy
from textgan_env.show.traces import Trace, trace
from textgan_env.tasks import Task, fit_ngram
from textgan_env.text.vocabulary import EOS
from textgan_env.utils.errors import require

# Transform of D's judgement, and what is taken off it.
GRADIENTS = {name: (name, "none") for name in ("prob", "log", "logit", "rank")}
GRADIENTS["prob, baseline"] = ("prob", "leave-one-out")


def draw_credit(options: Credit) -> Path:
    """Draw texts of three policies with what the environment pays each token; returns the path."""
    frames = [
        rgb_array(words, credit, limits=(0.0, 1.0), size=(960, 300), title=title)
        for title, words, credit in credited_texts(options)
    ]
    save_png(np.concatenate(frames), options.path)
    return options.path


def credited_texts(options: Credit) -> Iterator[tuple[str, list[str], list[float]]]:
    """A text each of three policies: who wrote it, its words, and what the environment pays each of them."""
    policy, task = load_policy(options.run)
    policies = {
        "uniform words": uniform(task),
        "a bigram model": fit_ngram(task, order=2),
        "an LSTM after maximum likelihood": policy,
    }
    envs = TextGANVectorEnv(1, task, reward="rollout", rollouts=options.rollouts)
    for title, each in policies.items():
        envs.reset(seed=options.seed)
        batch = envs.collect(each)
        words = words_of(task, batch.tokens_BT[0, : batch.lengths_B[0]].tolist())
        yield title, words, batch.credit_BT[0, : len(words)].tolist()


def draw_rollouts(options: Rollouts) -> Path:
    """Draw one text with each token's Q, and the completions behind some of them; returns the path."""
    traced, task = measure_rollouts(options)
    q, words = traced.q, words_of(task, traced.tokens)
    title = f"Q of each token: the mean D of {options.rollouts} completions; at the last token, D of the text"
    frames = [rgb_array(words, q, limits=(0.0, 1.0), size=(960, 250), title=title)]
    for at in largest_changes(q[:-1], options.shown):
        ordered = sorted(traced.completions[at], key=attrgetter("score_real"))
        given = ("… " if at > 4 else "") + " ".join(words[max(0, at - 4) : at + 1])
        title = f"{given} …   Q = {q[at]:.2f} (one token before: {q[at - 1]:.2f}), the mean of"
        texts = [f"… {task.text(done.tokens)}" for done in ordered]
        frames.append(score_list(texts, [done.score_real for done in ordered], limits=(0.0, 1.0), title=title))
    save_png(np.concatenate(frames), options.path)
    return options.path


def measure_rollouts(options: Rollouts) -> tuple[Trace, Task]:
    """The text with Q and the completions of each of its tokens, and the task of the run."""
    policy, task = load_policy(options.run)
    discriminator = new_discriminator(task, options.seed)
    optimizer, real_BT = discriminator.make_optimizer(), task.writable("train")
    for epoch in range(options.d_epochs):
        fit_epoch(discriminator, optimizer, policy, task, real_BT, derived_seed(options.seed, "epoch", epoch))
    held_out_BT = task.writable("valid")
    fresh = written(policy, task, len(held_out_BT), derived_seed(options.seed, "held out"))
    auc = discriminator_report(discriminator, held_out_BT, fresh.tokens_BT).auc
    print(f"AUC of D on texts it has not seen: {auc:.3f}")
    text = written(policy, task, 1, options.seed)
    tokens = text.tokens_BT[text.mask_BT].tolist()
    return trace(policy, task, discriminator, tokens, rollouts=options.rollouts, keys=text.keys), task


def draw_vanishing(options: Vanishing) -> Path:
    """Write the picture of a gradient that vanishes while D learns; returns its path."""
    rows = measure_vanishing(options)
    print(table(rows))
    lines = {
        "D(text), mean": {"real_train": "real, learnt", "real_valid": "real, unseen", "written": "of G, unseen"},
        "norm of the gradient": {f"norm {name}": name for name in GRADIENTS},
        "signal / noise": {f"signal {name}": name for name in GRADIENTS},
    }
    title, log = "D learns by heart: the gradient of prob shrinks, that of rank never does", ["norm of the gradient"]
    colour_of = {"real_train": REAL, "real_valid": REAL, "written": FAKE}
    learning_curve(
        rows, options.path, x="epoch", x_label="epochs of D", lines=lines, log=log, title=title, colour_of=colour_of
    )
    return options.path


def measure_vanishing(options: Vanishing) -> list[dict[str, float]]:
    """One row for each of the epochs: what D makes of texts; norm, and signal to noise, of each reward's gradient."""
    require(options.batches >= 2, f"signal and noise need at least 2 batches, found {options.batches}")
    policy, task = load_policy(options.run)
    discriminator = new_discriminator(task, options.seed)
    optimizer = discriminator.make_optimizer()
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    real_BT, unseen_BT = task.writable("train")[: options.texts], task.writable("valid")
    seeds = [derived_seed(options.seed, "gradient", number) for number in range(options.batches)]
    batches = [written(policy, task, options.batch_size, seed) for seed in seeds]
    written_BT = torch.cat([texts.tokens_BT for texts in batches])
    rows = []
    for epoch in range(max(options.epochs, default=0) + 1):
        if epoch:
            fit_epoch(discriminator, optimizer, policy, task, real_BT, derived_seed(options.seed, "epoch", epoch))
        if epoch in options.epochs:
            judged = {"real_train": real_BT, "real_valid": unseen_BT, "written": written_BT}
            row = {name: mean_score(discriminator, tokens_BT) for name, tokens_BT in judged.items()}
            for name, estimates in gradient_estimates(policy, discriminator, batches).items():
                row |= {f"norm {name}": estimates.norm, f"signal {name}": estimates.signal_to_noise}
            rows.append({"epoch": epoch, **row})
    return rows


def draw_chase(options: Chase) -> Path:
    """Write the picture of D and G that chase each other; returns its path."""
    score_DG = measure_chase(options)
    rounds = [str(number) for number in range(options.rounds + 1)]
    heat_map(
        score_DG, options.path, rows=rounds, columns=[*rounds, "real"], x_label="texts of G after round",
        y_label="D after round", label="D(text), mean", title="Each D on the texts of every G",
    )  # fmt: skip
    print(chase_summary(score_DG))
    return options.path


def measure_chase(options: Chase) -> np.ndarray:
    """Mean D(text) of D after round i (rows) on texts of G after round j (columns) and, last, on unseen real text.

    In a round G learns from the D of the round before, then D from the texts of this G.
    """
    task = load_policy(options.run)[1]
    config = SeqGANConfig(
        task=task.name, pretrained=options.run, rounds=options.rounds, g_steps=options.g_steps,
        rollouts=options.rollouts, d_pretraining=3, d_epochs=options.d_epochs, learning_rate=options.learning_rate,
        kl_coef=options.kl, transform=options.transform, seed=options.seed,
    )  # fmt: skip
    agent = SeqGAN(config, task)
    discriminators: list[DiscriminatorModule] = []
    texts: list[Tensor] = []
    for current in agent.schedule().after(0):
        for steps, step in current.steps(options.seed):
            steps.run(step)
        if current.phase.name == "adversarial" or current.index + 1 == current.phase.rounds:
            discriminators.append(copy.deepcopy(agent.modules["discriminator"]))  # type: ignore[arg-type]
            seed = derived_seed(options.seed, "chase", len(discriminators))
            texts.append(written(agent.policy, task, options.texts, seed).tokens_BT)
    texts.append(task.writable("valid"))
    return np.array([[mean_score(each, tokens_BT) for tokens_BT in texts] for each in discriminators])


class Estimates:
    """Independent estimates of one gradient: how large they are, and how far they agree."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_P: Tensor | float = 0.0
        self.squares = 0.0

    def add(self, gradient_P: Tensor) -> None:
        """Take one more."""
        self.count += 1
        self.sum_P = self.sum_P + gradient_P.double()
        self.squares += float(gradient_P.double().square().sum())

    @property
    def norm(self) -> float:
        """Root of the mean square norm of an estimate: what the optimizer sees."""
        return float((self.squares / self.count) ** 0.5)

    @property
    def signal_to_noise(self) -> float:
        """Norm of the expected gradient over the root mean square distance of an estimate from it; 0 where none shows.

        The square of the former is estimated without bias, by the mean product of two different estimates.
        """
        products = float((self.sum_P**2).sum()) - self.squares  # type: ignore[union-attr]
        signal = products / (self.count * (self.count - 1))
        noise = self.squares / self.count - signal
        if signal <= 0:
            return 0.0
        return float((signal / noise) ** 0.5) if noise > 0 else math.inf


def gradient_estimates(
    policy: PolicyModule, discriminator: DiscriminatorModule, batches: Sequence[Texts]
) -> dict[str, Estimates]:
    """The policy gradient under each of `GRADIENTS`, estimated once a batch of finished texts."""
    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    found = {name: Estimates() for name in GRADIENTS}
    for texts in batches:
        mask_BT = texts.mask_BT
        logp_BT = policy.log_prob(texts.tokens_BT, mask_BT)
        for name, (transform, kind) in GRADIENTS.items():
            credit_BT = TextCredit(discriminator, transform).credit(texts, mask_BT)
            total, rows = policy_gradient_sum(logp_BT, credit_BT - baseline(kind, credit_BT, mask_BT), mask_BT)
            parts = torch.autograd.grad(total / rows, weights, retain_graph=True)
            found[name].add(torch.cat([part.flatten() for part in parts]))
    return found


def chase_summary(score_DG: np.ndarray) -> str:
    """What the matrix says in means: D on its own G, on the next, on older ones, on real text."""
    own = np.diag(score_DG[:, :-1])
    after = np.diag(score_DG[:, :-1], 1)
    older = score_DG[:, :-1][np.tril_indices(len(score_DG), -1)]
    parts = {"its own G": own, "the next G": after, "older G": older, "real text": score_DG[:, -1]}
    return "mean D: " + ", ".join(f"{name} {values.mean():.3f}" for name, values in parts.items())


def new_discriminator(task: Task, seed: int) -> DiscriminatorModule:
    """A D that has learnt nothing yet."""
    sizes = {"vocab_size": task.vocab_size, "max_length": task.max_length}
    return make_discriminator("pair", **sizes, seed=derived_seed(seed, "discriminator"))


def mean_score(discriminator: DiscriminatorModule, tokens_BT: Tensor) -> float:
    """The mean D(text), 0 to 1."""
    return float(score_logits(discriminator, tokens_BT).sigmoid().mean())


def fit_epoch(
    discriminator: DiscriminatorModule, optimizer: torch.optim.Optimizer, policy: PolicyModule, task: Task,
    real_BT: Tensor, seed: int,
) -> None:  # fmt: skip
    """One pass of D over real texts and as many fresh ones of the policy."""
    written_BT = written(policy, task, len(real_BT), seed).tokens_BT
    steps, generator = -(-len(real_BT) // 64), derived_generator(seed, "order")
    texts = real_BT, written_BT
    fit_discriminator(discriminator, optimizer, *texts, steps=steps, batch_size=64, generator=generator)


def largest_changes(values: Sequence[float], count: int) -> list[int]:
    """The places, in order, at which a value differs most from the one before."""
    places = sorted(range(1, len(values)), key=lambda at: -abs(values[at] - values[at - 1]))
    return sorted(places[:count])


def words_of(task: Task, tokens_T: Sequence[int]) -> list[str]:
    """One word a token of a written text, its end token included."""
    return [EOS if token == task.end_token else task.words([token])[0] for token in tokens_T]
