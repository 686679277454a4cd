"""The published algorithms as they read, plainly: what our fast paths are timed against and must agree with.

Deliberately slow: N x T passes over whole texts for the completions, `torch.multinomial` for every token, Conv1d and
one max-pool a width, the features of every prefix from its first token on, O_t of LeakGAN's Worker as the array it is.
Every class takes the weights of ours, so that a test can hold both to the same numbers.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from textgan_env.discriminators import ConvDiscriminator
from textgan_env.policies import LeakedPolicy, LSTMPolicy
from textgan_env.policies.manager_worker import intrinsic_reward, manager_cosines
from textgan_env.rewards import rank_rescaled


class PlainGenerator(nn.Module):
    """SeqGAN's generator (Yu et al. 2017): embedding, LSTM, projection to the vocabulary.

    Args:
        policy: Whose weights it takes.
    """

    def __init__(self, policy: LSTMPolicy) -> None:
        super().__init__()
        self.start_token = policy.start_token
        self.embedding = copy.deepcopy(policy.embedding)
        self.lstm = copy.deepcopy(policy.lstm)
        self.projection = copy.deepcopy(policy.projection)

    def log_prob(self, tokens_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token, float (B, T), by a softmax over all logits at once."""
        start_B1 = torch.full_like(tokens_BT[:, :1], self.start_token)
        hidden_BTH, _ = self.lstm(self.embedding(torch.cat([start_B1, tokens_BT[:, :-1]], dim=1)))
        logp_BTV = functional.log_softmax(self.projection(hidden_BTH), dim=2)
        return logp_BTV.gather(2, tokens_BT[..., None])[..., 0]

    @torch.no_grad()
    def write(self, prefix_Bt: Tensor, max_length: int, generator: torch.Generator) -> Tensor:
        """Whole texts, int64 (B, T), that begin with given tokens; drawn by `torch.multinomial`."""
        last_B = prefix_Bt.new_full((len(prefix_Bt),), self.start_token)
        state, tokens = None, []
        for position in range(max_length):
            hidden_B1H, state = self.lstm(self.embedding(last_B[:, None]), state)
            last_B = _next(prefix_Bt, position, self.projection(hidden_B1H[:, 0]), generator)
            tokens.append(last_B)
        return torch.stack(tokens, dim=1)


