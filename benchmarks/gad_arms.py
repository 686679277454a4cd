"""The trainings behind `benchmarks.gad`: one warm-up, and what different news makes of it in the same time."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from agents import distill, grpo, mle
from benchmarks.regime_arms import RECIPES, Likelihood, Recipe, Scale, Weights, best_likelihood, curve, search
from textgan_env.discriminators import Discriminator
from textgan_env.evaluation import discriminator_worth
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import PolicyModule
from textgan_env.tasks import OracleTask
from textgan_env.training.agent import LikelihoodAgent
from textgan_env.training.schedule import Memory, Round, Step, Steps
from textgan_env.utils.kinds import DiscriminatorNetworkKind, PolicyKind

#: What is tried of GRPO on seed 0. GAD has a KL weight of .001; undivided, with weight 1, the optimum is the teacher.
GRID: tuple[dict[str, Any], ...] = (
    {"learning_rate": 5e-4, "kl_coef": 1e-3, "std": True},
    {"learning_rate": 2e-3, "kl_coef": 1e-3, "std": True},
    {"learning_rate": 2e-3, "kl_coef": 0.1, "std": True},
    {"learning_rate": 8e-3, "kl_coef": 0.1, "std": True},
    {"learning_rate": 2e-3, "kl_coef": 1.0, "std": False},
)
#: Learning rates of maximum likelihood that goes on from the warm-up; the valid split of seed 0 chooses.
MLE_RATES = (1e-2, 3e-3)
#: Those of distillation, from docs/distill.md: forward and reverse.
DISTILL_RATES = {"forward": 5e-3, "reverse": 1e-3}
#: Arms of the adversarial stage -> what they change in the settings that were found.
ADVERSARIAL: Mapping[str, Mapping[str, Any]] = {
    "GAD": {},
    "GAD, published KL": GRID[1],
    "GAD, fixed": {"d_steps": 0},
    "GAD, shuffled": {"control": "shuffled"},
    "GAD, random": {"control": "random"},
}


@dataclass(frozen=True)
class Law(Scale):
    """A teacher whose probabilities are known, and how large the rest is; see `Scale`.

    Attributes:
        teacher: Width of the teacher's embedding and LSTM.
        texts: Texts of the teacher that the student learns from.
        valid: Further ones to choose by.
        student: Width of the student.
        policy: Its kind.
        discriminator: Kind of the discriminator.
        d_pretraining: Passes of the discriminator over the texts before the adversarial stage.
        rounds: Rounds of the adversarial stage: 5 g-steps, then one pass of the discriminator.
        looks: Looks at the valid split while maximum likelihood goes on.
    """

    teacher: int = 32
    texts: int = 2_000
    valid: int = 500
    student: int = 16
    policy: PolicyKind = "lstm"
    discriminator: DiscriminatorNetworkKind = "pair"
    d_pretraining: int = 10
    rounds: int = 30
    looks: int = 10
    samples: int = 5_000


#: Name -> law. The wide teacher has larger logits, as one of a lower temperature has.
LAWS: dict[str, Law] = {
    "V=50 T=10": Law(),
    "V=100 T=12": Law(vocab_size=100, max_length=12),
    "V=50 T=10, teacher 64": Law(teacher=64),
}
#: A law by its name that only runs when it is asked for: here the warm-up is over after 7 epochs, far too early.
SHORT: dict[str, Law] = {"V=50 T=10, short warm-up": Law(most_checks=1)}


def tiny(law: Law) -> Law:
    """As small as it can be, to see that everything runs."""
    sizes: dict[str, Any] = {"vocab_size": 8, "max_length": 4, "check": 2, "patience": 1, "most_checks": 2}
    sizes |= {"texts": 32, "valid": 16, "student": 4, "teacher": 4, "d_pretraining": 1, "rounds": 1, "looks": 2}
    return replace(law, **sizes, batch_size=16, samples=50)


def make_task(law: Law, seed: int) -> OracleTask:
    """The teacher, with texts of a seed."""
    sizes: dict[str, Any] = {"train_size": law.texts, "valid_size": law.valid, "test_size": law.samples}
    sizes |= {"embed_size": law.teacher, "hidden_size": law.teacher}
    return OracleTask(max_length=law.max_length, vocab_size=law.vocab_size, text_seed=seed, **sizes)


def sized(law: Law, config: Any, **changes: Any) -> Any:
    """A config for a student of the law; it does not forget its start by averages of its weights."""
    plain: dict[str, Any] = {"dropout": 0.0, "weight_decay": 0.0, "ema_decay": 0.0}
    size = {"policy": law.policy, "embed_size": law.student, "hidden_size": law.student}
    return replace(config, **{**plain, **size, **changes})


def student(law: Law, weights: Weights) -> PolicyModule:
    """A policy with some weights, in eval mode."""
    policy: PolicyModule = mle.MLE(sized(law, mle.fast("oracle")), make_task(law, 0)).policy
    policy.load_state_dict(weights)
    return policy.eval()


# ----------------------------------------------------------------------------------------------------
# From the teacher's texts
def searched(law: Law) -> dict[str, Any]:
    """The best recipe of maximum likelihood, and the best rate to go on with, by the valid split of seed 0."""
    task = make_task(law, 0)
    recipes = [{**recipe, "policy": law.policy} for recipe in RECIPES]
    found = search(law, task, law.student, recipes)
    start = warm_up(law, found["recipe"], 0)
    tried = {rate: gone_on(law, start, found["recipe"], rate, found["epochs"], 0)["nll_valid"] for rate in MLE_RATES}
    return {**found, "nll_valid_gone_on": tried, "rate": min(MLE_RATES, key=lambda rate: tried[rate])}


def warm_up(law: Law, recipe: Recipe, seed: int) -> Weights:
    """Maximum likelihood on the teacher's texts, for as long as the valid split asks."""
    return best_likelihood(law, make_task(law, seed), law.student, recipe, seed)


