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
# # 03 Ablation: does the learned alpha do anything that alpha = 1 does not?
#
# The Muscle loss differs from a sum of pairwise InfoNCE losses in one term, the weight of each negative tuple
#
# $$\log \alpha_j = -\sum_{m<k} \gamma\, z^m_{j_m} \cdot z^k_{j_k}, \qquad \gamma = 1/\tau^{(N-1)} - 1/\tau^{(N)} .$$
#
# With $\alpha = 1$ the loss *is* pairwise. So the two are run on the same seeds, and compared seed by seed.

# %% tags=["parameters"]
profile: str = "mini"  # "quick" (minutes, proves that it runs), "mini" (the committed numbers) or "paper" (real data; texts and scenes below stay those of the embedded world)
seeds: list = []  # empty: those of the profile
workers: int = 2  # processes, one run each

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from fedmuscle_core.analysis import beside_paper, plots, tables
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.profiles import profile_seeds
from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.experiments.statistics import delta, final_scores, mean_interval, relative_change, seeds_needed, verdict
from fedmuscle_core.paths import results

plots.use_style()
seeds = profile_seeds(profile, seeds)

# %% [markdown]
# ## The runs
#
# Local for reference, alpha = 1, and learned alpha: the runs of notebook 02, read from the store. Each method was tuned with the
# same budget; if the chosen learning rates differ, the comparison is of two tuned methods, not of alpha alone.

# %%
records, history = sweep(plans.setup1(profile, seeds), results(profile), workers)
used = {record["settings"]["method"]: record["settings"] for record in records}
print("same contrastive learning rate:", used["pairwise"]["contrastive_lr"] == used["fedmuscle"]["contrastive_lr"])
pd.DataFrame(used).loc[["num_peers", "batch_size", "tau", "tau_prev", "local_lr", "contrastive_lr", "rounds"]].fillna("-")

# %% [markdown]
# ## Delta, seed by seed
#
# One line a seed: does it rise from alpha = 1 to learned alpha? The right panel is the paired difference with its 95 % interval.

# %%
summary = delta(relative_change(final_scores(history)))
wide = summary.pivot(index="seed", columns="method", values="delta")[["pairwise", "fedmuscle"]]
wide["difference"] = wide["fedmuscle"] - wide["pairwise"]
wide.round(2)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2), width_ratios=[2, 1])
for seed, row in wide.iterrows():
    left.plot([0, 1], row[["pairwise", "fedmuscle"]], "o-", color="#9ca3af", markersize=4, linewidth=1)
left.set_xticks([0, 1], ["alpha = 1", "learned alpha"])
left.set_ylabel("Delta (%)")
left.set_title("One line a seed")
mean, low, high = mean_interval(wide["difference"])
right.errorbar([0], [mean], [[mean - low], [high - mean]], fmt="o", color=plots.colour_of("fedmuscle"), capsize=4)
right.axhline(0, color="k", linewidth=0.8)
right.set_xticks([])
right.set_ylabel("difference (points)")
right.set_title("Paired, 95 % CI")
plots.save_figure(fig, wide.reset_index(), "03_alpha_ablation", profile)

# %% [markdown]
# ## Client by client
#
# The same paired difference for each client's own test score, in points. Six intervals at 95 %: about one in four such tables
# has an interval that misses zero by chance.

# %%
scores = final_scores(history).pivot(index=["client", "task", "seed"], columns="method", values="value")
differences = (scores["fedmuscle"] - scores["pairwise"]).groupby(["client", "task"]).apply(mean_interval)
pd.DataFrame({"learned - uniform (points)": differences.map(tables.interval_text), "shown": differences.map(verdict)})

# %% [markdown]
# ## Is it alpha, or a temperature that does not suit alpha = 1?
#
# Above both use the paper's temperatures. In notebook 04 each method also has its temperature tuned, with the same budget. The
# temperatures that were chosen, and the same comparison with those runs:

# %%
tuned, again = sweep(plans.table1(profile, seeds[:plans.TABLE_SEEDS], ["single"], plans.FIRST_THREE), results(profile), workers)
print({record["settings"]["method"]: record["settings"]["tau"] for record in tuned if record["settings"]["method"] != "local"})
print(tables.delta_sentence(again, "fedmuscle", "pairwise"))

# %% [markdown]
# ## What the weights do to the representations
#
# Retrieval of the same scene between clients, after training, per seed. Alignment is what the loss asks for; whether it helps
# the tasks is a second question.

# %%
def retrieval_after(method):
    off_diagonal = ~np.eye(6, dtype=bool)
    return {record["settings"]["seed"]: np.asarray(record["alignment"]["after"]["retrieval"])[off_diagonal].mean()
            for record in records if record["settings"]["method"] == method}


retrieval = pd.DataFrame({method: retrieval_after(method) for method in ("local", "pairwise", "fedmuscle")})
difference = mean_interval(retrieval["fedmuscle"] - retrieval["pairwise"])
print(retrieval.mean().round(3).to_dict())
print(f"learned - uniform: {tables.interval_text(difference, 3)}: {verdict(difference)}")

# %% [markdown]
# ## Published, and ours
#
# The published numbers at hand hold no row for alpha = 1 alone, so there is nothing to put beside the difference. Published is
# that FedMuscle improves on local training. Notebook 01 shows, on Gaussians, what alpha corrects in the estimate of mutual information.

# %%
ours = {name: tables.delta_interval(history, name) for name in ("pairwise", "fedmuscle")}
paper = beside_paper.published_value(setup="setup1", public_data="pascal_voc", method="fedmuscle", quantity="delta")
pd.DataFrame([
    {"Delta (%)": "alpha = 1", "published": "not found", "ours, mean [95 % CI]": tables.interval_text(ours["pairwise"]),
     "seeds": len(seeds), "agrees?": "cannot be said"},
    {"Delta (%)": "learned alpha", "published": paper, "ours, mean [95 % CI]": tables.interval_text(ours["fedmuscle"]),
     "seeds": len(seeds), "agrees?": beside_paper.agreement(paper, ours["fedmuscle"])},
    {"Delta (%)": "learned - uniform (points)", "published": "not found",
     "ours, mean [95 % CI]": tables.mean_text(wide["difference"]), "seeds": len(seeds),
     "agrees?": "cannot be said"}])

# %%
print(tables.delta_sentence(history, "fedmuscle", "pairwise"))
print(f"To show a difference of 1 point with 80 % power, about {seeds_needed(wide['difference'], 1.0)} seeds are needed.")
