"""The ideas on a task so small that every text can be listed: state, action, reward, completions, and the truth."""

import marimo

__generated_with = "0.25.2"

app = marimo.App()

with app.setup:
    import gymnasium as gym
    import marimo as mo
    import torch
    from matplotlib.figure import Figure

    import textgan_env
    from textgan_env.discriminators import score_logits
    from textgan_env.envs import TextGANVectorEnv, default_discriminator
    from textgan_env.evaluation import generate_texts
    from textgan_env.ops.losses import baseline, policy_gradient_sum
    from textgan_env.policies import TablePolicy
    from textgan_env.rewards import RolloutCredit
    from textgan_env.tasks import ToyTask


@app.cell(hide_code=True)
def _():
    mo.md("""
    # The ideas, on 256 texts

    A text is written token by token. A **discriminator** D has learnt to tell real texts from others, and its score is
    the reward. To see what that does, we take a task that is small enough to know everything: four tokens, texts of
    four tokens, so 4 x 4 x 4 x 4 = 256 texts. Each has a fixed probability; all of them together are the **law**.
    """)
    return


@app.cell
def _():
    print(f"textgan_env {textgan_env.__version__}")
    task = ToyTask(seed=5)
    law_S = task.logp_S.exp()
    print("the most probable text:", task.texts_ST[law_S.argmax()].tolist(), f"p = {law_S.max():.3f}")
    return law_S, task


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## State, action, reward

    The **state** is what has been written so far, the **action** is the next token. The **reward** comes with the last
    token: D's probability that the text is real. Here tokens are chosen at random.
    """)
    return


@app.cell
def _(task):
    env = gym.make("TextGAN/Toy-v0", task=task)
    env.action_space.seed(1)
    observation, _ = env.reset(seed=1)
    ended = False
    while not ended:
        state = observation["tokens"][: int(observation["length"][0])].tolist()
        action = env.action_space.sample()
        observation, reward, ended, _, info = env.step(action)
        print(f"state {state!s:10} action {action}  reward {reward:.3f}")
    print("D finds this text real with probability", round(float(info["score_real"]), 3))
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What D has learnt

    We ask D about all 256 texts, and put its score beside the law. Probable texts have somewhat better scores, but D is
    no copy of the law: it only learnt to tell real texts from those of two simple models.
    """)
    return


@app.cell
def _(law_S, task):
    D = default_discriminator(task, seed=0)
    reward_S = score_logits(D, task.texts_ST).sigmoid()  # R of each text
    _figure = Figure(figsize=(6, 3.6), layout="constrained")
    _panel = _figure.subplots()
    _panel.semilogx(law_S, reward_S, "o", markersize=4, alpha=0.6)
    _panel.set(xlabel="probability of the text under the law", ylabel="D's score", title="256 texts")
    _figure
    return D, reward_S


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What is one token worth?

    The reward is known at the end only. SeqGAN asks what a token is worth by **Monte-Carlo completions**: the policy
    completes the text N times from there, D scores each, and the mean is Q. On this task Q can also be computed
    exactly, by listing all completions. So we can see how wrong the estimate is.
    """)
    return


@app.cell
def _(D, reward_S, task):
    policy = TablePolicy(task.vocab_size, max_length=task.max_length)  # all tokens are equally probable at first
    texts = generate_texts(policy, task, 64, 0)
    exact = task.exact_q(policy, reward_S)  # of every prefix and every token
    base_T = task.vocab_size ** torch.arange(task.max_length - 1, -1, -1)

    def exact_of(tokens_T):
        """Q of each token of a text, from the list of all prefixes."""
        prefix = [int((tokens_T[:p] * base_T[-p:]).sum()) if p else 0 for p in range(task.max_length)]
        return torch.stack([exact[p][prefix[p], tokens_T[p]] for p in range(task.max_length)])

    exact_BT = torch.stack([exact_of(tokens_T) for tokens_T in texts.tokens_BT])
    errors = {}
    for rollouts in (1, 4, 16, 64, 256):
        q_BT = RolloutCredit(policy, D, rollouts=rollouts).credit(texts, texts.mask_BT)
        errors[rollouts] = float((q_BT - exact_BT)[:, :-1].abs().mean())  # the last token needs no completion
        print(f"N = {rollouts:3d}   mean error of Q {errors[rollouts]:.4f}")
    return (errors,)


@app.cell
def _(errors):
    _figure = Figure(figsize=(6, 3.2), layout="constrained")
    _panel = _figure.subplots()
    _panel.loglog(list(errors), list(errors.values()), "o-", label="measured")
    _panel.loglog(list(errors), [errors[1] / n**0.5 for n in errors], ":", label="one over the root of N")
    _panel.set(xlabel="N, completions of each prefix", ylabel="mean error of Q")
    _panel.legend(frameon=False)
    _figure
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    Four times as many completions halve the error. Nothing else is gained by them.

    ## Following the reward, and learning from the texts

    Two policies learn now. The first sees real texts: **maximum likelihood**. The second sees D's reward only: tokens
    with a better Q than others at that place become more probable (REINFORCE).
    """)
    return


