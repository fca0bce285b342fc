# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 Table 1: which of the aligning methods helps the six clients of Setup 1 most, and how much of that is tuning?
#
# [02](02_setup1.ipynb) tested claims about FedMuscle. Here is everybody the paper compares with and we could define, every method tuned with the
# same number of configurations, and beside it the same table at defaults. *SimCLR*: each client contrasts views of the public samples by itself.
# *CoFED*: clients vote on labels of public samples and learn those that enough agree on. *FedHeNN*: a client's local training is pulled towards
# the mean of all clients' kernels on public samples. *Gramian*: the volume that the representations of one sample span takes the place of the
# Muscle loss. *Pairwise*: alpha = 1, the sum of the losses of pairs.
#
# Every number comes from a stored run with its settings, seed and versions. `fedmuscle reproduce --profile mini --only 04 --force`
# computes all of them again, tuning included.

# %% tags=["parameters"]
profile: str = "mini"  # "quick" (minutes, proves that it runs), "mini" (the committed numbers) or "paper" (real data; texts and scenes below stay those of the embedded world)
seeds: list = []  # empty: the first ones of the predictions
workers: int = 2  # processes, one run each

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seeds", "workers")

# %%
import matplotlib.pyplot as plt
import pandas as pd

from fedmuscle_core.analysis import beside_paper, lessons, plots, tables
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.choices import chosen_table, tuning_table
from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.experiments.statistics import delta, final_scores, relative_change
from fedmuscle_core.methods import METHODS
from fedmuscle_core.paths import results
from fedmuscle_core.world.scenes import public_scenes

plots.use_style()
aligning = plans.tabled("embedded1")
others = [name for name in aligning if name not in ("local", "fedmuscle")]

# %% [markdown]
# ## The public data
#
# The paper uses Pascal VOC, COCO and CIFAR-100. Here: 5,000 scenes of one handwritten digit, without labels. Other domains: [08](08_public_domain.ipynb).

# %%
fig = plots.scene_grid(list(public_scenes("single", 512, 0)[:12]))

# %% [markdown]
# ## The runs
#
# Every method sees the same public batches in the same order, and as many of them, as far as its definition allows: CoFED reads the
# public set once to vote and once to train on it; FedHeNN once for its kernels, and once in its local steps.

# %%
records, history = sweep(plans.table1(profile, seeds), results(profile), workers)
print(f"{len(records)} runs, seeds {sorted(history['seed'].unique().tolist())}")

# %% [markdown]
# ## What each method exchanges, and what it asks for
#
# Bytes from the ledger of the runs: one client, up and down, mean over clients and rounds.

# %%
tables.exchange_table(history)

# %% [markdown]
# ## Test scores
#
# In percent, each client at its best validation round, mean over seeds [95 % Student-t interval].

# %%
tables.score_table(history).set_index(["client", "task", "metric"]).T

# %%
fig, drawn = plots.learning_curves(history)
plots.save_figure(fig, drawn, "04_table1_learning_curves", profile)

# %% [markdown]
# ## Who gains and who pays
#
# Relative change against Local on the same seed.

# %%
fig, drawn = plots.change_heatmap(relative_change(final_scores(history)))
plots.save_figure(fig, drawn, "04_table1_heatmap", profile)

# %% [markdown]
# ## Summaries that disagree on purpose
#
# *Delta*: the paper's mean over clients of the relative change of a score P,
#
# $$\Delta = \frac{100}{N} \sum_{n=1}^{N} \frac{P_n - P_n^{\text{Local}}}{P_n^{\text{Local}}}$$
#
# *IQM*: mean of the middle half of all (seed, client) changes, stratified bootstrap interval.
# *Log-odds*: mean over clients of the change in log-odds, the measure of the predictions. *Balanced gain*, our proposal for one fair
# number: the same over the worse half of the clients. It does not
# let a client that started at 5 % outvote one that started at 90 %, gives the same verdict for accuracy and for error, and cannot be bought
# by the winners. A method without any effect comes out slightly below 0, as noise picks the worse half.

# %%
tables.comparison_table(history, aligning)

# %% [markdown]
# Pairs of methods that the two summaries order differently:

