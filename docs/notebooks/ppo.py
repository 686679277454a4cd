"""PPO of Stable-Baselines3 on the environment, with a discriminator that stands still and with one that learns."""

import marimo

__generated_with = "0.25.2"

app = marimo.App()

with app.setup:
    import gymnasium as gym
    import marimo as mo
    import torch
    from matplotlib.figure import Figure
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    import textgan_env
    from textgan_env.discriminators import score_logits
    from textgan_env.envs import default_discriminator
    from textgan_env.envs.sb3 import SB3RolloutPolicy, SB3VecEnv, TokenExtractor
    from textgan_env.envs.wrappers import DiscriminatorVectorTraining
    from textgan_env.tasks import ToyTask


@app.cell(hide_code=True)
def _():
    mo.md("""
    # PPO on text

    To [Stable-Baselines3](https://stable-baselines3.readthedocs.io) writing a text is a game like any other: the
    observation is the text so far, the action is the next token, and the reward comes at the end. We let its PPO play
    on the toy task, whose 256 texts can all be listed. So after each update we know exactly how good the policy is.
    """)
    return


@app.cell
def _():
    print(f"textgan_env {textgan_env.__version__}")
    task = ToyTask(seed=5)
    D = default_discriminator(task, seed=0)
    reward_S = score_logits(D, task.texts_ST).sigmoid()
    best = int(reward_S.argmax())
    print(f"D likes the text {task.texts_ST[best].tolist()} best: R = {reward_S[best]:.3f}")
    return reward_S, task


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## A model and what is watched

    `SB3VecEnv` makes our vector environment one of SB3's. `TokenExtractor` reads the prefix with an embedding and an
    LSTM: without it SB3 would take token ids for quantities. The reward comes with the last token, so gamma is 1.
    """)
    return


@app.cell
def _(reward_S, task):
    class Watch(BaseCallback):
        """Keeps the expected reward, cover and fit of the policy before each collection, all exact."""

        def __init__(self):
            super().__init__()
            self.rows = []

        def _on_rollout_start(self):
            policy = SB3RolloutPolicy(self.model)
            with torch.no_grad():
                expected = float((task.text_log_prob(policy).exp() * reward_S).sum())
            self.rows.append((self.num_timesteps, expected, *task.divergences(policy)))

        def _on_step(self):
            return True

    def train(envs, steps):
        """Let PPO learn for some tokens; returns what was watched."""
        network = {"features_extractor_class": TokenExtractor, "share_features_extractor": False, "net_arch": []}
        model = PPO(
            "MultiInputPolicy", SB3VecEnv(envs), n_steps=16, batch_size=64, gamma=1.0, policy_kwargs=network, seed=0
        )
        watch = Watch()
        model.learn(steps, callback=watch)
        return watch.rows

    return (train,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Two games

    In the first D stands still. In the second it learns along: after every 256 texts it is fitted again, to tell
    real texts from what the policy writes by then. Nothing else differs.
    """)
    return


@app.cell
def _(task, train):
    still = train(gym.make_vec("TextGAN/Toy-v0", num_envs=16, task=task, transform="logit"), 9_000)
    return (still,)


@app.cell
def _(task, train):
    envs = gym.make_vec("TextGAN/Toy-v0", num_envs=16, task=task, transform="logit")
    learning = train(DiscriminatorVectorTraining(envs, every=256), 9_000)
    return (learning,)


@app.cell
def _(learning, still):
    print("                    expected R of the first D   cover     fit")
    for name, rows in (("before", still[:1]), ("D stands still", still), ("D learns along", learning)):
        _, expected, cover, fit = rows[-1]
        print(f"{name:20} {expected:24.3f} {cover:7.3f} {fit:7.3f}")
    return


@app.cell
def _(learning, still):
    _figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    for _panel, _at, _title in zip(
        _figure.subplots(1, 2), (1, 2), ("expected reward of the first D", "cover: what is missed"), strict=True
    ):
        for _name, _rows in (("D stands still", still), ("D learns along", learning)):
            _panel.plot([row[0] for row in _rows], [row[_at] for row in _rows], label=_name)
        _panel.set(title=_title, xlabel="tokens")
        _panel.legend(frameon=False)
    _figure
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    Against a D that stands still PPO climbs towards the best text, and misses more and more of the others. A D that
    learns along takes the reward away from what is written too often, so the policy keeps more of the texts. Yet it
    moves away from the law, too: compare the last line with the first. Maximum likelihood, which reads the real texts,
    moves towards it (the notebook on the ideas).

    ## The same on SeqGAN's task

    `TextGAN-v0` has texts of 20 tokens out of 5,000. The lines are the same; to learn something takes longer than a
    notebook should, so here are only the first texts.
    """)
    return


@app.cell
def _():
    large = SB3VecEnv(gym.make_vec("TextGAN-v0", num_envs=8))
    _network = {"features_extractor_class": TokenExtractor, "share_features_extractor": False, "net_arch": []}
    _model = PPO(
        "MultiInputPolicy", large, n_steps=20, batch_size=80, n_epochs=2, gamma=1.0, policy_kwargs=_network, seed=0
    )
    _model.learn(160)
    print(f"{_model.num_timesteps} tokens of {large.get_attr('task')[0].vocab_size:,} written and learnt from")
    return


if __name__ == "__main__":
    app.run()