class PlainDiscriminator(nn.Module):
    """SeqGAN's CNN: one Conv1d a width, ReLU, max over time, a highway layer, one logit.

    Args:
        judge: Whose weights it takes.
    """

    def __init__(self, judge: ConvDiscriminator) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(judge.embedding.detach().clone(), freeze=False)
        size = judge.embedding.shape[1]
        self.convolutions = nn.ModuleList()
        for width, kernel, bias in zip(judge.widths, judge.kernels, judge.bias.split(judge.filters), strict=True):
            convolution = nn.utils.skip_init(nn.Conv1d, size, len(kernel), width)
            # Ours has the embeddings of a window side by side, the first token's first.
            convolution.weight.data = kernel.detach().view(len(kernel), width, size).transpose(1, 2).contiguous()
            convolution.bias.data = bias.detach().clone()
            self.convolutions.append(convolution)
        self.highway = copy.deepcopy(judge.highway)
        self.dropout = nn.Dropout(judge.dropout.p)
        self.output = copy.deepcopy(judge.output)
        self.l2 = judge.l2

    def features(self, tokens_BT: Tensor) -> Tensor:
        """What the highway layer gives, float (B, F)."""
        embedded_BET = self.embedding(tokens_BT).transpose(1, 2)
        pooled = [convolution(embedded_BET).relu().amax(2) for convolution in self.convolutions]
        pooled_BF = torch.cat(pooled, dim=1)
        candidate_BF, gate_BF = self.highway(pooled_BF).chunk(2, dim=1)
        gate_BF = gate_BF.sigmoid()
        highway_BF: Tensor = gate_BF * candidate_BF.relu() + (1 - gate_BF) * pooled_BF
        return highway_BF

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits, float (B,); real is high."""
        logits_B: Tensor = self.output(self.dropout(self.features(tokens_BT)))[:, 0]
        return logits_B


class PlainLeakGAN(nn.Module):
    """LeakGAN's generator (Guo et al. 2018) by the paper's rules, D's features of each prefix from scratch.

    Args:
        policy: Whose weights it takes; its D must be the CNN.
    """

    def __init__(self, policy: LeakedPolicy) -> None:
        super().__init__()
        assert isinstance(policy.discriminator, ConvDiscriminator)
        self.start_token, self.pad = policy.start_token, policy.vocab_size
        self.goal_steps = policy.goal_steps
        self.max_length = policy.discriminator.max_length
        self.discriminator = PlainDiscriminator(policy.discriminator).eval().requires_grad_(False)
        self.manager = copy.deepcopy(policy.manager)
        self.worker = copy.deepcopy(policy.worker)

    def leaked(self, tokens_BT: Tensor, length: int) -> Tensor:
        """f_t: D's features of the first ``length`` tokens, filled up with PAD, float (B, F)."""
        prefix_BT = tokens_BT.clone()
        prefix_BT[:, length:] = self.pad
        with torch.no_grad():
            return self.discriminator.features(prefix_BT)

    def logits(self, hidden_BH: Tensor, heard: list[Tensor]) -> Tensor:
        """O_t w_t, float (B, V), with O_t as an array of shape (B, V, k)."""
        w_Bk = torch.stack(heard[-self.goal_steps :]).sum(0)
        size = w_Bk.shape[1]
        weight_VkH = self.worker.output.view(len(self.worker.output), size, -1)
        hidden_BH = functional.pad(hidden_BH, (0, 1), value=1.0)
        o_BVk = torch.einsum("bh,vkh->bvk", hidden_BH, weight_VkH)
        return torch.bmm(o_BVk, w_Bk[..., None])[..., 0]

    @torch.no_grad()
    def write(self, prefix_Bt: Tensor, generator: torch.Generator) -> Tensor:
        """Whole texts, int64 (B, T), that begin with given tokens."""
        tokens_BT = torch.full((len(prefix_Bt), self.max_length), self.pad, device=prefix_Bt.device)
        unrolled = self.unroll(tokens_BT, partial(self.leaked, tokens_BT))
        for position, (logits_BV, _) in enumerate(unrolled):
            tokens_BT[:, position] = _next(prefix_Bt, position, logits_BV, generator)
        return tokens_BT

    def unroll(self, tokens_BT: Tensor, leaked: Callable[[int], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through texts, or through texts that are written meanwhile.

        Args:
            tokens_BT: int64; each token is read when the position behind it is asked for.
            leaked: Position -> f_t, float (B, F).

        Yields:
            Logits of the token of each position, float (B, V), and its goal, float (B, F).
        """
        rows = len(tokens_BT)
        manager, worker = self.manager.begin(rows), self.worker.begin(rows)
        heard = [self.worker.first().expand(rows, -1)] * self.goal_steps
        last_B = torch.full_like(tokens_BT[:, 0], self.start_token)
        for position in range(self.max_length):
            hidden_B1H, worker = self.worker.read(last_B[:, None], worker)
            logits_BV = self.logits(hidden_B1H[:, 0], heard)
            goal_B1F, manager = self.manager(leaked(position)[:, None], manager)
            heard.append(self.worker.goal_embedding(goal_B1F[:, 0]))
            yield logits_BV, goal_B1F[:, 0]
            last_B = tokens_BT[:, position]


def _next(prefix_Bt: Tensor, position: int, logits_BV: Tensor, generator: torch.Generator) -> Tensor:
    """The next token, int64 (B,): that of the prefix, or a draw behind it."""
    if position < prefix_Bt.shape[1]:
        return prefix_Bt[:, position]
    return torch.multinomial(logits_BV.softmax(1), 1, generator=generator)[:, 0]


def plain_q(
    write: Callable[[Tensor], Tensor], judge: PlainDiscriminator, tokens_BT: Tensor, rollouts: int, positions: list[int]
) -> Tensor:
    """Q of some tokens, float (B, T), 0 elsewhere: for each of N rounds and each position a pass over whole texts.

    SeqGAN's Algorithm 1, eq. 4, by the loops of its published code.

    Args:
        write: Completes prefixes, int64 (B, t) -> (B, T).
        judge: D.
        tokens_BT: int64; the texts.
        rollouts: N.
        positions: The tokens asked about, 0 to T - 1.
    """
    length = tokens_BT.shape[1]
    q_BT = torch.zeros(tokens_BT.shape, device=tokens_BT.device)
    with torch.no_grad():
        for position in positions * rollouts:
            done_BT = tokens_BT if position == length - 1 else write(tokens_BT[:, : position + 1])
            q_BT[:, position] += judge(done_BT).sigmoid() / rollouts
    return q_BT


def descend(loss: Tensor, optimizer: Optimizer, clipped: nn.Module | None = None) -> None:
    """A step down a loss, with the norm of the gradient clipped at 5 where a module is named."""
    optimizer.zero_grad()
    loss.backward()
    if clipped is not None:
        nn.utils.clip_grad_norm_(clipped.parameters(), 5.0)
    optimizer.step()


def plain_leakgan_step(
    policy: PlainLeakGAN, optimizers: tuple[Optimizer, Optimizer], *, rows: int, rollouts: int, draws: torch.Generator
) -> None:
    """Write B texts, take Q after every c-th token, make a step of the Manager and one of the Worker."""
    steps, length = policy.goal_steps, policy.max_length
    device = policy.worker.output.device
    tokens_BT = policy.write(torch.empty(rows, 0, dtype=torch.int64, device=device), draws)
    positions = list(range(steps - 1, length, steps))
    q_BT = plain_q(lambda prefix: policy.write(prefix, draws), policy.discriminator, tokens_BT, rollouts, positions)
    asked_BT = torch.zeros_like(tokens_BT, dtype=torch.bool).index_fill(1, torch.tensor(positions, device=device), True)
    q_BT = rank_rescaled(q_BT, asked_BT)
    features_BSF = torch.stack([policy.leaked(tokens_BT, seen) for seen in range(length + 1)], dim=1)
    logits, goals = zip(*policy.unroll(tokens_BT, lambda position: features_BSF[:, position]), strict=True)
    logp_BTV, goals_BTF = torch.stack(logits, dim=1).log_softmax(2), torch.stack(goals, dim=1)
    logp_BT = logp_BTV.gather(2, tokens_BT[..., None])[..., 0]
    cosines_BK = manager_cosines(features_BSF, goals_BTF, steps)
    credit_BK = q_BT[:, steps - 1 :]
    manager_loss = -(credit_BK * cosines_BK).sum() / asked_BT.sum()
    reward_BT = intrinsic_reward(features_BSF, goals_BTF, steps)
    worker_loss = -(reward_BT * logp_BT).sum(1).mean()
    for optimizer, loss in zip(optimizers, (manager_loss, worker_loss), strict=True):
        descend(loss, optimizer)
