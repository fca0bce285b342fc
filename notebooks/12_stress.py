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
# # 12 Other modalities, other models, more clients: where does it break, and what does it cost?
#
# Text clients among image clients or among themselves; six clients with one architecture, two, or five; then twelve clients; the cost of a
# round with up to 24, and what it takes when their networks do not fit in memory together.
#
# Differences are between gains: FedMuscle with a value against Local with the same value. A lower gain may go with higher scores.
#
# A run is compared with Local on the same seed, $P_n$ the test score of client n: the paper's Delta, in percent, and the change in log-odds,
# in which a client near zero does not dominate (0.1 is 2.5 points at 50 %),
#
# $$\Delta = \frac{100}{N} \sum_{n=1}^{N} \frac{P_n - P_n^{\text{Local}}}{P_n^{\text{Local}}}, \qquad
# \ell = \frac1N \sum_{n=1}^{N} \left[\operatorname{logit} P_n - \operatorname{logit} P_n^{\text{Local}}\right] .$$
#
# Intervals in this notebook are 95 % Student-t over seeds and not adjusted for their number: if nothing differed, about one in
# twenty would still exclude 0.

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
import numpy as np
import pandas as pd

from fedmuscle_core.analysis import beside_paper, effects, lessons, plots, tables
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.runs import sweep_groups
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.statistics import final_scores, mean_interval
from fedmuscle_core.paths import DATA, results

plots.use_style()
print(len(set(plans.notebook_12(profile, seeds))), "runs are behind this notebook")

# %% [markdown]
# ## Who learns from whom: modalities
#
# `one_text`: a text client (TC10) among the six image clients of Setup 1; `texts_only`: four text clients; `images_only`: Setup 1
# on the images of the same pairs; `embedded2`: both, and two segmentation clients. Change of each kind of client against its own
# Local, in percent.

# %%
modality = sweep_groups(ablations.by_setup(profile, ablations.MODALITIES, seeds), results(profile), workers)
changes = effects.client_changes(modality)
names = {"ss": "segmentation", "tc10": "text", "tcleft": "text"}
kinds = changes["task"].map(lambda task: names.get(task, "clients 1 to 6")).rename("clients")
by_kind = changes.groupby(["value", kinds, "seed"])["change"].mean().groupby(["value", "clients"]).apply(mean_interval)
by_kind.map(tables.interval_text).unstack().astype(object).fillna("-")

# %% [markdown]
# ## One architecture, two, five
#
# The same tasks and data; `embedded1` is Setup 1 with its five architectures; `one_kind`: all have `resnet_medium`, `two_kinds`: it and
# `vit_medium` in turn. Delta is against Local with the same architecture, and Local differs, too: its mean test score stands beside. Rates
# and temperatures are those tuned for the five.

# %%
built = sweep_groups(ablations.by_setup(profile, ablations.KINDS, seeds), results(profile), workers)
kinds = effects.measure(built)
effects.effect_table(kinds, ablations.MAIN, "architectures")

# %%
alone = {setup: final_scores(history).groupby("seed")["value"].mean() for (setup, method), (_, history) in built.items()
         if method == "local"}
pd.Series({setup: tables.mean_text(scores, signed=False) for setup, scores in alone.items()},
          name="Local: mean test score over clients (%)").to_frame()

# %% [markdown]
# ## More clients: Delta and alignment
#
# Setup 1 once and twice, every client with private data of its own, M = 3; of 24 clients the cost alone, below.

# %%
many = sweep_groups(ablations.by_size(profile, seeds), results(profile), workers)
sizes = effects.measure(many)
effects.effect_table(sizes, ablations.MAIN, "clients")

# %%
def retrieval(record):
    matrix = np.array(record["alignment"]["after"]["retrieval"])
    return matrix[~np.eye(len(matrix), dtype=bool)].mean()


pd.DataFrame([{"clients": len(SETUPS[setup].clients), "retrieval between clients after training":
               tables.mean_text([retrieval(record) for record in records], 3, signed=False)}
              for (setup, method), (records, _) in many.items() if method == "fedmuscle"])

# %% [markdown]
# ## More clients: cost
#
# `python -m fedmuscle_core.benchmarks.clients`: one round, one core. `parked`: the networks wait in files, one in memory at a
# time, which needs uploads once a round instead of once a batch. Bytes a client do not depend on the number of clients, as M does
# not. Private scenes stay in memory in all three ways.

# %%
cost = pd.DataFrame(json.loads((DATA / "results" / "benchmark_clients.json").read_text())["rows"])
cost["way"] = "uploads every " + cost["refresh"] + cost["parked"].map({True: ", parked", False: ""})
wide = cost.pivot(index="clients", columns="way", values=["seconds", "extra_MiB"])
print("KiB a client and round, whatever the number of clients:", ", ".join(
    f"{way} {' or '.join(f'{value:,.0f}' for value in sorted(set(rows)))}" for way, rows in cost.groupby("way")["KiB_per_client"]))
for clients, row in wide["extra_MiB"].iterrows():
    print(f"{clients} clients: parked {row['uploads every round, parked'] / row['uploads every round'] - 1:+.0%} memory beyond the process")
wide.round(1)

