"""Every agent where all that can be known is known: exact cover and fit over g-steps, against the best discriminator.

``python -m benchmarks.toy_law`` gives each agent a table that can hold any distribution over the 256 texts of the toy
task, and after each g-step the discriminator that is best against it, log p / q (CoT: the best mediator, the mixture of
p and q; DGSAN: its older self). What is left over is the agent's own rule: whether it comes to rest at the true
distribution. With ``--control shuffled`` the same without any news; CoT, DGSAN and what follows a gradient in the text
have no reward, and are left out. ``--only`` measures some rows, for a table of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from agents import class_of, module_of
from benchmarks.results import command, image_path, show
from textgan_env.utils.errors import require_known

if TYPE_CHECKING:
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import ToyTask

#: Row -> module of the agent, and the options that make the row what it is.
ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "SeqGAN, log p/q": ("seqgan", {"rollouts": 4, "transform": "logit", "kl_coef": 0.0}),
    "SeqGAN, log p/q, KL 1 to the start": ("seqgan", {"rollouts": 4, "transform": "logit", "kl_coef": 1.0}),
    "SeqGAN, D": ("seqgan", {"rollouts": 4, "transform": "prob", "kl_coef": 0.0}),
    "MaliGAN": ("maligan", {}),
    "MaliGAN, mixed": ("maligan", {"mixed": 16}),
    "ScratchGAN": ("scratchgan", {"d_batches": 0}),
    "GRPO without std": ("grpo", {"kl_coef": 0.0, "std": False, "group_size": 64, "longest_beginning": 0}),
    "GRPO with std": ("grpo", {"kl_coef": 0.0, "std": True, "group_size": 64, "longest_beginning": 0}),
    "ColdGAN": ("coldgan", {}),
    # The best discriminator's only feature is its logit; the last rows have the 33 of a `pair` that never learns.
    "TextGAN, mean of log p/q": ("textgan", {"kernel": "mean", "real_texts": 512}),
    "TextGAN, log p/q": ("textgan", {"real_texts": 512}),
    "TextGAN, random features": ("textgan", {"discriminator": "pair", "real_texts": 512}),
    "TextGAN, means of random features": ("textgan", {"discriminator": "pair", "kernel": "mean", "real_texts": 512}),
    "TextGAN relaxed, mean of log p/q": ("textgan", {"gradient": "relaxed", "kernel": "mean", "real_texts": 512}),
    "TextGAN relaxed, log p/q": ("textgan", {"gradient": "relaxed", "real_texts": 512}),
    "RelGAN": ("relgan", {"d_batches": 0, "g_steps": 1}),
    "RelGAN, beta 1": ("relgan", {"d_batches": 0, "g_steps": 1, "inverse_temperature": 1.0}),
    "RelGAN, straight-through": ("relgan", {"d_batches": 0, "g_steps": 1, "relaxation": "straight-through"}),
    "expert iteration, alpha 1": ("expert_iteration", {"real_share": 0.0}),
    "expert iteration, alpha 4": ("expert_iteration", {"real_share": 0.0, "alpha": 4.0}),
    "expert iteration, smc": ("expert_iteration", {"real_share": 0.0, "search": "smc", "resample_every": 2}),
    "expert iteration, tree search": ("expert_iteration", {"real_share": 0.0, "search": "tree"}),
    "CoT, step": ("cot", {"credit": "step"}),
    "CoT, to go": ("cot", {"credit": "to-go"}),
    "DGSAN": ("dgsan", {}),
}
#: Panel of the picture -> modules of the agents whose rows it shows, beside maximum likelihood.
PANELS: Mapping[str, tuple[str, ...]] = {
    "policy gradient": ("seqgan", "grpo", "scratchgan", "coldgan"),
    "weights, search": ("maligan", "expert_iteration"),
    "moments, a mediator, its older self": ("textgan", "cot", "dgsan"),
    "through the text": ("relgan",),
}
# Real texts that agents draw from: so many that they say all of p that a curve shows.
_REAL_TEXTS = 200_000


@dataclass(frozen=True)
class Options:
    """Let every agent learn on the toy task against the best discriminator."""

    steps: int = 300
    """g-steps."""
    batch_size: int = 512
    """Texts a g-step."""
    learning_rate: float = 0.05
    """Of Adam, halved in the last third of the steps and again in the last sixth."""
    seeds: int = 3
    """Seeds of the draws; the true distribution is the same."""
    only: tuple[str, ...] = ()
    """Rows, by their names; none: all."""
    control: Literal["constant", "random", "shuffled"] | None = None
    """A reward that knows nothing of the text instead."""
    name: str = "toy_law"
    """Of the result files and the picture."""


@command
def main(options: Options) -> None:
    """The command."""
    from textgan_env.ops.plots import learning_curve

    curves = {"maximum likelihood": [likelihood(options, seed) for seed in range(options.seeds)]}
    for name in options.only:
        require_known("row", name, ARMS)
    for name, (agent, changes) in ARMS.items():
        rewarded = agent not in ("cot", "relgan", "dgsan") and "gradient" not in changes
        if (options.only and name not in options.only) or not (rewarded or options.control is None):
            continue
        print(f"{name} ...", flush=True)
        curves[name] = [learn(options, seed, agent, changes) for seed in range(options.seeds)]
    rows: list[dict[str, Any]] = []
    points: list[dict[str, float]] = [{"step": step} for step in range(options.steps + 1)]
    for name, of_seeds in curves.items():
        mean = [tuple(sum(one) / len(of_seeds) for one in zip(*at, strict=True)) for at in zip(*of_seeds, strict=True)]
        for point, (cover, fit) in zip(points, mean, strict=True):
            point[name] = cover + fit
        marks = {f"cover+fit after {step}": sum(mean[step]) for step in (10, 30, 100) if step < options.steps}
        worst = max(sum(seed[-1]) for seed in of_seeds)
        rows.append({"agent": name, **marks, "cover": mean[-1][0], "fit": mean[-1][1], "worst seed": worst})
    notes = (
        f"Exact divergences in nats per token on the toy task (V=4, T=4, 256 texts), mean of {options.seeds} seeds, "
        f"{options.steps} g-steps of {options.batch_size} texts from the uniform distribution, by a table that can "
        "hold any distribution, against the best discriminator of each step (CoT: the best mediator; DGSAN: itself a "
        f"step ago; random features: one that never learns); reward: {options.control or 'as the row says'}. cover, "
        "fit and the worst seed's sum: after the last step. Maximum likelihood learns from as many fresh texts of the "
        "true distribution."
    )
    panels = {f"cover + fit: {panel}": shown(curves, agents) for panel, agents in PANELS.items()}
    lines = {panel: rows for panel, rows in panels.items() if len(rows) > 1}
    show(options.name, rows, notes=notes)
    learning_curve(points, image_path(options.name), lines=lines, x_label="g-step", log=tuple(lines))


def shown(curves: Mapping[str, Any], agents: tuple[str, ...]) -> dict[str, str]:
    """The rows of some agents as the lines of a panel, with maximum likelihood."""
    return {name: name for name in curves if name not in ARMS or ARMS[name][0] in agents}


def learn(options: Options, seed: int, agent: str, changes: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Cover and fit before the first g-step and after each."""
    from textgan_env.policies import MixturePolicy, RatioDiscriminator
    from textgan_env.tasks import ToyTask
    from textgan_env.training.schedule import Step

    task, config = ToyTask(size=_REAL_TEXTS), module_of(agent).PRESETS["smoke"]("toy")
    sizes = {"batch_size": options.batch_size, "learning_rate": options.learning_rate, "rounds": options.steps}
    config = replace(config, policy="table", seed=seed, control=options.control, **sizes, **changes)
    learner = class_of(agent)(config, task)
    if agent == "cot":
        learner.mediator = MixturePolicy([task.oracle, learner.policy], [0.5, 0.5])
    elif agent != "dgsan" and "discriminator" not in changes:
        learner.discriminator = RatioDiscriminator(task.oracle, learner.policy, task.max_length)

    def step(number: int) -> None:
        for group in learner.g_optimizer.param_groups:
            group["lr"] = options.learning_rate * rate(number / options.steps)
        now = Step(seed=seed * 10**6 + number, round=number)
        if agent == "dgsan":
            learner.remember(now)
        learner.g_step(now)

    return followed(learner.policy, task, options.steps, step)


