"""The arms of the suite: every policy that is compared, a row each, and how it is made.

An arm trains an agent (``agent`` and its ``words``), or is made without training by one of `benchmarks.measure.BUILDS`
(``build``), from finished jobs of other arms, its ``sources``. All arms of a seed see the same training texts.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from textgan_env.utils.errors import require, require_known
from textgan_env.utils.options import ORACLES

Preset = Literal["smoke", "fast", "paper"]
#: The tasks that an arm stands on: all, the oracle tasks, or text.
Where = Literal["", "oracle", "text"]


@dataclass(frozen=True)
class Need:
    """A finished job that an arm is made from: an arm, of the same task and texts, and which training of it.

    Attributes:
        arm: Its name.
        member: 0; others begin from another seed on the same texts.
    """

    arm: str
    member: int = 0


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: On the command line and in the table.
        group: plain, likelihood, decoders, adversarial, controls, agents, agents-controls, hierarchical,
            hierarchical-controls or sb3; also a name on the command line.
        how: What it is, in a sentence for the report.
        agent: The file in agents/ that trains it; "" where nothing is trained.
        smoke: Options of the agent for `--preset smoke`; ``{arm}`` stands for the run folder of an arm that it needs,
            ``{arm.1}`` for that of its training from another seed on the same texts.
        fast: Options for `--preset fast`.
        paper: Options for `--preset paper`; None: there is no published setting.
        sources: What it is built from.
        build: The name in `benchmarks.measure.BUILDS` of what makes its policies; "": the trained one.
        sweep: Whether it is measured at several temperatures.
        only: "oracle" where it stands on oracle tasks only, "text" where on text only.
        tries: How many settings of it had been tried on SeqGAN's oracle before these, these included; None: nobody
            counted.
    """

    name: str
    group: str
    how: str
    agent: str = ""
    smoke: str = "--preset smoke"
    fast: str = "--preset fast"
    paper: str | None = "--preset paper"
    sources: tuple[Need, ...] = ()
    build: str = ""
    sweep: bool = False
    only: Where = ""
    tries: int | None = 1

    def words(self, preset: Preset) -> list[str] | None:
        """The agent's options; None where the arm has no such preset."""
        told: str | None = getattr(self, preset)
        return None if told is None else shlex.split(told) if self.agent else []

    def needs(self, preset: Preset) -> tuple[Need, ...]:
        """What must be finished before: its sources, and the arms whose run its options name."""
        named = [match for word in self.words(preset) or [] for match in RUN_OF.finditer(word)]
        return (*self.sources, *(Need(match[1], int(match[2] or 0)) for match in named))

    def suits(self, task: str) -> bool:
        """Whether it stands in a table of this task."""
        return self.only in ("", "oracle" if task in ORACLES else "text")


#: How the options of an arm name the run of another: its name, and which training of it.
RUN_OF = re.compile(r"{([a-z0-9-]+)(?:\.(\d+))?}")
_MLE = Need("mle")
_FROM_MLE = "--preset smoke --pretrained {mle}"
_LARGE = "--embed-size 128 --hidden-size 128 --dropout 0.5 --weight-decay 0.2 --learning-rate 3e-3"
_MEMBERS, _MORE_MEMBERS = 3, 5
#: Rewards that know nothing of the text, by their name on the command line of agents.
CONTROLS = {
    "constant": "1 for every token",
    "random": "noise",
    "shuffled": "that of another text",
    "untrained": "of a discriminator that has learnt nothing",
}
#: With those of single agents.
ALL_CONTROLS = CONTROLS | {
    "real": "its mediator learns real text only",
    "self": "texts of the older G stand for the real ones",
}


def _plain(name: str, how: str, sweep: bool = False) -> Arm:
    """A policy that is made without training and without other runs."""
    return Arm(name, "plain", how, build=name, sweep=sweep)


def _decoder(name: str, how: str) -> Arm:
    """Maximum likelihood with another way of choosing tokens."""
    return Arm(name, "decoders", how, build=name.removeprefix("mle-").replace("-", "_"), sources=(_MLE,))


def _ensemble(name: str, members: int) -> Arm:
    """Several trainings of maximum likelihood on the same texts, together."""
    how = f"the mean probability of {members} trainings of mle on the same texts"
    sources = tuple(Need("mle", member) for member in range(members))
    return Arm(name, "likelihood", how, build="ensemble", sources=sources, sweep=True)


def _distilled(
    name: str, members: int, how: str = "one network", small: str = "", large: str = "", only: Where = ""
) -> Arm:
    """A network that such an ensemble teaches; ``small`` and ``large`` are options of the presets smoke and fast."""
    teachers = "--teachers {mle} " + " ".join(f"{{mle.{member}}}" for member in range(1, members))
    smoke, fast = (f"--preset {preset} {teachers} {own}" for preset, own in (("smoke", small), ("fast", large)))
    how = f"{how} taught by {members} trainings of mle"
    return Arm(name, "likelihood", how, "distill", smoke, fast, None, sweep=True, only=only)