@app.cell
def _(task):
    likely = TablePolicy(task.vocab_size, max_length=task.max_length)
    _optimizer = torch.optim.Adam(likely.parameters(), lr=0.1)
    real_BT = task.split("train").tokens_BT
    for _ in range(200):
        _loss = -likely.log_prob(real_BT, torch.ones_like(real_BT, dtype=torch.bool)).sum(1).mean()
        _optimizer.zero_grad()
        _loss.backward()
        _optimizer.step()
    return (likely,)


@app.cell
def _(task):
    chaser = TablePolicy(task.vocab_size, max_length=task.max_length)
    _optimizer = torch.optim.Adam(chaser.parameters(), lr=0.1)
    envs = TextGANVectorEnv(64, task, reward="rollout", rollouts=4)
    envs.reset(seed=0)
    for _ in range(200):
        batch = envs.collect(chaser)
        advantage_BT = (batch.credit_BT - baseline("leave-one-out", batch.credit_BT, batch.mask_BT)) * batch.mask_BT
        _total, _count = policy_gradient_sum(
            chaser.log_prob(batch.tokens_BT, batch.mask_BT), advantage_BT, batch.mask_BT
        )
        _optimizer.zero_grad()
        (_total / _count).backward()
        _optimizer.step()
    return (chaser,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The exact law beside

    Each policy has a probability for each of the 256 texts, so two distances to the law can be computed exactly.
    **cover** is large where real texts are missed, **fit** is large where texts are written that are not real.
    """)
    return


@app.cell
def _(chaser, likely, reward_S, task):
    rows = {
        "random tokens": TablePolicy(task.vocab_size, max_length=task.max_length),
        "maximum likelihood": likely,
        "follows D": chaser,
        "the law itself": task.oracle,
    }
    print("                     expected R   cover     fit")
    for name, one in rows.items():
        with torch.no_grad():
            expected = float((task.text_log_prob(one).exp() * reward_S).sum())
        cover, fit = task.divergences(one)
        print(f"{name:20} {expected:10.3f} {cover:7.3f} {fit:7.3f}")
    return (rows,)


@app.cell
def _(law_S, rows, task):
    order = law_S.argsort(descending=True)[:40]
    _figure = Figure(figsize=(7, 4.2), layout="constrained")
    for _panel, _name in zip(_figure.subplots(2, 1, sharex=True), ("maximum likelihood", "follows D"), strict=True):
        _panel.bar(range(40), law_S[order], color="#b3b4b6", label="the law")
        with torch.no_grad():
            p_S = task.text_log_prob(rows[_name]).exp()
        _panel.plot(range(40), p_S[order], "o", markersize=4, label=_name)
        _panel.set(ylabel="probability")
        _panel.legend(frameon=False)
        favourite = int(p_S.argmax())
        place = int((law_S > law_S[favourite]).sum()) + 1
        text = task.texts_ST[favourite].tolist()
        print(f"{_name} writes {text} most, in {p_S.max():.0%} of its texts; under the law it is number {place}")
    _panel.set(xlabel="the 40 most probable texts")
    _figure
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    The policy that follows D has the higher reward, and it is farther from the law: it writes what D likes best, over
    and over. The reward is not the truth. That is why everything in this package stands beside maximum likelihood and
    beside a control.
    """)
    return


if __name__ == "__main__":
    app.run()