def gone_on(law: Law, start: Weights, recipe: Recipe, rate: float, epochs: int, seed: int) -> dict[str, Any]:
    """Maximum likelihood that goes on from the warm-up with a falling rate.

    Returns:
        ``last`` and ``best``, weights: at the end, and those of the lowest NLL-valid, the start among them;
        ``nll_valid`` of the best.
    """
    how = {"learning_rate": rate, "lr_schedule": "cosine", "epochs": epochs, "batch_size": 128, "seed": seed}
    config = sized(law, mle.fast("oracle"), **recipe, **how, ema_decay=mle.MLEConfig.ema_decay)
    agent = mle.MLE(config, make_task(law, seed))
    agent.policy.load_state_dict(start)
    agent.average.policy.load_state_dict(start)
    best, found = agent.nll_of_average(), start
    for epoch in range(epochs):
        run_epoch(agent.round_steps()[0], seed, epoch)
        if (epoch + 1) % max(1, epochs // law.looks) == 0 or epoch == epochs - 1:
            nll = agent.nll_of_average()
            if nll < best:
                best, found = nll, copy.deepcopy(agent.average.policy.state_dict())
    return {"last": agent.average.policy.state_dict(), "best": found, "nll_valid": best}


def run_epoch(steps: Steps, seed: int, epoch: int) -> None:
    """All batches of an epoch; `Step.done` goes on counting from the epochs before."""
    own, memory = derived_seed(seed, "epoch gone on", epoch), Memory()
    for batch in range(steps.batches):
        steps.run(Step(own, round=epoch, batch=batch, batches=steps.batches, memory=memory))


# ----------------------------------------------------------------------------------------------------
# From the teacher's probabilities
def teacher_of(law: Law, divergence: Any, epochs: int, seed: int) -> distill.Distill:
    """The agent that learns from the teacher's probabilities; it begins as it was drawn."""
    how = {"divergence": divergence, "learning_rate": DISTILL_RATES[divergence], "epochs": epochs, "seed": seed}
    task = make_task(law, seed)
    return distill.Distill(sized(law, distill.fast("oracle"), **how), task, [task.oracle])


def distilled(law: Law, start: Weights, divergence: str, epochs: int, seed: int) -> PolicyModule:
    """The start, taught by the teacher's probabilities."""
    agent = teacher_of(law, divergence, epochs, seed)
    agent.policy.load_state_dict(start)
    for epoch in range(epochs):
        run_epoch(agent.schedule().phases[0].steps[0], seed, epoch)
    policy: PolicyModule = agent.policy.eval()
    return policy


# ----------------------------------------------------------------------------------------------------
# From a discriminator
def adversary(law: Law, start: Weights, settings: Mapping[str, Any], seed: int) -> grpo.GRPO:
    """GAD's agent with some settings, which begins as the warm-up; its KL is measured from there."""
    how = {"rounds": law.rounds, "batch_size": law.batch_size, "discriminator": law.discriminator, "seed": seed}
    config = sized(law, grpo.gad("oracle"), **how, **settings)
    agent = grpo.GRPO(config, make_task(law, seed))
    agent.policy.load_state_dict(start)
    agent.end_pretraining(Step(0))
    return agent


def warm_discriminator(law: Law, start: Weights, seed: int) -> Weights:
    """The weights of a discriminator that has learnt to tell the teacher's texts from those of the start."""
    agent = adversary(law, start, {}, seed)
    assert agent.discriminator is not None
    for number in range(law.d_pretraining):
        agent.d_steps_of(1).alone(derived_seed(seed, "d warm-up", number))
    return agent.discriminator.state_dict()


def adversarial(
    law: Law, start: Weights, warm: Weights, settings: Mapping[str, Any], seed: int
) -> tuple[PolicyModule, Discriminator, float]:
    """The adversarial stage, with a learning rate that falls to 0.

    Args:
        law: Sizes.
        start: Weights of the warm-up.
        warm: Weights of the discriminator after its own.
        settings: One of `GRID`, with what an arm of `ADVERSARIAL` changes.
        seed: Of texts and draws.

    Returns:
        The policy, the discriminator at the end, and seconds of the processor for g-steps and d-steps.
    """
    agent = adversary(law, start, settings, seed)
    assert agent.discriminator is not None
    agent.discriminator.load_state_dict(warm)
    began = time.process_time()
    for number in range(law.rounds):
        run_round(agent, number, settings["learning_rate"] * (1 - number / law.rounds))
    seconds = time.process_time() - began
    return agent.policy.eval(), agent.discriminator.eval(), seconds


def run_round(agent: grpo.GRPO, number: int, rate: float) -> None:
    """A round as the agent's own schedule has it, at a learning rate."""
    for group in agent.g_optimizer.param_groups:
        group["lr"] = rate
    phase = agent.schedule().phases[-1]
    for steps, step in Round(phase, number, number + 1).steps(agent.config.seed):
        steps.run(step)


# ----------------------------------------------------------------------------------------------------
# Equal time, and what is measured
def pace(law: Law, start: Weights, recipe: Recipe, rate: float, rounds: int = 5) -> dict[str, Any]:
    """How many epochs take as long as GAD's adversarial stage, by the processor, measured in turn; and seconds of each.

    Args:
        law: Sizes.
        start: Weights of the warm-up of seed 0.
        recipe: Of maximum likelihood.
        rate: Its learning rate.
        rounds: How often each is measured; the median counts.
    """
    gad = adversary(law, start, GRID[0], 0)
    likely: LikelihoodAgent = Likelihood(
        law, make_task(law, 0), law.student, {**recipe, "learning_rate": rate}, 0
    ).agent
    runs: dict[str, Callable[[int], None]] = {"GAD": lambda at: run_round(gad, at, 0.0)}
    runs["SeqKD"] = partial(run_epoch, likely.round_steps()[0], 0)
    for divergence in DISTILL_RATES:
        runs[divergence] = partial(run_epoch, teacher_of(law, divergence, rounds, 0).schedule().phases[0].steps[0], 0)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for at in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run(at)
            spent[name].append(time.process_time() - began)
    seconds = {name: median(values) for name, values in spent.items()}
    return {"seconds": seconds, "epochs": epochs_of(seconds, law.rounds)}


def epochs_of(seconds: Mapping[str, float], rounds: int) -> dict[str, int]:
    """Epochs of each other training that take as long as some rounds of GAD, one at least.

    Args:
        seconds: Of a round of ``GAD``, and of an epoch of each other.
        rounds: Of GAD.
    """
    whole = rounds * seconds["GAD"]
    return {name: max(1, math.floor(whole / one + 0.5)) for name, one in seconds.items() if name != "GAD"}


def measured(law: Law, policy: PolicyModule, seed: int) -> list[dict[str, float]]:
    """Cover and fit along temperatures, nats per token."""
    return curve(law, make_task(law, seed), policy, seed)


def known(law: Law, discriminator: Discriminator, policy: PolicyModule, seed: int) -> dict[str, Any]:
    """What a discriminator knows of a policy, on texts that neither has learnt from."""
    return asdict(discriminator_worth(discriminator, policy, make_task(law, seed), samples=law.samples, seed=seed))
