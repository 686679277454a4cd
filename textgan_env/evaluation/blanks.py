"""Templates: from text, and how well a policy fills the blanks of real texts."""

import torch
from torch import Tensor

from textgan_env.evaluation.likelihood import nll
from textgan_env.ops.sampling import derived_generator
from textgan_env.ops.templates import BLANK, draw_templates, given_cells
from textgan_env.policies import PolicyModule
from textgan_env.tasks import Task
from textgan_env.text.dataset import Split
from textgan_env.utils.errors import require


def template_of(task: Task, text: str) -> Tensor:
    """The template that a text with blanks stands for, as `PolicyModule.given` takes it.

    It is a whole text: where texts can end early, the end token follows its last word. Where every text has T tokens,
    what comes after a shorter template is blank.

    Args:
        task: Has the words.
        text: With ``___`` for each blank, one token each (see `Task.encode_template`); token ids where tokens mean
            nothing.

    Returns:
        int64 (1, T).

    Raises:
        InputError: If it has no blank, a word that no policy can write, the end token inside, or no room in T tokens.
    """
    tokens, end, length = task.encode_template(text), task.end_token, task.max_length
    require(end not in tokens, "a template holds no end token: it follows the last word by itself")
    room = length - (end is not None)
    beside = "" if end is None else " beside the end token"
    require(len(tokens) <= room, f"a template has at most {room} tokens{beside}, found {len(tokens)}")
    whole = tokens + ([] if end is None else [end])
    rest = BLANK if end is None else task.vocab_size
    return torch.tensor([whole + [rest] * (length - len(whole))])


def blank_nll(
    policy: PolicyModule,
    task: Task,
    *,
    split: Split = "test",
    mask_rate: float = 0.5,
    contiguous: bool = True,
    seed: int = 0,
) -> float:
    """Negative log-likelihood of the true words of blanks in real texts, each given the words before and the template.

    A policy that sees only what stands before a blank can be asked, too. Not to be compared with NLL-test: here other
    words are known. Unknown words count for nothing; an end token is blank as any other.

    Args:
        policy: Fills the blanks, at its own temperature.
        task: Gives the texts.
        split: Which.
        mask_rate: Share of each text that is blank, at least one token.
        contiguous: Whether blanks stand side by side.
        seed: Of their places.

    Returns:
        Nats per blank.

    Raises:
        InputError: If the rate is not 0 to 1, or there is no such split.
    """
    require(0 <= mask_rate <= 1, f"mask_rate must be 0 to 1, found {mask_rate}")
    tokens_BT = task.split(split).tokens_BT
    rates_B, generator = torch.full((len(tokens_BT),), mask_rate), derived_generator(seed, "blanks")
    template_BT = draw_templates(tokens_BT, task.vocab_size, rates_B, generator, contiguous=contiguous)
    asked_BT = task.scored(tokens_BT) & ~given_cells(template_BT, task.vocab_size)
    return nll(policy.given(template_BT, task.end_token), tokens_BT, asked_BT)[0]
