"""Pictures that explain: docs/images/*.png, shown and told in docs/pictures.md.

For example ``python -m benchmarks.pictures credit --run runs/mle-coco-1``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgan_env.utils.errors import friendly_errors, require

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from textgan_env.discriminators import DiscriminatorModule
    from textgan_env.policies import PolicyModule
    from textgan_env.rewards import Texts
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class Credit:
    """Texts of uniform words, of a bigram model and of a trained run, with what the environment pays each token."""

    run: Path
    """The finished run."""
    rollouts: int = 256
    """Completions of each prefix, by the policy that wrote it."""
    seed: int = 0
    """Of the texts."""
    name: str = "credit"
    """Of the PNG file in docs/images."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        import numpy as np

        from textgan_env.envs import TextGANVectorEnv
        from textgan_env.ops.plots import save_png
        from textgan_env.ops.render import rgb_array
        from textgan_env.policies import UniformPolicy
        from textgan_env.runs.loading import load_policy
        from textgan_env.tasks import fit_ngram

        policy, task = load_policy(self.run)
        uniform = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
        writers = {
            "uniform words": uniform,
            "a bigram model": fit_ngram(task, order=2),
            "an LSTM after maximum likelihood": policy,
        }
        envs = TextGANVectorEnv(1, task, rollouts=self.rollouts)
        frames = []
        for title, writer in writers.items():
            envs.reset(seed=self.seed)
            batch = envs.collect(writer)
            words = _words(task, batch.tokens_BT[0, : batch.lengths_B[0]])
            credit = batch.credit_BT[0, : len(words)].tolist()
            frames.append(rgb_array(words, credit, limits=(0.0, 1.0), size=(960, 300), title=title))
        path = _path(self.name)
        save_png(np.concatenate(frames), path)
        return path


# Transform of D's judgement, and what is taken off it.
GRADIENTS = {
    "prob": ("prob", "none"),
    "log": ("log", "none"),
    "logit": ("logit", "none"),
    "rank": ("rank", "none"),
    "prob, baseline": ("prob", "leave-one-out"),
}


@dataclass(frozen=True)
class Vanishing:
    """A D that learns its real texts by heart, and what five rewards make of the policy gradient meanwhile.

    G stands still. D, the pair judge without its weight decay, is fitted epoch after epoch to the same real texts and
    as many fresh ones of G. Each reward is the whole text's, given to each of its tokens.
    """

    run: Path
    """A finished run: G."""
    texts: int = 2000
    """Real texts that D learns."""
    epochs: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    """Passes of D over them, after each of which the gradient is looked at."""
    batches: int = 48
    """Batches of texts of G; each gives one estimate of the gradient."""
    batch_size: int = 64
    """Texts in a batch (B)."""
    seed: int = 0
    """Of D and of all texts."""
    name: str = "vanishing"
    """Of the PNG file in docs/images."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        from benchmarks.results import table
        from textgan_env.ops.plots import learning_curve

        rows = self.measure()
        print(table(rows))
        of_d = {"real_train": "real, learnt", "real_valid": "real, unseen", "written": "of G, unseen"}
        path = _path(self.name)
        learning_curve(
            rows,
            path,
            x="epoch",
            x_label="epochs of D",
            lines={
                "D(text), mean": of_d,
                "norm of the gradient": {f"norm {name}": name for name in GRADIENTS},
                "signal / noise": {f"signal {name}": name for name in GRADIENTS},
            },
            log=("norm of the gradient",),
            title="D learns by heart: the gradient of prob shrinks, that of rank never does",
        )
        return path

    def measure(self) -> list[dict[str, float]]:
        """One row for each of `epochs`: what D makes of texts; norm, and signal to noise, of each reward's gradient."""
        import torch

        from textgan_env.discriminators import make_discriminator, score_logits
        from textgan_env.ops.sampling import derived_seed
        from textgan_env.runs.loading import load_policy

        require(self.batches >= 2, f"signal and noise need at least 2 batches, found {self.batches}")
        policy, task = load_policy(self.run)
        sizes = {"vocab_size": task.vocab_size, "max_length": task.max_length}
        judge = make_discriminator("pair", **sizes, seed=derived_seed(self.seed, "discriminator"))
        optimizer = judge.make_optimizer()
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        real_BT, unseen_BT = task.writable("train")[: self.texts], task.writable("valid")
        batches = [
            _written(policy, task, self.batch_size, derived_seed(self.seed, "gradient", number))
            for number in range(self.batches)
        ]
        written_BT = torch.cat([texts.tokens_BT for texts in batches])
        rows = []
        for epoch in range(max(self.epochs, default=0) + 1):
            if epoch:
                _fit_epoch(judge, optimizer, policy, task, real_BT, derived_seed(self.seed, "epoch", epoch))
            if epoch not in self.epochs:
                continue
            judged = {"real_train": real_BT, "real_valid": unseen_BT, "written": written_BT}
            row = {name: float(score_logits(judge, tokens_BT).sigmoid().mean()) for name, tokens_BT in judged.items()}
            for name, estimates in gradient_estimates(policy, judge, batches).items():
                row |= {f"norm {name}": estimates.norm, f"signal {name}": estimates.signal_to_noise}
            rows.append({"epoch": epoch, **row})
        return rows


