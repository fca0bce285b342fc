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
# # 25 FedMuscle and M-Fed together: where both apply, is one enough?
#
# M-Fed averages parameters and needs one architecture. FedMuscle aligns representations and needs public data. Where some clients have an
# architecture in common and others not, both can be done: parameters are averaged within each architecture, representations are aligned
# across all. We found it in neither paper.

# %% tags=["parameters"]
profile: str = "mini"  # "quick" (minutes, proves that it runs) or "mini" (the committed numbers)
seeds: list = []  # empty: the first ones of the profile
workers: int = 2  # processes, one run each

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seeds", "workers")

# %%
import pandas as pd

from fedmuscle_core.analysis import diagrams, lessons, plots, tables
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.runs import sweep_groups
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.statistics import final_scores, finished, overall_numbers, paired_difference, relative_change, verdict
from fedmuscle_core.methods import METHODS
from fedmuscle_core.paths import results

plots.use_style()
groups = {setup: sweep_groups(ablations.by_system(profile, setup, seeds), results(profile), workers) for setup in ablations.BOTH}
print(f"{len(set(plans.notebook_25(profile, seeds)))} runs are behind this notebook")
WHO = {"both12": "Twelve clients of five architectures", "mfed_dense": "Twelve clients of one architecture"}
history = {setup: pd.concat([table for _, table in runs.values()], ignore_index=True) for setup, runs in groups.items()}

# %% [markdown]
# ## A round of both
#
# Contrastive steps against peers of any architecture, then uploads; within architecture $k$ and task $t$ the server takes
#
# $$E_k = \frac{1}{|T_k|} \sum_{t \in T_k} \sum_{c \in (k, t)} \frac{n_c}{n_{k, t}} E_c , \qquad D_{k, t} = \sum_{c \in (k, t)} \frac{n_c}{n_{k, t}} D_c ,$$
#
# with $T_k$ the tasks of architecture $k$, $n_c$ the private samples of client $c$ and $n_{k,t}$ those of its architecture and task together;
# clients train on from these as in M-Fed ([13](13_mfed.ipynb)). Before the first round all of an architecture take over one encoder and its decoders.
# Contrastive steps and local ones are as many as in FedMuscle.

# %%
colours = {"segformer": "#1d4ed8", "vit": "#b45309", "resnet": "#047857"}
senders = [diagrams.Sender(f"{kind}\nown data, labels", "$z$, $E_c$, $D_c$", "$z$ of peers, $E_k$, $D_{k,t}$", colour) for kind, colour in colours.items()]
fig = diagrams.exchange("server: relays representations across all,\naverages parameters within each architecture", senders, "public scenes: the same for all")

# %% [markdown]
# ## Twelve clients, five architectures
#
# Setup 1 twice, so that every client has another one of its task and architecture, the segformer clients three of their architecture. Local and
# FedMuscle as tuned for Setup 1, as in [12](12_stress.ipynb); the others as tuned here, twelve configurations each. Delta, with $P_n$ the score of client n of N,
#
# $$\Delta = \frac{100}{N} \sum_{n=1}^{N} \frac{P_n - P_n^{\text{Local}}}{P_n^{\text{Local}}}$$

# %%
pd.Series([spec.backbone for spec in SETUPS["both12"].clients]).value_counts().rename_axis("architecture").rename("clients").to_frame()

# %%
tables.comparison_table(history["both12"], ablations.BOTH["both12"])

# %%
fig, drawn = plots.change_heatmap(relative_change(final_scores(finished(history["both12"]))))
plots.save_figure(fig, drawn, "25_both_systems", profile)

# %% [markdown]
# ## Twelve clients, one architecture
#
# The dense tasks of M-Fed's own benchmark: everything can be averaged. What does alignment add there?

# %%
tables.comparison_table(history["mfed_dense"], ablations.BOTH["mfed_dense"])

# %% [markdown]
# ## What it takes, and what it tells
#
# Bytes as counted; what a method asks of clients and server; what its uploads tell of private data is measured in [19](19_privacy.ipynb).

