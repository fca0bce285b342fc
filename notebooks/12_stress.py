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
# Text clients among image clients or among themselves; six clients with one architecture, two, or five; then 12 and 24 clients,
# their cost a round, and what it takes when their networks do not fit in memory together.
#
# Intervals in this notebook are 95 % Student-t over seeds and not adjusted for their number: if nothing differed, about one in
# twenty would still exclude 0.

# %% tags=["parameters"]
profile: str = "mini"  # "quick" (minutes, proves that it runs) or "mini" (the committed numbers)
seeds: list = []  # empty: the first ones of the profile
workers: int = 2  # processes, one run each

# %%
import json

import numpy as np
import pandas as pd

from fedmuscle_core import ablations, plans, plots, report, varied
from fedmuscle_core.paths import DATA, results
from fedmuscle_core.setups import SETUPS
from fedmuscle_core.statistics import mean_interval

plots.use_style()
print(len(set(plans.notebook_12(profile, seeds))), "runs are behind this notebook")

# %% [markdown]
# ## Who learns from whom: modalities
#
# `one_text`: a text client (TC10) among the six image clients of Setup 1; `texts_only`: four text clients; `images_only`: Setup 1
# on the images of the same pairs; `setup2`: both. Change of each kind of client against its own Local.

# %%
modality = varied.run_all(ablations.by_setup(profile, ablations.MODALITIES, seeds), results(profile), workers)
changes = varied.client_changes(modality)
kinds = changes["task"].str.startswith("tc").map({True: "text clients", False: "image clients"}).rename("clients")
by_kind = changes.groupby(["value", kinds, "seed"])["change"].mean().groupby(["value", "clients"]).apply(mean_interval)
by_kind.map(report.interval_text).unstack().astype(object).fillna("-")

# %% [markdown]
# ## One architecture, two, five

# %%
kinds = varied.measure(varied.run_all(ablations.by_setup(profile, ablations.KINDS, seeds), results(profile), workers))
varied.effect_table(kinds, "setup1", "architectures")

# %% [markdown]
# ## More clients: Delta and alignment
#
# Setup 1 once, twice and four times, every client with private data of its own, M = 3.

# %%
many = varied.run_all(ablations.by_setup(profile, ablations.SIZES, seeds, most=ablations.FEW_SEEDS), results(profile), workers)
sizes = varied.measure(many)
varied.effect_table(sizes, "setup1", "clients")

# %%
def retrieval(record):
    matrix = np.array(record["alignment"]["after"]["retrieval"])
    return matrix[~np.eye(len(matrix), dtype=bool)].mean()


pd.DataFrame([{"clients": len(SETUPS[setup]), "retrieval between clients after training":
               report.interval_text(mean_interval([retrieval(record) for record in records]), 3).replace("+", "")}
              for (setup, method), (records, _) in many.items() if method == "fedmuscle"])

# %% [markdown]
# ## More clients: cost
#
# `python -m fedmuscle_core.benchmarks.clients`: one round, one core. `parked`: the networks wait in files, one in memory at a
# time, which needs uploads once a round instead of once a batch.

# %%
pd.DataFrame(json.loads((DATA / "results" / "benchmark_clients.json").read_text())["rows"])

# %% [markdown]
# ## Deviations from the paper
#
# All of these are our experiments. The paper's largest federation, with CreamFL, has 35 clients; its cost per round was not
# found.

# %% [markdown]
# ## Published, and ours

# %%
paper = report.published_value(setup="setup1", public_data="pascal_voc", method="fedmuscle", quantity="delta")
pd.DataFrame([{"Delta (%)": f"{len(SETUPS[setup])} clients", "published": paper if setup == "setup1" else "not found",
               "ours [95 % CI]": report.interval_text(mean_interval(rows["delta"])),
               "agrees?": report.agreement(paper, mean_interval(rows["delta"])) if setup == "setup1" else "cannot be said"}
              for setup, rows in sizes.groupby("value", sort=False)])

# %%
print(varied.answer(sizes, "setup1", "clients"))
print(varied.answer(kinds, "setup1", "architectures"))