class Estimates:
    """Independent estimates of one gradient: how large they are, and how far they agree."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_P: Tensor | float = 0.0
        self.squares = 0.0

    def add(self, gradient_P: "Tensor") -> None:
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
    policy: "PolicyModule", judge: "DiscriminatorModule", batches: Sequence["Texts"]
) -> dict[str, Estimates]:
    """The policy gradient under each of `GRADIENTS`, estimated once a batch of finished texts."""
    import torch

    from textgan_env.ops.losses import baseline, policy_gradient_loss
    from textgan_env.rewards import TextCredit

    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    found = {name: Estimates() for name in GRADIENTS}
    for texts in batches:
        mask_BT = texts.mask_BT
        logp_BT = policy.log_prob(texts.tokens_BT, mask_BT)
        for name, (transform, kind) in GRADIENTS.items():
            credit_BT = TextCredit(judge, transform).credit(texts, mask_BT)
            loss = policy_gradient_loss(logp_BT, credit_BT, mask_BT, baseline(kind, credit_BT, mask_BT))
            parts = torch.autograd.grad(loss, weights, retain_graph=True)
            found[name].add(torch.cat([part.flatten() for part in parts]))
    return found


@dataclass(frozen=True)
class Chase:
    """SeqGAN from a finished run; then D of each round judges the texts of G of every round."""

    run: Path
    """A finished run of agents/mle.py: G and D begin here."""
    rounds: int = 6
    """Adversarial rounds."""
    g_steps: int = 10
    """g-steps in a round, of 128 texts each."""
    rollouts: int = 0
    """Completions of each prefix (N); 0: each token gets the whole text's reward, which is much faster."""
    d_epochs: int = 1
    """Passes of D over fresh texts in a round."""
    learning_rate: float = 5e-3
    """Of G."""
    kl: float = 0.0
    """Weight of the KL divergence to the run."""
    transform: str = "logit"
    """What the reward makes of D's judgement."""
    texts: int = 1000
    """Texts of each G that are judged; no D was fitted to them."""
    seed: int = 0
    """Of everything random."""
    name: str = "chase"
    """Of the PNG file in docs/images."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        from textgan_env.ops.plots import heat_map

        score_DG = self.measure()
        rounds = [str(number) for number in range(self.rounds + 1)]
        path = _path(self.name)
        heat_map(
            score_DG,
            path,
            rows=rounds,
            columns=[*rounds, "real"],
            x_label="texts of G after round",
            y_label="D after round",
            label="D(text), mean",
            title="Each D on the texts of every G",
        )
        print(chase_summary(score_DG))
        return path

    def measure(self) -> "np.ndarray":
        """Mean D(text) of D after round i (rows) on texts of G after round j (columns) and, last, on unseen real text.

        In a round G learns from the D of the round before, then D from the texts of this G.
        """
        import copy

        import numpy as np

        from agents.seqgan import SeqGAN, SeqGANConfig
        from textgan_env.discriminators import score_logits
        from textgan_env.ops.sampling import derived_seed
        from textgan_env.runs.loading import load_policy
        from textgan_env.training.loop import run_round

        task = load_policy(self.run)[1]
        config = SeqGANConfig(
            task=task.name,
            pretrained=self.run,
            rounds=self.rounds,
            g_steps=self.g_steps,
            rollouts=self.rollouts,
            d_pretraining=3,
            d_epochs=self.d_epochs,
            learning_rate=self.learning_rate,
            kl_coef=self.kl,
            transform=self.transform,  # type: ignore[arg-type]  # the environment refuses an unknown name
            seed=self.seed,
        )
        agent = SeqGAN(config, task)
        judges, texts = [], []
        for current in agent.schedule().after(0):
            run_round(agent, current, self.seed)
            if current.phase.name == "adversarial" or current.index + 1 == current.phase.rounds:
                judges.append(copy.deepcopy(agent.discriminator))
                seed = derived_seed(self.seed, "chase", len(judges))
                texts.append(_written(agent.policy, task, self.texts, seed).tokens_BT)
        texts.append(task.writable("valid"))
        return np.array(
            [[float(score_logits(judge, tokens_BT).sigmoid().mean()) for tokens_BT in texts] for judge in judges]
        )


def chase_summary(score_DG: "np.ndarray") -> str:
    """What the matrix says in means: D on its own G, on the next, on older ones, on real text."""
    import numpy as np

    own = np.diag(score_DG[:, :-1])
    after = np.diag(score_DG[:, :-1], 1)
    older = score_DG[:, :-1][np.tril_indices(len(score_DG), -1)]
    parts = {"its own G": own, "the next G": after, "older G": older, "real text": score_DG[:, -1]}
    return "mean D: " + ", ".join(f"{name} {values.mean():.3f}" for name, values in parts.items())


@dataclass(frozen=True)
class Curve:
    """Learning curves of several runs over the same axis, for example SeqGAN's and MLE's that goes on."""

    runs: tuple[Path, ...]
    """Run folders. A run whose --pretrained is another of them begins where that one ends."""
    names: tuple[str, ...] = ()
    """Of the lines, one a run; without any, the names of the folders."""
    measures: tuple[str, ...] = ("nll_valid", "nll_oracle")
    """What is drawn, a panel each, where it was logged: names in metrics.csv, in nats per token."""
    phase: str = ""
    """Draw this phase alone, counted from its own first round."""
    title: str = ""
    """Above the picture."""
    name: str = "curve"
    """Of the PNG file in docs/images."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        from textgan_env.ops.plots import learning_curve

        rows = curve_rows(self.runs, self.measures, self.phase)
        names = self.names or tuple(run.name for run in self.runs)
        require(len(names) == len(self.runs), f"a name a run is needed, found {len(names)} for {len(self.runs)} runs")
        path = _path(self.name)
        lines = {
            f"{key.replace('nll_', 'NLL-')} (nats per token)": {
                f"{key} {number}": name for number, name in enumerate(names)
            }
            for key in self.measures
        }
        label = f"round of phase {self.phase}" if self.phase else "round (an epoch of MLE, or an adversarial round)"
        drawn = learning_curve(rows, path, lines=lines, x_label=label, title=self.title)
        require(
            drawn,
            f"none of {', '.join(self.measures)} is logged in {', '.join(map(str, self.runs))}: have these runs begun?",
        )
        return path


