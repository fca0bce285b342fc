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
# # 06 Three losses for the same exchange, and one without: what do they do to the representations, and does better aligned mean better taught?
#
# Muscle, pairwise (alpha = 1) and Gramian exchange representations of the same public batches; SimCLR gets the same batches, augments
# them, and has no peers. Each runs with the learning rate and temperature tuned for it. Here is what each leaves behind: alignment,
# uniformity, retrieval between clients, similarity of their kernels, and the time of a step.

# %% tags=["parameters"]
profile: str = "mini"  # "quick" (minutes, proves that it runs) or "mini" (the committed numbers)
seeds: list = []  # empty: the first ones of the predictions
workers: int = 2  # processes, one run each

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seeds", "workers")

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd

from fedmuscle_core.alignment import summaries
from fedmuscle_core.analysis import beside_paper, lessons, plots, tables
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.experiments.statistics import delta, final_scores, mean_interval, relative_change, verdict
from fedmuscle_core.methods import METHODS
from fedmuscle_core.paths import DATA, results

plots.use_style()

# %% [markdown]
# ## The losses, on representations that can be looked at
#
# Of anchor $z_i$ and the peers' $z_j^m$, all of unit length, in nats, $\alpha_j$ from tau_prev as in [01](01_muscle_loss.ipynb):
#
# $$L_i^{\text{Muscle}} = \log \sum_{j_1 \ldots j_M} \alpha_j \, e^{\sum_m z_i \cdot z_{j_m}^m / \tau} - \log \alpha_{(i \ldots i)} - \sum_m z_i \cdot z_i^m / \tau$$
#
# Pairwise is the same with $\alpha = 1$. Gramian contrasts the volume $V_{ij}$ that the anchor spans with the peers' samples $j$:
#
# $$L_i^{\text{Gramian}} = \tfrac12 \Big[ \log \sum_j e^{(V_{ii} - V_{ij}) / \tau} + \log \sum_j e^{(V_{ii} - V_{ji}) / \tau} \Big]$$
#
# $$V_{ij} = \sqrt{\det \operatorname{Gram}(z_i, z_j^1, \ldots, z_j^M) + \varepsilon}$$
#
# SimCLR has two views $a, a'$ of every sample by one client, and contrasts each with all $2B - 1$ other views $b$:
#
# $$L_a^{\text{SimCLR}} = \log \sum_{b \ne a} e^{z_a \cdot z_b / \tau} - z_a \cdot z_{a'} / \tau$$
#
# Three samples, each on an axis of its own; an anchor and two peers. A peer is *off* where its rows belong to other samples. Each loss in
# nats: low when the anchor finds its own tuple; SimCLR, which has no peers, takes the first one for its second view. `opposed`: as the case before it, with all signs of the peers turned.

# %%
import torch

from fedmuscle_core import gramian_loss, muscle_loss, nt_xent

own = torch.eye(4)[:3]
off, elsewhere = own.roll(1, 0), own.roll(2, 0)
cases = {"peers agree": [own, own], "both off, alike": [off, off], "both off, apart": [off, elsewhere],
         "one is off": [own, off], "opposed": [-own, -off]}
pd.DataFrame({name: {"Muscle": muscle_loss(own, peers).item(), "Pairwise": muscle_loss(own, peers, weighting="uniform").item(),
                     "Gramian": gramian_loss(own, peers).item(), "SimCLR": nt_xent(own, peers[0]).item()} for name, peers in cases.items()}).round(3)

# %% [markdown]
# Two things about a volume. It does not see signs: the last two columns are one to the Gramian loss. And where two peers agree exactly
# it is zero whatever the anchor does: the Gramian loss is log 3 for the right peers and for the wrong ones alike.

# %% [markdown]
# ## The runs
#
# Setup 1, single digits as public data, each loss tuned ([04](04_table1.ipynb)). 256 held-out scenes of test handwriting are embedded by
# every client before the first round and after the last.

# %%
records, history = sweep(plans.notebook_06(profile, seeds), results(profile), workers)
measured = pd.concat([summaries(record["alignment"][when]).assign(
    method=record["settings"]["method"], seed=record["settings"]["seed"], when=when)
    for record in records if record["settings"]["method"] != "local" for when in ("before", "after")], ignore_index=True)
chosen = pd.DataFrame([{**record["settings"], "method": METHODS[record["settings"]["method"]].label} for record in records])
used = sorted({record["settings"]["seed"] for record in records})
print(len(records), "runs, seeds", used)
chosen.drop_duplicates("method").set_index("method")[["contrastive_lr", "tau", "tau_prev", "local_lr"]].astype(object).fillna("-")

# %% [markdown]
# ## Four measures
#
# - *distance* (Wang and Isola's alignment): mean squared distance between two clients' unit-length representations of the same
#   scene; 0 is aligned.
# - *uniformity*: log of the mean Gaussian potential within a client; lower is more spread over the sphere.
# - *retrieval*: how often the nearest representation of another client is the same scene; chance is 1/256.
# - *CKA*: similarity of two clients' kernels, blind to rotation.

# %%
order = [method for method in plans.LOSSES if method != "local"]
after = measured.query("when == 'after'").groupby(["method", "measure"])["value"].apply(tables.mean_text, 3, signed=False)
before = measured.query("when == 'before' and method == 'fedmuscle'").groupby("measure")["value"].apply(tables.mean_text, 3, signed=False)
pd.concat([before.to_frame("before training").T, after.unstack().loc[order].rename(index=lambda name: METHODS[name].label)])