def _seqgan(name: str, how: str, own: str, group: str = "adversarial", tries: int = 10) -> Arm:
    """SeqGAN from maximum likelihood, with options of its own."""
    fast = f"--preset fast --rounds 10 --pretrained {{mle}} {own}"
    paper = f"--preset paper --pretrained {{mle-paper}} {own}"
    return Arm(name, group, how, "seqgan", f"{_FROM_MLE} {own}", fast, paper, sweep=True, tries=tries)


def _agent(
    name: str, agent: str, how: str, own: str = "", controls: tuple[str, ...] = ("shuffled",), begun: str = "mle",
    only: Where = "", small: str = "", large: str = "",
) -> tuple[Arm, ...]:  # fmt: skip
    """An agent from maximum likelihood, or from another arm, and the same where its reward knows nothing.

    ``own`` are its options, ``small`` and ``large`` those of the presets smoke and fast.
    """

    def arm(name: str, group: str, how: str, more: str = "") -> Arm:
        """One of both."""
        smoke = f"--preset smoke --pretrained {{{begun}}} {own} {small} {more}"
        fast = f"--preset fast --rounds 10 --pretrained {{{begun}}} {own} {large} {more}"
        return Arm(name, group, how, agent, smoke, fast, None, sweep=True, only=only)

    return arm(name, "agents", how), *(
        arm(f"{name}-{control}", "agents-controls", f"{name} with --control {control}: {ALL_CONTROLS[control]}",
            f"--control {control}")
        for control in controls
    )  # fmt: skip


def _leakgan(name: str, how: str, own: str) -> tuple[Arm, ...]:
    """LeakGAN by some rules, what it begins with, and the same with rewards that know nothing."""
    before = f"{name}-mle"

    def arm(name: str, group: str, how: str, own: str) -> Arm:
        """One arm with the same options for every preset."""
        smoke, fast, paper = (f"--preset {preset} {own}" for preset in ("smoke", "fast", "paper"))
        return Arm(name, group, how, "leakgan", smoke, fast, paper, sweep=True, tries=None)

    begun = f"{own} --pretrained {{{before}}}"
    return (
        arm(before, "hierarchical", f"the pre-training of {name} alone: maximum likelihood", f"{own} --rounds 0"),
        arm(name, "hierarchical", f"LeakGAN {how}", begun),
        *(
            arm(f"{name}-{control}", "hierarchical-controls",
                f"{name} with a reward that knows nothing: {CONTROLS[control]}", f"{begun} --control {control}")
            for control in ("shuffled", "random")
        ),
    )  # fmt: skip