# %%
reveals = {"local": "nothing", "fedmuscle": "representations of public samples, to the server and to peers",
           "mfed": "parameters, to the server", "mfed_per_architecture": "parameters, to the server; in a group of two to the other client",
           "muscle_mfed": "both"}
kinds = tables.exchange_table(history["both12"]).set_index("method")
kinds.assign(**{"what it tells": [reveals[name] for name in ablations.BOTH["both12"]]})

# %% [markdown]
# ## Both against each
#
# Paired over seeds, mean change in log-odds over clients and the fair gain ([22](22_one_number.ipynb)).

# %%
rows = []
for setup, methods in ablations.BOTH.items():
    numbers = overall_numbers(final_scores(finished(history[setup])))
    for other in methods[:-1]:
        found = {name: paired_difference(numbers, name, methods[-1], other) for name in ("log_odds", "fair_gain")}
        rows.append({"setup": setup, "both minus": METHODS[other].label, "log-odds": tables.interval_text(found["log_odds"], 2),
                     "fair gain": tables.interval_text(found["fair_gain"], 2), "shown": verdict(found["log_odds"])})
against = pd.DataFrame(rows)
against.set_index(["setup", "both minus"])

# %% [markdown]
# ## Deviations from the paper
#
# The combination is ours, as is the reading of M-Fed within each architecture. Optimisers keep their state when parameters arrive. Grids of
# twelve differ: M-Fed's has local rates and lambda, FedMuscle's contrastive rates and temperatures, the combination's two local rates, two contrastive ones
# and lambda, at FedMuscle's temperature. Eight rounds on twelve clients are FedMuscle's regime, forty on the dense tasks M-Fed's. Intervals are not adjusted.
#
# ## Published, and ours

# %%
expected = {("both12", METHODS["fedmuscle"].label): "yes", ("mfed_dense", METHODS["mfed"].label): "no"}
pd.DataFrame([{"question": f"{WHO[row['setup']]}: both above {row['both minus']}?", "published": "not found",
               "we expected": (said := expected.get((row["setup"], row["both minus"]), "-")), "ours: log-odds [95 % CI]": row["log-odds"],
               "came out?": "-" if said == "-" else "yes" if (row["shown"] == "higher") == (said == "yes") else "no"} for row in rows])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
numbers = {setup: overall_numbers(final_scores(finished(table))) for setup, table in history.items()}
alone = {setup: [METHODS[name].label for name in methods[:-1] if name != "local"] for setup, methods in ablations.BOTH.items()}
above = {setup: [row["both minus"] for row in rows if row["setup"] == setup and row["shown"] == "higher" and row["both minus"] in alone[setup]] for setup in alone}
lessons.learned(
    *(lessons.says(paired_difference(numbers[setup], "log_odds", methods[-1], other), f"{WHO[setup]}: both together are worth more than {METHODS[other].label}",
                   f"{WHO[setup]}: both together are worth less than {METHODS[other].label}",
                   f"{WHO[setup]}: both together against {METHODS[other].label}: no difference shown", "in log-odds", 2)
      for setup, methods in ablations.BOTH.items() for other in methods[:-1]),
    *(f"{WHO[setup]}: that one system is not enough is {'shown' if len(above[setup]) == len(alone[setup]) else 'not shown'}"
      f" (both together are shown to be above {' and '.join(above[setup]) or 'none'} of {' and '.join(alone[setup])})." for setup in alone))

# %% [markdown]
# ## What to try next
#
# Next: [13](13_mfed.ipynb) and [02](02_setup1.ipynb) have each alone; [19](19_privacy.ipynb) what each tells of private data.
#
# **Exercise.** Who pays for the second system? Count the bytes of both together against those of each alone.
#
# <details><summary>Solution</summary>
#
# ```python
# sent = tables.exchange_table(history["both12"]).set_index("method")["KiB per client and round"].str.replace(",", "").astype(float)
# both, local = METHODS["muscle_mfed"].label, METHODS["local"].label
# (sent[both] / sent.drop([both, local])).round(2)
# ```
#
# Each client sends and receives so many times what it does with one system alone.
#
# </details>