# %%
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for ax, (column, title) in zip(axes, (("seconds", "Time of a round (s)"), ("extra_MiB", "Memory beyond the process (MiB)")), strict=False):
    for way, rows in cost.groupby("way"):
        ax.plot(rows["clients"], rows[column], "o-", markersize=4, label=way)
    ax.set(title=title, xlabel="clients", ylim=(0, None))
axes[1].legend()
numbers = sizes.assign(value=sizes["value"].map(lambda setup: len(SETUPS[setup].clients)))
drawn = plots.value_curves(axes[2], numbers)
axes[2].set(title=f"FedMuscle: Delta (%), {tables.seeds_text(sizes['seed'].nunique())}, 95 %", xlabel="clients")
plots.save_figure(fig, pd.concat({"cost": cost, "delta": drawn}, names=["panel", "row"]).reset_index(), "12_stress", profile)

# %% [markdown]
# ## Deviations from the paper
#
# All of these are our experiments. The paper's largest federation, with CreamFL, has 35 clients; its cost per round was not
# found. (CreamFL: federated learning between clients with images, with texts and with both, over representations of public pairs.)

# %% [markdown]
# ## Published, and ours

# %%
paper = beside_paper.published_value(setup="setup1", public_data="pascal_voc", method="fedmuscle", quantity="delta")
pd.DataFrame([{"Delta (%)": f"{len(SETUPS[setup].clients)} clients", "published": paper if setup == ablations.MAIN else "not found",
               "ours [95 % CI]": tables.mean_text(rows["delta"]),
               "agrees?": beside_paper.agreement(paper, mean_interval(rows["delta"])) if setup == ablations.MAIN else "cannot be said"}
              for setup, rows in sizes.groupby("value", sort=False)])

# %% tags=["hide-input"]
by_seed = changes.assign(clients=changes["task"].map(lambda task: names.get(task, "clients 1 to 6"))).groupby(
    ["value", "clients", "seed"])["log_odds"].mean()


def company(kind, with_others, alone):
    """Change in log-odds of a kind of client where others join."""
    if not {(with_others, kind), (alone, kind)} <= {*by_seed.index.droplevel("seed")}:
        return None
    return mean_interval(by_seed[with_others, kind] - by_seed[alone, kind])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
parked = wide.loc[wide.index.max()]
time_ratio, memory_ratio = (parked[measure, "uploads every round, parked"] / parked[measure, "uploads every round"] for measure in ("seconds", "extra_MiB"))
COMPANY = {"one_text": "Texts, one client among six with images,", "texts_only": "Texts, four clients among themselves,",
           "embedded2": "Texts, two clients among eight with images,"}
own = {setup: mean_interval(rows["log_odds"]) for setup, rows in kinds.groupby("value", sort=False)}
lessons.learned(
    *(lessons.says(own[setup], f"Over their own Local, with {architectures}, the clients gain", f"Over their own Local, with {architectures}, the clients lose",
                   f"Over their own Local, with {architectures}, no gain is shown", "in log-odds", 2)
      for setup, architectures in (("one_kind", "one architecture"), ("two_kinds", "two architectures"), (ablations.MAIN, "five architectures")) if setup in own),
    lessons.says(effects.between(kinds, "one_kind", ablations.MAIN), "The difference of one architecture to five is an advantage",
                 "The difference of one architecture to five is a disadvantage; why was not tested",
                 "One architecture against five: no difference shown", "in log-odds", 2),
    lessons.says(effects.between(sizes, "clients12", ablations.MAIN), "Twelve clients gain more than six", "Twelve clients gain less than six",
                 "Twelve clients against six: no difference shown", "in log-odds", 2),
    *(lessons.says(interval, f"{COMPANY[setup]} gain", f"{COMPANY[setup]} lose", f"{COMPANY[setup]}: no gain shown", "% over their own Local")
      for (setup, kind), interval in by_kind.items() if kind == "text"),
    lessons.says(company("clients 1 to 6", "one_text", "images_only"), "The six image clients gain more where one reads captions", "The six image clients gain less where one reads captions",
                 "The six image clients, with or without one that reads captions: no difference shown", "in log-odds", 2),
    lessons.says(company("text", "embedded2", "texts_only"), "Text clients gain more among image clients than among themselves",
                 "Text clients gain less among image clients than among themselves", "Text clients, among image clients or among themselves: no difference shown", "in log-odds", 2),
    f"Parking {wide.index.max()} networks in files takes {time_ratio:.2f} times the time and {memory_ratio:.2f} times the memory beyond the process: at this size of "
    f"network {'it saves memory' if memory_ratio < 0.95 else 'it saves none'}.")

# %% [markdown]
# ## What to try next
#
# Next: [21](21_many_machines.ipynb) has clients on many machines; [05](05_table2.ipynb) is the whole table of images and texts.
#
# **Exercise.** What does parking cost in time with 24 clients, and what does it save in memory?
#
# <details><summary>Solution</summary>
#
# ```python
# most = cost[cost["clients"] == cost["clients"].max()].set_index("way")[["seconds", "extra_MiB"]]
# (most.loc["uploads every round, parked"] / most.loc["uploads every round"]).round(2)
# ```
#
# </details>
