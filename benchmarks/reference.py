"""The published algorithms as they read, plainly: what our fast paths are timed against and must agree with.

Deliberately slow: N x T passes over whole texts for the completions, `torch.multinomial` for every token, Conv1d and
one max-pool a width, the features of every prefix from its first token on, O_t of LeakGAN's Worker as the array it is.
Every class takes the weights of ours, so that a test can hold both to the same numbers.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from textgan_env.discriminators import ConvDiscriminator
from textgan_env.policies import LeakedPolicy, LSTMPolicy
from textgan_env.policies.manager_worker import intrinsic_reward, manager_cosines
from textgan_env.rewards import rank_rescaled

State = tuple[Tensor, Tensor]


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

    def begin(self, rows: int) -> State:
        """Hidden and cell state, zeros, each (1, B, H) as `torch.nn.LSTM` has them."""
        zeros = self.projection.weight.new_zeros(1, rows, self.lstm.hidden_size)
        return zeros, zeros.clone()

    def step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next token, float (B, V)."""
        hidden_B1H, state = self.lstm(self.embedding(tokens_B[:, None]), state)
        return self.projection(hidden_B1H[:, 0]), state

    def log_prob(self, tokens_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token, float (B, T), by a softmax over all logits at once."""
        start_B1 = torch.full_like(tokens_BT[:, :1], self.start_token)
        hidden_BTH, _ = self.lstm(self.embedding(torch.cat([start_B1, tokens_BT[:, :-1]], dim=1)))
        logp_BTV = functional.log_softmax(self.projection(hidden_BTH), dim=2)
        return logp_BTV.gather(2, tokens_BT[..., None])[..., 0]

    @torch.no_grad()
    def write(self, prefix_Bt: Tensor, max_length: int, generator: torch.Generator) -> Tensor:
        """Whole texts, int64 (B, T), that begin with given tokens; drawn by `torch.multinomial`."""
        state = self.begin(len(prefix_Bt))
        last_B = torch.full_like(prefix_Bt[:, 0] if prefix_Bt.shape[1] else state[0][0, :, 0].long(), self.start_token)
        tokens = []
        for position in range(max_length):
            logits_BV, state = self.step(last_B, state)
            last_B = _next(prefix_Bt, position, logits_BV, generator)
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
        rows = len(prefix_Bt)
        tokens_BT = torch.full((rows, self.max_length), self.pad, device=prefix_Bt.device)
        manager, worker = self.manager.begin(rows), self.worker.begin(rows)
        heard = [self.worker.first().expand(rows, -1)] * self.goal_steps
        last_B = torch.full((rows,), self.start_token, device=prefix_Bt.device)
        for position in range(self.max_length):
            hidden_B1H, worker = self.worker.read(last_B[:, None], worker)
            logits_BV = self.logits(hidden_B1H[:, 0], heard)
            goal_B1F, manager = self.manager(self.leaked(tokens_BT, position)[:, None], manager)
            heard.append(self.worker.goal_embedding(goal_B1F[:, 0]))
            last_B = _next(prefix_Bt, position, logits_BV, generator)
            tokens_BT[:, position] = last_B
        return tokens_BT


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


def plain_generator_step(
    generator: PlainGenerator, judge: PlainDiscriminator, optimizer: Optimizer, *, rows: int, max_length: int,
    rollouts: int, draws: torch.Generator,
) -> None:  # fmt: skip
    """Write B texts, take Q of every token, make a step of REINFORCE."""
    write = partial(generator.write, max_length=max_length, generator=draws)
    tokens_BT = write(torch.empty(rows, 0, dtype=torch.int64, device=generator.projection.weight.device))
    q_BT = plain_q(write, judge, tokens_BT, rollouts, list(range(max_length)))
    descend(-(q_BT * generator.log_prob(tokens_BT)).sum(1).mean(), optimizer, generator)


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
    goals, heard, logp = [], [policy.worker.first().expand(rows, -1)] * steps, []
    manager, worker = policy.manager.begin(rows), policy.worker.begin(rows)
    last_B = torch.full_like(tokens_BT[:, 0], policy.start_token)
    for position in range(length):
        hidden_B1H, worker = policy.worker.read(last_B[:, None], worker)
        logp_BV = policy.logits(hidden_B1H[:, 0], heard).log_softmax(1)
        goal_B1F, manager = policy.manager(features_BSF[:, position : position + 1], manager)
        goals.append(goal_B1F[:, 0])
        heard.append(policy.worker.goal_embedding(goal_B1F[:, 0]))
        last_B = tokens_BT[:, position]
        logp.append(logp_BV.gather(1, last_B[:, None])[:, 0])
    goals_BTF = torch.stack(goals, dim=1)
    cosines_BK = manager_cosines(features_BSF, goals_BTF, steps)
    credit_BK = q_BT[:, steps - 1 :]
    manager_loss = -(credit_BK * cosines_BK).sum() / asked_BT.sum()
    reward_BT = intrinsic_reward(features_BSF, goals_BTF, steps)
    worker_loss = -(reward_BT * torch.stack(logp, dim=1)).sum(1).mean()
    for optimizer, loss in zip(optimizers, (manager_loss, worker_loss), strict=True):
        descend(loss, optimizer)


def plain_d_step(judge: PlainDiscriminator, optimizer: Optimizer, tokens_BT: Tensor, real_is_one_B: Tensor) -> None:
    """One step of D: cross entropy and the L2 of its head."""
    loss = functional.binary_cross_entropy_with_logits(judge(tokens_BT), real_is_one_B)
    descend(loss + judge.l2 / 2 * sum(part.square().sum() for part in judge.output.parameters()), optimizer)


def plain_mle_step(generator: PlainGenerator, optimizer: Optimizer, tokens_BT: Tensor) -> None:
    """One step of maximum likelihood."""
    descend(-generator.log_prob(tokens_BT).mean(), optimizer, generator)