def curve_rows(
    runs: Sequence[Path], measures: Sequence[str] = ("nll_valid", "nll_oracle"), phase: str = ""
) -> list[dict[str, Any]]:
    """Measures of runs as rows of one log: ``nll_valid 0`` is that of the first run.

    Args:
        runs: Run folders.
        measures: Names in their metrics.
        phase: Take this phase alone, counted from its own first round; "": the whole run, from where the run that it
            began from ends, if that is among them.

    Returns:
        The rows, with the phases of the first run that has several.

    Raises:
        InputError: If there is no run, or a folder is none.
    """
    from textgan_env.runs.folder import RunFolder
    from textgan_env.runs.logs import read_metrics

    require(bool(runs), "a curve needs at least one run folder")
    folders = [RunFolder.open(run) for run in runs]
    logs = [read_metrics(folder.path) for folder in folders]
    if phase:
        logs = [[row for row in log if row.get("phase") == phase] for log in logs]
        logs = [[{**row, "step": row["step"] - log[0]["step"] + 1} for row in log] for log in logs]
    last = {folder.path.name: log[-1]["step"] for folder, log in zip(folders, logs, strict=True) if log}
    phased = next((number for number, log in enumerate(logs) if len({row.get("phase") for row in log}) > 1), None)
    rows: list[dict[str, Any]] = []
    for number, (folder, log) in enumerate(zip(folders, logs, strict=True)):
        before = 0 if phase else last.get(Path(folder.about["config"].get("pretrained") or "").name, 0)
        for row in log:
            values = {f"{key} {number}": row[key] for key in measures if key in row}
            mark = {"phase": row["phase"]} if number == phased else {}
            rows.append({"step": before + row["step"], **mark, **values})
    return rows