# %%
rows = [("before training", "simclr", "before"), *((f"after, {METHODS[method].label}", method, "after") for method in order)]
means = measured.set_index(["measure", "method", "when"])["value"].sort_index()
drawn = pd.DataFrame([(measure, label, None if when == "before" else method, *mean_interval(means.loc[[(measure, method, when)]])) for measure in ("retrieval", "cka")
                      for label, method, when in rows], columns=["measure", "label", "method", "mean", "low", "high"])
found = drawn[drawn["measure"] == "retrieval"].set_index("label")["mean"]
fig = plots.measure_dots(drawn, "Same scene found in another client's space: " + ", ".join(f"{label.removeprefix('after, ')} {share:.0%}" for label, share in found.items()))
plots.save_figure(fig, drawn, "06_loss_comparison_alignment", profile)

# %% [markdown]
# ## Is better aligned better taught?
#
# One point a run: retrieval between clients after training against Delta.

# %%
found = measured.query("when == 'after' and measure == 'retrieval'").set_index(["method", "seed"])["value"].rename("retrieval")
points = delta(relative_change(final_scores(history))).join(found, on=["method", "seed"]).query("method != 'local'")
fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for method in order:
    here = points[points["method"] == method]
    ax.scatter(here["retrieval"], here["delta"], color=plots.colour_of(method), label=METHODS[method].label)
ax.set_xlabel("retrieval between clients after training")
ax.set_ylabel("Delta (%)")
best = {measure: points.groupby("method")[measure].mean().idxmax() for measure in ("retrieval", "delta")}
ax.set_title(f"{METHODS[best['retrieval']].label} retrieves most, {METHODS[best['delta']].label} gains most\n(one point a run)")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plots.save_figure(fig, points, "06_loss_comparison_points", profile)

# %%
wide = points.pivot(index="seed", columns="method", values=["retrieval", "delta"])
for measure, unit, digits in (("retrieval", "", 3), ("delta", " points", 1)):
    for other in [method for method in order if method != "fedmuscle"]:
        difference = mean_interval(wide[measure]["fedmuscle"] - wide[measure][other])
        print(f"{measure:9}: FedMuscle - {METHODS[other].label}: {tables.interval_text(difference, digits)}{unit}: {verdict(difference)}")

# %% [markdown]
# ## Time per step
#
# Forward and backward pass of the loss alone, B = 32, d = 256, M = 3, one core, losses taking turns in one process
# (`python -m fedmuscle_core.benchmarks.method_losses`). SimCLR also embeds every batch twice, which is not in this number.

# %%
timing = json.loads((DATA / "results" / "benchmark_method_losses.json").read_text())["milliseconds"]
pd.DataFrame({METHODS[name].label: {"ms per loss": value, "times pairwise": round(value / timing["pairwise"], 2)}
              for name, value in timing.items()}).T

# %% [markdown]
# ## Deviations from the paper
#
# As in [04](04_table1.ipynb). The Gramian loss is the published GRAM loss with its volume's root kept away from 0 (eps = 1e-6); its
# temperature is tuned like the others'.

# %% [markdown]
# ## Published, and ours
#
# Published is Muscle's gain over Gramian on three public data sets (relative or in points: not stated in our source). Ours: difference of
# Delta, paired over seeds.

# %%
beside_paper.loss_gains_beside({"single": history}, ["single"])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
def against(measure, other):
    return mean_interval(wide[measure]["fedmuscle"] - wide[measure][other])


lessons.learned(
    lessons.says(against("retrieval", "simclr"), f"With FedMuscle a client finds the same scene in another's space more often, in {wide['retrieval']['fedmuscle'].mean():.0%} of cases, "
                 "than with SimCLR, which exchanges nothing", "With SimCLR, which exchanges nothing, a client finds the same scene in another's space more often",
                 "No difference of retrieval to SimCLR, which exchanges nothing, is shown", "of retrieval", 3),
    lessons.says(against("delta", "simclr"), "FedMuscle's clients also gain more", "Yet they gain less than SimCLR's: here the better aligned are not the better taught",
                 "Which of them gains more is not shown", "points of Delta"),
    lessons.says(against("retrieval", "pairwise"), "Each at its own temperature, FedMuscle retrieves more scenes than the sum of pairs",
                 "Each at its own temperature, FedMuscle retrieves fewer scenes than the sum of pairs",
                 "Each at its own temperature, no difference of retrieval to the sum of pairs is shown", "of retrieval", 3),
    *(lessons.says(against(measure, "gramian"), f"FedMuscle's {what} is above that of the Gramian loss", f"FedMuscle's {what} is below that of the Gramian loss",
                   f"Between FedMuscle's {what} and that of the Gramian loss no difference is shown, where the paper sees a gain", unit, digits)
      for measure, what, unit, digits in (("delta", "Delta", "points", 1), ("retrieval", "retrieval", "of retrieval", 3))),
    f"On one core the Muscle loss of a batch takes {timing['fedmuscle'] / timing['pairwise']:.1f} times the sum of pairs.")

# %% [markdown]
# ## What to try next
#
# Next: [11](11_mutual_information.ipynb) asks whether a larger bound goes with a larger gain; [01](01_muscle_loss.ipynb) has the equations.
#
# **Exercise.** A volume does not see signs. What do the losses say of peers of which one is turned around, `[-own, off]` instead of `[own, off]`?
#
# <details><summary>Solution</summary>
#
# ```python
# for peers in ([own, off], [-own, off]):
#     print([round(loss.item(), 2) for loss in (gramian_loss(own, peers), muscle_loss(own, peers), muscle_loss(own, peers, weighting="uniform"))])
# ```
#
# The Gramian loss takes an opposed peer for an agreeing one; the other two more than double.
#
# </details>