# %%
tables.rank_disagreements(history, [name for name in aligning if name != "local"]).round(2)

# %% [markdown]
# ## FedMuscle against each other method, paired over seeds
#
# Differences on the same seed, 95 % Student-t intervals, not adjusted for their number. *Shown*: in log-odds; "no difference" says that
# there is none of 0.1, that is 2.5 points at 50 %, "too few seeds" that there might be. *Probability of improvement*: share of (seed,
# client) pairs in which FedMuscle scores higher.

# %%
tables.pairwise_table(history, "fedmuscle", others)

# %%
rows = tables.pairwise_differences(history, "fedmuscle", others)
fig = plots.forest_plot(rows, f"FedMuscle minus each method, paired over {tables.seeds_text(rows['seeds'].max())}, 95 % intervals")
plots.save_figure(fig, rows, "04_table1_forest", profile)

# %% [markdown]
# ## How much of a baseline's place hangs on two numbers?
#
# The methods that have a contrastive learning rate and a temperature, at the defaults of 0.001 and of the paper's 0.2 (two of the five seeds
# were added after three had shown no order); local
# phases as tuned for Local.

# %%
_, plain = sweep(plans.at_defaults(profile, seeds), results(profile), workers)
tables.comparison_table(plain, plans.LOSSES)

# %%
tables.pairwise_table(plain, "fedmuscle", [name for name in plans.LOSSES if name != "fedmuscle"])

# %%
published = beside_paper.published_deltas()
columns = {"published, foundation models": {method: published[method] for method in plans.LOSSES if method in published},
           "ours, at defaults": {method: tables.delta_interval(plain, method) for method in plans.LOSSES[1:]},
           "ours, tuned": {method: tables.delta_interval(history, method) for method in plans.LOSSES[1:]}}
lead, behind = (tables.delta_difference(runs, "fedmuscle", "simclr")[0] for runs in (plain, history))
fig, drawn = plots.slope_chart(columns, f"FedMuscle minus SimCLR: {lead:+.0f} points at defaults, {behind:+.0f} where both are tuned")
plots.save_figure(fig, drawn, "04_table1_order", profile)

# %% [markdown]
# Where the difference lies: mean change in log-odds on validation data over the same grid of rate and temperature; a configuration was tried on
# one to three tuning seeds, better ones on more.

# %%
tried, panels = tuning_table("embedded1"), ("simclr", "pairwise", "fedmuscle")
first = tried.astype({"score": float})
fig, axes = plt.subplots(1, len(panels), figsize=(10.5, 2.9), sharey=True, layout="constrained")
drawn = []
for ax, method in zip(axes, panels, strict=True):
    grid = first[first["method"] == method].pivot_table(index="contrastive_lr", columns="tau", values="score")
    plots.grid_heatmap(ax, grid.rename(index="{:.2g}".format), METHODS[method].label, 0.5, "tau", "contrastive learning rate" if ax is axes[0] else None, digits=2)
    drawn.append(grid.stack().rename("log-odds").reset_index().assign(method=method))
plots.save_figure(fig, pd.concat(drawn), "04_table1_rate_and_temperature", profile)

# %% [markdown]
# ## Tuning: twelve configurations a method
#
# On validation scenes, with seeds of its own: all twelve on the first, the better third on the second as well, the better two on the
# third; where the choice lies at an end of its grid, the next value is tried. First Local, whose learning rate and batch size all share.
# `score`: mean change in log-odds of the best validation score over rounds, against tuned Local (Local itself: against its defaults).

# %%
chosen_table("embedded1")

# %% [markdown]
# \* lies at an end of what was tried, after two extensions: a value beyond might be better still. *Constant margin* is a control of
# [03](03_alpha_ablation.ipynb).

