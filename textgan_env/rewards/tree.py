"""Texts written by tree search: before each token many continuations are tried, and the promising ones tried more.

As in AlphaZero (Silver et al. 2018), with a completion by the policy in the place of a value network. N nodes, K edges.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from textgan_env.ops.sampling import Stream, evaluating, keyed_uniform, sample_categorical
from textgan_env.policies.base import Policy, PolicyModule, map_state
from textgan_env.rewards.rollouts import TILE, Memory, for_texts, row_tiles
from textgan_env.rewards.texts import Keys, Texts, have_ended
from textgan_env.utils.errors import require, require_at_least


@dataclass(frozen=True)
class TreeSearch:
    """PUCT before each token of B texts side by side, then a draw in proportion to how often each token was tried.

    A simulation goes down the tree of prefixes from the text so far, at each node s to the token with the largest
    ``Q(s, a) + c_puct G(a | s) sqrt(n(s)) / (1 + n(s, a))`` (Rosin 2011; Silver et al. 2018), up to a prefix that has
    no node yet. That gets one, whose edges are the K most probable tokens; G completes it once, and the value of the
    whole text is averaged into the Q of all edges on the way. Q of an edge that was never tried is that of its node. A
    text that has ended is a leaf with its own value. The tree is made anew for each token.

    Args:
        policy: G; its probabilities, over the K tokens, are the prior.
        value: Value of whole texts, float (R,), 0 to 1.
        simulations: Before each token.
        width: K.
        c_puct: How much the prior counts beside Q.
        temperature: tau: a token is drawn in proportion to ``visits^(1 / tau)``.

    Raises:
        InputError: If a number is out of its range.
    """

    policy: Policy
    value: Callable[[Texts], Tensor]
    simulations: int = 16
    width: int = 8
    c_puct: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        require_at_least(1, simulations=self.simulations, width=self.width)
        for name, number in (("c_puct", self.c_puct), ("temperature", self.temperature)):
            require(number > 0, f"{name} must be above 0, found {number}")

    def generate(self, keys: Keys, max_length: int, *, end_token: int | None = None) -> Texts:
        """One text for each key, dropout off, without gradients; the draws follow from the keys alone.

        Args:
            keys: B.
            max_length: T.
            end_token: The token that ends a text before T tokens, or None.
        """
        tokens_BT = torch.full((len(keys), max_length), self.policy.vocab_size, device=keys.seed_B.device)
        length_B = torch.zeros_like(keys.seed_B)
        with evaluating(self.policy), torch.inference_mode():
            policy = for_texts(self.policy, keys)
            policy = policy.prepared() if isinstance(policy, PolicyModule) else policy
            roots = Memory(policy, map_state(torch.clone, policy.begin(len(keys))))
            last_B, row_b = (
                torch.full_like(length_B, policy.start_token),
                torch.arange(len(keys), device=length_B.device),
            )
            for position in range(max_length):
                if not len(row_b):
                    break
                logits_bV = _stepped(roots, last_B, row_b)
                texts = Texts(tokens_BT[row_b], length_B[row_b], length_B[row_b] < 0, keys[row_b], end_token)
                tree = _Tree(self, texts, logits_bV, Memory(policy, roots.get(row_b)))
                last_B[row_b] = tokens_BT[row_b, position] = tree.draw()
                length_B[row_b] += 1
                row_b = row_b[~have_ended(tokens_BT[row_b], length_B[row_b], end_token)]
        return Texts.finished(tokens_BT, length_B, keys, end_token)


class _Tree:
    """The search before one token of b texts. Node 0 is the text so far, node s that of simulation s.

    Attributes:
        token_bNK: int64; what the edges stand for.
        prior_bNK: float; 0 where an edge may not be tried.
        visits_bNK: int64.
        total_bNK: float; the sum of the values of the simulations that went over the edge.
        child_bNK: int64; the node below, -1 where there is none.
        tokens_bNT: int64; the prefix of each node, of ``length_bN`` tokens.
        ended_bN: bool; a whole text.
    """

    def __init__(self, search: TreeSearch, texts: Texts, logits_bV: Tensor, root: Memory) -> None:
        self.search, self.texts, self.root_length = search, texts, int(texts.lengths_B[0])
        rows, nodes = len(texts), search.simulations + 1
        self.row_b, device = torch.arange(rows, device=logits_bV.device), logits_bV.device
        shape = (rows, nodes, min(search.width, logits_bV.shape[1]))
        self.token_bNK = torch.zeros(shape, dtype=torch.int64, device=device)
        self.visits_bNK, self.child_bNK = torch.zeros_like(self.token_bNK), torch.full_like(self.token_bNK, -1)
        self.prior_bNK = torch.zeros(shape, device=device)
        self.total_bNK = torch.zeros_like(self.prior_bNK)
        self.tokens_bNT = texts.tokens_BT[:, None].repeat(1, nodes, 1)
        self.length_bN = texts.lengths_B[:, None].repeat(1, nodes)
        self.ended_bN = torch.zeros_like(self.length_bN, dtype=torch.bool)
        # The state of node n of row b stands in row b N + n; beside it that of each row's completion.
        state = map_state(lambda part: part.repeat_interleave(nodes, 0), root.state)
        self.nodes, self.completions = Memory(root.policy, state), Memory(root.policy, root.state)
        self._expand(self.row_b, 0, logits_bV)

    def draw(self) -> Tensor:
        """Search, then the next token of each text, int64 (b,)."""
        for simulation in range(1, self.search.simulations + 1):
            self._simulate(simulation)
        logits_bK = self.visits_bNK[:, 0].double().log() / self.search.temperature
        edge_b = sample_categorical(logits_bK, self._uniform(self.row_b, 0, self.root_length))
        return self.token_bNK[self.row_b, 0, edge_b]

    def _simulate(self, simulation: int) -> None:
        """Down to a leaf, a completion of it, and back up."""
        path, node_b, edge_b = self._descend()
        leaf_b = self.child_bNK[self.row_b, node_b, edge_b]
        new_r = (leaf_b < 0).nonzero()[:, 0]
        leaf_b[new_r] = simulation
        unfinished_r, logits_rV = self._grow(new_r, node_b[new_r], edge_b[new_r], simulation)
        tokens_bT, length_b = self._completed(leaf_b, unfinished_r, logits_rV, simulation)
        value_b = self.search.value(Texts.finished(tokens_bT, length_b, self.texts.keys, self.texts.end_token))
        for node_b, edge_b, on_way_b in path:
            place = (self.row_b, node_b, edge_b)
            self.visits_bNK[place] += on_way_b
            self.total_bNK[place] += on_way_b * value_b

    def _descend(self) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor, Tensor]:
        """The edges on the way: of each step node, edge, and which rows took it; then the last of each row."""
        node_b, on_way_b = torch.zeros_like(self.row_b), torch.ones_like(self.row_b, dtype=torch.bool)
        last_node_b = last_edge_b = node_b
        path = []
        while bool(on_way_b.any()):
            edge_b = self._scores(node_b).argmax(1)
            path.append((node_b, edge_b, on_way_b))
            last_node_b, last_edge_b = (
                torch.where(on_way_b, new_b, old_b) for new_b, old_b in ((node_b, last_node_b), (edge_b, last_edge_b))
            )
            next_b = self.child_bNK[self.row_b, node_b, edge_b]
            on_way_b = on_way_b & (next_b >= 0) & ~self.ended_bN[self.row_b, next_b]
            node_b = torch.where(on_way_b, next_b, node_b)
        return path, last_node_b, last_edge_b

    def _scores(self, node_b: Tensor) -> Tensor:
        """What a simulation goes by, float (b, K)."""
        visits_bK, total_bK, prior_bK = (
            of_node[self.row_b, node_b] for of_node in (self.visits_bNK, self.total_bNK, self.prior_bNK)
        )
        visits_b1 = visits_bK.sum(1, keepdim=True)
        mean_b1 = total_bK.sum(1, keepdim=True) / visits_b1.clamp(min=1)
        q_bK = torch.where(visits_bK > 0, total_bK / visits_bK.clamp(min=1), mean_b1)
        # The visit in which the node was made counts as one of its own: else the prior would have no part in the first.
        score_bK = q_bK + self.search.c_puct * prior_bK * (1 + visits_b1).sqrt() / (1 + visits_bK)
        return score_bK.masked_fill(prior_bK == 0, -math.inf)

    def _grow(self, row_r: Tensor, node_r: Tensor, edge_r: Tensor, simulation: int) -> tuple[Tensor, Tensor]:
        """Give some rows a node below an edge; returns those whose text goes on there, and their logits."""
        token_r = self.token_bNK[row_r, node_r, edge_r]
        self.child_bNK[row_r, node_r, edge_r] = simulation
        tokens_rT, length_r = self.tokens_bNT[row_r, node_r], self.length_bN[row_r, node_r]
        tokens_rT = tokens_rT.scatter(1, length_r[:, None], token_r[:, None])
        ended_r = have_ended(tokens_rT, length_r + 1, self.texts.end_token)
        self.tokens_bNT[row_r, simulation], self.length_bN[row_r, simulation] = tokens_rT, length_r + 1
        self.ended_bN[row_r, simulation] = ended_r
        row_r, node_r, token_r = row_r[~ended_r], node_r[~ended_r], token_r[~ended_r]
        first_r = row_r * self.child_bNK.shape[1]
        self.nodes.put(first_r + simulation, self.nodes.get(first_r + node_r))
        last_bN = self.tokens_bNT.new_zeros(self.length_bN.shape)
        last_bN[row_r, simulation] = token_r
        logits_rV = _stepped(self.nodes, last_bN.flatten(), first_r + simulation)
        self._expand(row_r, simulation, logits_rV)
        self.completions.put(row_r, self.nodes.get(first_r + simulation))
        return row_r, logits_rV

    def _expand(self, row_r: Tensor, node: int, logits_rV: Tensor) -> None:
        """Give a node of some rows its edges."""
        if len(row_r):
            top_rK, token_rK = logits_rV.topk(self.prior_bNK.shape[2], dim=1)
            self.token_bNK[row_r, node], self.prior_bNK[row_r, node] = token_rK, top_rK.softmax(1).float()

    def _completed(self, leaf_b: Tensor, row_r: Tensor, logits_rV: Tensor, simulation: int) -> tuple[Tensor, Tensor]:
        """The whole texts that the leaves become: int64 (b, T) and (b,); G draws the rest of the unfinished ones."""
        tokens_bT, length_b = self.tokens_bNT[self.row_b, leaf_b], self.length_bN[self.row_b, leaf_b]
        while len(row_r):
            place_r = length_b[row_r]
            tokens_bT[row_r, place_r] = sample_categorical(logits_rV, self._uniform(row_r, simulation, place_r))
            length_b[row_r] += 1
            row_r = row_r[~have_ended(tokens_bT[row_r], length_b[row_r], self.texts.end_token)]
            logits_rV = _stepped(self.completions, tokens_bT.gather(1, length_b[:, None] - 1)[:, 0], row_r)
        return tokens_bT, length_b

    def _uniform(self, row_r: Tensor, simulation: int, position: Tensor | int) -> Tensor:
        """A random number for each row: simulation 0 draws the token that stays."""
        keys = self.texts.keys[row_r]
        place = {"prefix": self.root_length, "rollout": simulation, "position": position}
        return keyed_uniform(keys.seed_B, keys.episode_B, stream=Stream.SEARCH, **place)


def _stepped(memory: Memory, last_R: Tensor, row_r: Tensor) -> Tensor:
    """Logits after the last tokens of some rows, float (r, V)."""
    if not len(row_r):
        return torch.empty(0, memory.policy.vocab_size, device=row_r.device)
    return torch.cat([memory.step(last_R, some) for some in row_tiles(row_r, TILE.on(row_r.device))])
