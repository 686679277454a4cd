"""Your own text: a file, a look at it, maximum likelihood, SeqGAN from there, texts, and a page to show."""

import marimo

__generated_with = "0.25.2"

app = marimo.App()

with app.setup:
    import itertools
    from pathlib import Path

    import marimo as mo
    from matplotlib.figure import Figure
    from textgan_env.agents.cli import main

    import textgan_env
    from textgan_env.runs.logs import read_metrics


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Your own text

    Put your text, **one text a line**, into a file `my.txt` in the folder where you start this notebook. Where there is
    none, the first cell writes one of 640 small sentences, so that you can see it run.
    """)
    return


@app.cell
def _():
    print(f"textgan_env {textgan_env.__version__}")
    file = Path("my.txt")
    if not file.exists():
        subjects = ["the cat", "the dog", "a fox", "a cow", "the old man", "a small child", "my sister", "the king"]
        verbs = ["sees", "hears", "follows", "likes", "finds"]
        places = ["in the garden", "near the river", "at night", "after the rain"]
        kept = [" ".join(words) + " ." for words in itertools.product(subjects, verbs, subjects, places)]
        file.write_text("\n".join(kept[::2]) + "\n", encoding="utf-8")
    return (file,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Look before you train

    `main` is the command `textgan`: these are the words that you would type. `data inspect` says what training would
    make of the file.
    """)
    return


@app.cell
def _(file):
    main(["data", "inspect", str(file)])
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Maximum likelihood

    The policy learns to find the real texts probable. This is where every agent begins, and what each must beat.
    Everything is small here, so that it takes seconds: leave `SMALL` out for a real run.
    """)
    return


@app.cell
def _(file):
    RUNS = "runs/own-text"
    SMALL = "--preset smoke --embed-size 32 --hidden-size 32 --show-samples 2 --threads 1"
    main(f"train mle --corpus {file} {SMALL} --batch-size 32 --epochs 15 --runs {RUNS}".split())
    mle = max(Path(RUNS).glob("mle-*"), key=lambda run: run.stat().st_mtime)
    return RUNS, SMALL, mle


@app.cell
def _(mle):
    rows = [row for row in read_metrics(mle) if "nll_valid" in row]
    _figure = Figure(figsize=(6, 3.2), layout="constrained")
    _panel = _figure.subplots()
    _panel.plot([row["step"] for row in rows], [row["loss"] for row in rows], label="texts it learns from")
    _panel.plot([row["step"] for row in rows], [row["nll_valid"] for row in rows], label="held-out texts")
    _panel.set(xlabel="passes over the text", ylabel="nats per token")
    _panel.legend(frameon=False)
    _figure
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    Both lines fall while it learns the language of the file. Where the second rises again, it has begun to learn the
    texts by heart.

    ## SeqGAN, and its control

    SeqGAN goes on from there: a discriminator's score is the reward. Its **control** does the same with the rewards
    dealt out to the wrong texts. What the first gains and the second does not, comes from the discriminator.
    """)
    return


@app.cell
def _(RUNS, SMALL, file, mle):
    again = f"train seqgan --corpus {file} --pretrained {mle} {SMALL} --runs {RUNS}".split()
    main([*again, "--name", "seqgan"])
    main([*again, "--control", "shuffled", "--name", "seqgan-shuffled"])
    newest = sorted(Path(RUNS).glob("seqgan-*"), key=lambda run: run.stat().st_mtime)
    seqgan, control = newest[-2:]
    return control, seqgan


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Texts, and a page

    `textgan_env.load` takes a run up again. `report` writes one HTML file of all three runs: watch them write, token
    by token.
    """)
    return


@app.cell
def _(seqgan):
    for text in textgan_env.load(seqgan).sample(8, temperature=0.8):
        print(text)
    return


@app.cell
def _(control, mle, seqgan):
    main(["report", str(seqgan), str(control), str(mle), "--texts", "2", "--rollouts", "4", "--out", "page.html"])
    return


if __name__ == "__main__":
    app.run()