def _sb3(name: str, how: str) -> Arm:
    """An agent of Stable-Baselines3 from maximum likelihood."""
    return Arm(name, "sb3", how, name, _FROM_MLE, "--preset fast --pretrained {mle}", None, sweep=True, tries=None)


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        _plain("real", "the oracle itself; on text, as many texts of the training file"),
        _plain("memoriser", "writes the training texts, nothing else"),
        _plain("uniform", "every token alike"),
        _plain("unigram", "tokens by how often the training texts have them", sweep=True),
        _plain("ngram", "trigrams of the training texts, backing off by Witten and Bell's rule", sweep=True),
        Arm(
            "mle", "likelihood", "maximum likelihood, regularised, weights averaged (agents/mle.py)", agent="mle",
            paper="--preset tuned", sweep=True, tries=21,
        ),
        Arm(
            "mle-large", "likelihood", "the same with 128/128 instead of 32/32 units", agent="mle",
            smoke="--preset smoke --embed-size 16 --hidden-size 16", fast=f"--preset fast {_LARGE}",
            paper=f"--preset tuned {_LARGE}", sweep=True, only="oracle", tries=4,
        ),
        Arm(
            "mle-paper", "likelihood", "SeqGAN's published pre-training (plain Adam); fast: 40 of its 120 epochs",
            agent="mle",
            fast="--preset paper --epochs 40", sweep=True,
        ),
        Arm(
            "scheduled-sampling", "likelihood", "mle-paper that reads some tokens of its own while it learns, to the "
            "same share at the end as published", agent="mle", smoke="--preset smoke --scheduled-sampling 0.2",
            fast="--preset paper --epochs 40 --scheduled-sampling 0.006",
            paper="--preset paper --scheduled-sampling 0.002", sweep=True,
        ),
        Arm(
            "mle-tuned", "likelihood", "mle for three times as many epochs", agent="mle",
            smoke="--preset smoke --epochs 3", fast="--preset tuned", paper="--preset tuned", sweep=True, only="oracle",
        ),
        _ensemble("mle-ensemble", _MEMBERS),
        _ensemble("mle-ensemble-5", _MORE_MEMBERS),
        _decoder("mle-top-k", "mle that writes one of the k most probable tokens only"),
        _decoder("mle-nucleus", "mle that writes the most probable tokens of a mass p only"),
        _decoder("mle-mixture", "each text of mle at temperature 1 or, with probability e, at 0.4: learns nothing new"),
        _seqgan("seqgan-n0", "SeqGAN without completions: each token gets the whole text's reward", "--rollouts 0"),
        _seqgan("seqgan-n1", "SeqGAN, one completion of each prefix", "--rollouts 1"),
        _seqgan("seqgan-n4", "SeqGAN, four completions of each prefix", "--rollouts 4"),
        _seqgan("seqgan-n16", "SeqGAN, sixteen completions of each prefix, as published", "--rollouts 16"),
        _seqgan("pg-bleu", "policy gradient with BLEU-4 against the training texts as the reward, no D, no KL",
                "--discriminator bleu --transform prob --kl-coef 0", tries=1),
        *_leakgan("leakgan", "by the paper's rules", ""),
        *_leakgan("leakgan-reference", "by the published code's rules", "--variant reference"),
        *(
            _seqgan(f"control-{control}", f"seqgan-n4 with a reward that knows nothing: {how}",
                    f"--rollouts 4 --control {control}", "controls")
            for control, how in CONTROLS.items()
        ),
        Arm(
            "control-without-d", "controls", "mle for twice as many epochs: more of the same instead of D",
            agent="mle", fast="--preset fast --epochs 40", paper="--preset tuned --epochs 120", sweep=True,
        ),
        # Random rewards and a D that has learnt nothing once a family: weights, groups, a dense reward, a gradient.
        *_agent("maligan", "maligan", "MaliGAN: maximum likelihood on its own texts, weighed by D",
                controls=("shuffled", "random", "untrained")),
        *_agent("resample", "expert_iteration", "expert iteration: G learns its own texts, drawn again as D says"),
        *_agent("rankgan", "rankgan", "RankGAN by the paper's rule: a ranker in the place of D", "--rollouts 4"),
        *_agent("scratchgan", "scratchgan", "ScratchGAN, but from mle: a recurrent D rewards every token",
                controls=("shuffled", "random", "untrained")),
        *_agent("cot", "cot", "cooperative training: G learns from a mediator of real and own texts",
                controls=("real",)),
        *_agent("grpo", "grpo", "group-relative: texts that go on from one real prefix are compared with each other",
                controls=("shuffled", "random", "untrained")),
        *_agent("textgan", "textgan", "TextGAN: moments of D's features, as a reward for each text"),
        *_agent("coldgan", "coldgan", "ColdGAN: generates colder than it learns, and weighs its texts for that"),
        *_agent("relgan", "relgan", "RelGAN: D's gradient in soft words, no reward",
                controls=("shuffled", "untrained")),
        *_agent("dgsan", "dgsan", "DGSAN: G against its older self, without D", controls=("self",)),
        _distilled("distilled", _MEMBERS),
        _distilled("distilled-5", _MORE_MEMBERS),
        _distilled("distilled-large", _MEMBERS, "one network of 128/128 instead of 32/32 units,",
                   "--embed-size 16 --hidden-size 16", "--embed-size 128 --hidden-size 128 --learning-rate 5e-3",
                   only="oracle"),
        *_agent("seqgan-distilled", "seqgan", "seqgan-n4, but from distilled", "--rollouts 4", begun="distilled"),
        *_agent("seqgan-lm", "seqgan", "SeqGAN whose D reads the states of a pretrained language model (SmolLM2)",
                "--rollouts 0 --discriminator lm", only="text",
                small="--d-texts 50 --d-pretraining 1", large="--d-texts 1000 --d-pretraining 8"),
        _sb3("ppo", "Stable-Baselines3's PPO from mle"),
        _sb3("a2c", "Stable-Baselines3's A2C from mle"),
        _sb3("dqn", "Stable-Baselines3's DQN from mle"),
    )
}  # fmt: skip
GROUPS = tuple(dict.fromkeys(arm.group for arm in ARMS.values()))
# The baselines that every comparison has: what agents begin with, and the best by NLL-valid of all that need no reward.
BASELINE = "mle"
BASELINES = (
    "mle", "mle-large", "mle-paper", "mle-tuned", "control-without-d", "mle-ensemble", "mle-ensemble-5", "distilled",
    "distilled-5", "distilled-large",
)  # fmt: skip


def chosen(names: Sequence[str]) -> list[Arm]:
    """The arms that names and groups stand for, in the order of the registry.

    Args:
        names: Of arms or groups, or "all".

    Raises:
        InputError: If there is none, or one is unknown.
    """
    known = (*ARMS, *GROUPS, "all")
    require(bool(names), f"no agents: expected some of: {', '.join(known)}")
    for name in names:
        require_known("agent", name, known)
    return [arm for arm in ARMS.values() if {arm.name, arm.group, "all"} & set(names)]