# %% [markdown]
# ## Deviations from the paper
#
# - Embedded world, small backbones and our own rounds, rates and sizes: see [02](02_setup1.ipynb).
# - SAGE is in the published table; its definition could not be identified, so it is not implemented. FedProto-like prototypes are left
#   out: no source at hand defines them for clients of different tasks.
# - CoFED for multi-label clients votes label by label (our reading), starts in round 2 and trains on private and pseudo-labelled
#   samples in one batch. A client that is alone with its label space (client 6) gets its own votes back: it teaches itself.
# - FedHeNN's term is carried by as many local steps as there are public batches (by all, where a client makes fewer), spread evenly, on
#   unit-length representations.
# - SimCLR's augmentations are ours (rotation, zoom, shift, contrast, brightness), and are much like what tells one scene from another here.
#   The aligning methods see the public data as they are; *FedMuscle, own views* sees them as SimCLR does, every client through views of its
#   own. *SimCLR, equal samples* embeds as many samples as the aligning methods, in half as many steps as SimCLR.
#
# ## Published, and ours
#
# Published: Pascal VOC, foundation models, from secondary summaries. Ours: single digits as public data.

# %%
beside_paper.table1_beside(history, sorted(history["seed"].unique()))

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
gaps = {when: tables.delta_difference(runs, "fedmuscle", "simclr") for when, runs in (("tuned", history), ("at defaults", plain))}
turned = ": the order turned" if gaps["at defaults"][1] > 0 else ""
worst = delta(relative_change(final_scores(history))).query("method != 'local'").groupby("method")["worst"].mean()
worst = "; ".join(f"{METHODS[method].label} {value:+.0f}" for method, value in worst.sort_values(ascending=False).items())


def fedmuscle_against(other, runs, when):
    name = METHODS[other].label
    return lessons.says(tables.delta_difference(runs, "fedmuscle", other), f"{when} FedMuscle is above {name}", f"{when} FedMuscle is below {name}",
                        f"{when} no difference between FedMuscle and {name} is shown", "points of Delta")


lessons.learned(
    f"The order: {beside_paper.order_beside(history)}",
    lessons.says(gaps["at defaults"], "At the defaults FedMuscle is above SimCLR, as in the paper", "At the defaults SimCLR is above FedMuscle",
                 "At the defaults no difference between FedMuscle and SimCLR is shown",
                 "points; two of the five seeds were added after looking at three, so the interval is too narrow"),
    lessons.says(gaps["tuned"], "Where rate and temperature are chosen for both, FedMuscle is above SimCLR",
                 "Where rate and temperature are chosen for both with the same budget, SimCLR is above FedMuscle" + turned,
                 "Where rate and temperature are chosen for both, no difference is shown", "points"),
    lessons.says(tables.delta_difference(history, "fedmuscle_views", "simclr_samples"), "With views of its own FedMuscle is above SimCLR at equal samples",
                 "With views of its own FedMuscle is below SimCLR at equal samples",
                 "With views of its own no difference of FedMuscle's Delta to that of SimCLR at equal samples is shown", "points"),
    lessons.says(tables.delta_difference(history, "fedmuscle_views", "simclr"), "With views of its own FedMuscle is above SimCLR with as many steps",
                 "With views of its own FedMuscle is below SimCLR with as many steps",
                 "With views of its own no difference of FedMuscle's Delta to that of SimCLR with as many steps is shown", "points"),
    *(fedmuscle_against(other, history, "As tuned,") for other in others if not other.startswith("simclr")),
    *(fedmuscle_against(other, plain, "At defaults,") for other in ("gramian", "pairwise")),
    f"The worst client of a federation, mean over seeds, in percent: {worst}.",
    tables.who_pays(history, "fedmuscle"))

# %% [markdown]
# ## What to try next
#
# Next: [05](05_table2.ipynb) is the same for images and texts; [08](08_public_domain.ipynb) has other public data;
# [15](15_real_photos.ipynb) has photographs and networks that others pretrained.
#
# **Exercise.** Fix the temperature of all at the paper's 0.2 and choose the rate alone. Who loses most on validation data?
#
# <details><summary>Solution</summary>
#
# ```python
# usual = first[first["tau"] == 0.2].groupby("method")["score"].max()
# pd.DataFrame({"tau = 0.2": usual, "tau chosen": first.groupby("method")["score"].max()}).dropna().assign(
#     loses=lambda table: table["tau chosen"] - table["tau = 0.2"]).round(2)
# ```
#
# </details>