def likelihood(options: Options, seed: int) -> list[tuple[float, float]]:
    """The same of maximum likelihood on as many fresh texts of the true distribution."""
    from torch.optim import Adam

    from textgan_env.policies import TablePolicy
    from textgan_env.rewards import Keys, generate
    from textgan_env.tasks import ToyTask

    task = ToyTask()
    policy = TablePolicy(task.vocab_size, max_length=task.max_length)
    optimizer = Adam(policy.parameters(), lr=options.learning_rate)

    def step(number: int) -> None:
        optimizer.param_groups[0]["lr"] = options.learning_rate * rate(number / options.steps)
        keys = Keys.counted(seed, options.batch_size, first_episode=number * options.batch_size)
        texts_BT = generate(task.oracle, keys, task.max_length)[0]
        optimizer.zero_grad()
        (-policy.log_prob(texts_BT, texts_BT != task.vocab_size).sum(1).mean()).backward()
        optimizer.step()

    return followed(policy, task, options.steps, step)


def followed(
    policy: "PolicyModule", task: "ToyTask", steps: int, step: Callable[[int], None]
) -> list[tuple[float, float]]:
    """Cover and fit before the first step and after each."""
    curve = [task.divergences(policy)]
    for number in range(steps):
        step(number)
        curve.append(task.divergences(policy))
    return curve


def rate(part: float) -> float:
    """What the learning rate is multiplied by: a smaller one shows where an agent comes to rest."""
    return 1.0 if part < 2 / 3 else 0.5 if part < 5 / 6 else 0.25


if __name__ == "__main__":
    main()