@dataclass(frozen=True)
class Rollouts:
    """One text of a run with each token's Q, and the completions behind some of these numbers."""

    run: Path
    """The finished run: it writes the text and its completions, and D is fitted to tell its texts from real ones."""
    rollouts: int = 6
    """Completions of each prefix (N); all are shown."""
    shown: int = 3
    """Tokens whose completions are listed: those at which Q changes most."""
    d_epochs: int = 10
    """Passes of D over the training texts."""
    seed: int = 0
    """Of the text, of its completions and of D."""
    name: str = "rollouts"
    """Of the PNG file in docs/images."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        import numpy as np

        from textgan_env.ops.plots import save_png
        from textgan_env.ops.render import rgb_array, score_list

        words, rests = self.measure()
        q = [sum(scores) / len(scores) for scores in ([score for _, score in rest] for rest in rests)]
        furthest = max(abs(score - 0.5) for rest in rests for _, score in rest)
        limits = (0.5 - furthest, 0.5 + furthest)
        title = f"Q of each token: the mean D of {self.rollouts} completions; at the last token, D of the text"
        frames = [rgb_array(words, q, limits=limits, size=(960, 250), title=title)]
        for at in largest_changes(q[:-1], self.shown):
            ordered = sorted(rests[at], key=lambda rest: rest[1])
            given = ("… " if at > 4 else "") + " ".join(words[max(0, at - 4) : at + 1])
            title = f"{given} …   Q = {q[at]:.2f} (one token before: {q[at - 1]:.2f}), the mean of"
            texts, scores = [f"… {text}" for text, _ in ordered], [score for _, score in ordered]
            frames.append(score_list(texts, scores, limits=limits, title=title))
        path = _path(self.name)
        save_png(np.concatenate(frames), path)
        return path

    def measure(self) -> tuple[list[str], list[list[tuple[str, float]]]]:
        """The words of the text, and the `completions` of each prefix that ends with one of them."""
        from textgan_env.discriminators import discriminator_report, make_discriminator
        from textgan_env.ops.sampling import derived_seed
        from textgan_env.runs.loading import load_policy

        policy, task = load_policy(self.run)
        sizes = {"vocab_size": task.vocab_size, "max_length": task.max_length}
        judge = make_discriminator("pair", **sizes, seed=derived_seed(self.seed, "discriminator"))
        optimizer = judge.make_optimizer()
        for epoch in range(self.d_epochs):
            _fit_epoch(judge, optimizer, policy, task, task.writable("train"), derived_seed(self.seed, "epoch", epoch))
        held_out_BT = task.writable("valid")
        fresh = _written(policy, task, len(held_out_BT), derived_seed(self.seed, "held out"))
        print(f"AUC of D on texts it has not seen: {discriminator_report(judge, held_out_BT, fresh.tokens_BT).auc:.3f}")
        texts = _written(policy, task, 1, self.seed)
        words = _words(task, texts.tokens_BT[0, : texts.lengths_B[0]])
        return words, completions(policy, judge, task, texts, self.rollouts)


def completions(
    policy: "PolicyModule", judge: "DiscriminatorModule", task: "Task", texts: "Texts", rollouts: int
) -> list[list[tuple[str, float]]]:
    """Where the Q of each token of one text comes from, with the draws that the environment makes.

    Returns:
        For each token, the texts that are completions of the prefix which ends with it: what stands behind that
        prefix, and D of the whole. For the last token: nothing, and D of the text.
    """
    import torch

    from textgan_env.discriminators import score_logits
    from textgan_env.rewards import complete

    length = int(texts.lengths_B[0])
    # Column p asks for the prefix of p tokens; the whole text needs no completion.
    prefixes_BT = texts.mask_BT & (torch.arange(task.max_length) >= 1)
    done = complete(policy, texts.tokens_BT, prefixes_BT, keys=texts.keys, rollouts=rollouts, end_token=task.end_token)
    found: list[list[tuple[str, float]]] = [[] for _ in range(length)]
    scores = score_logits(judge, done.tokens_RT).sigmoid().tolist()
    for prefix, tokens, score in zip(done.prefix_R.tolist(), done.tokens_RT.tolist(), scores, strict=True):
        found[prefix - 1].append((task.text(tokens[prefix:]), score))
    found[-1].append(("", float(score_logits(judge, texts.tokens_BT).sigmoid())))
    return found


def largest_changes(values: Sequence[float], count: int) -> list[int]:
    """The places, in order, at which a value differs most from the one before."""
    places = sorted(range(1, len(values)), key=lambda at: -abs(values[at] - values[at - 1]))
    return sorted(places[:count])


def _written(policy: "PolicyModule", task: "Task", rows: int, seed: int) -> "Texts":
    """Fresh texts of a policy."""
    import torch

    from textgan_env.rewards import Keys, Texts, generate

    keys = Keys.counted(seed, rows)
    tokens_BT, lengths_B = generate(policy, keys, task.max_length, end_token=task.end_token)
    return Texts(tokens_BT, lengths_B, torch.ones_like(lengths_B, dtype=torch.bool), keys, task.end_token)


def _fit_epoch(
    judge: "DiscriminatorModule",
    optimizer: "torch.optim.Optimizer",
    policy: "PolicyModule",
    task: "Task",
    real_BT: "Tensor",
    seed: int,
) -> None:
    """One pass of D over real texts and as many fresh ones of the policy."""
    from textgan_env.discriminators import fit_discriminator
    from textgan_env.ops.sampling import derived_generator

    written_BT = _written(policy, task, len(real_BT), seed).tokens_BT
    steps, generator = -(-len(real_BT) // 64), derived_generator(seed, "order")
    fit_discriminator(judge, optimizer, real_BT, written_BT, steps=steps, batch_size=64, generator=generator)


def _words(task: "Task", tokens_T: "Tensor") -> list[str]:
    """One word a token of a written text, its end token included."""
    words = task.words(tokens_T.tolist())
    return words + ["<eos>"] * (len(tokens_T) - len(words))


def _path(name: str) -> Path:
    from benchmarks.results import image_path

    return image_path(name)


def main(args: list[str] | None = None) -> None:
    """The command."""
    import tyro

    with friendly_errors():
        picture: Credit | Vanishing | Chase | Curve | Rollouts = tyro.cli(
            Credit | Vanishing | Chase | Curve | Rollouts, description=__doc__, args=args
        )
        print(picture.draw())


if __name__ == "__main__":
    main()
