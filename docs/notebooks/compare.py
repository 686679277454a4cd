"""Comparing runs: a table with intervals, a verdict, and why a control stands beside."""

import marimo

__generated_with = "0.25.2"

app = marimo.App()

with app.setup:
    from pathlib import Path

    import marimo as mo
    from matplotlib.figure import Figure
    from textgan_env.agents.cli import main

    import textgan_env
    from textgan_env.show.compare import compare_runs
    from textgan_env.show.tables import csv_table, text_table


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Comparing two runs

    Is this run better than that one? `textgan compare` answers with a table, with an interval for each difference,
    and with one sentence: **gain**, **no gain** or **worse**. Here it is asked three times.
    """)
    return


@app.cell
def _():
    print(f"textgan_env {textgan_env.__version__}")
    RUNS = "runs/compare"

    def train(words, name):
        """Train on the toy task, whose law is known; returns the run folder."""
        small = "--task toy --preset smoke --embed-size 16 --hidden-size 16 --eval-samples 2000 --show-samples 0"
        main(["train", *words.split(), *small.split(), "--threads", "1", "--name", name, "--runs", RUNS])
        return max(Path(RUNS).glob(f"{name}-[0-9]*"), key=lambda run: run.stat().st_mtime)

    return (train,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## More training

    The same agent, with one pass over the texts and with twenty. On this task the law of the texts is known, so the
    exact distances to it decide: **cover** (what is missed) and **fit** (what is written and is not real).
    """)
    return


@app.cell
def _(train):
    short = train("mle --batch-size 32 --epochs 1", "short")
    long = train("mle --batch-size 32 --epochs 20", "long")
    return long, short


@app.cell
def _(long, short):
    DECIDE = ("nll_test", "cover", "fit", "unique")
    more_training = compare_runs([short, long])
    print(text_table(more_training.only(DECIDE)))
    return DECIDE, more_training


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## SeqGAN, and its control

    Now SeqGAN, which began with the longer run, and the same with the rewards dealt out to the wrong texts.
    """)
    return


@app.cell
def _(long, train):
    seqgan = train(f"seqgan --pretrained {long}", "seqgan")
    control = train(f"seqgan --pretrained {long} --control shuffled", "seqgan-shuffled")
    return control, seqgan


@app.cell
def _(DECIDE, control, long, seqgan):
    adversarial = compare_runs([long, seqgan, control])
    print(text_table(adversarial.only(DECIDE)))
    return (adversarial,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The differences as a picture

    A line that does not cross 0 is a difference that other texts of the same run would show, too. That says nothing of
    its size: look at both. And other seeds can differ by more: from three seeds on, give all runs to `compare`, and
    the intervals are over the seeds.
    """)
    return


@app.cell
def _(adversarial, more_training):
    _figure = Figure(figsize=(7, 3), layout="constrained")
    for _panel, _name in zip(_figure.subplots(1, 2), ("cover", "fit"), strict=True):
        for _at, _one in enumerate((*more_training.differences, *adversarial.differences)):
            _row = next(row for row in _one.rows if row.name == _name)
            _panel.plot(_row.ends, (_at, _at), linewidth=3)
            _panel.plot(_row.difference, _at, "ko", markersize=5)
        _panel.set(
            yticks=(0, 1, 2), yticklabels=("long", "seqgan", "shuffled"), title=f"{_name}: change, nats per token"
        )
        _panel.axvline(0, color="grey", linewidth=1)
        _panel.margins(y=0.3)
    _figure
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## For a paper

    The same comparison as CSV (or LaTeX, or a page: `textgan compare RUN RUN --latex`).
    """)
    return


@app.cell
def _(DECIDE, adversarial):
    print(csv_table(adversarial.only(DECIDE[:1])))
    return


if __name__ == "__main__":
    app.run()
