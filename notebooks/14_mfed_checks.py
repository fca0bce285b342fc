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
# # 14 Checks on M-Fed: does every client reach the encoder, which part of it matters, and what does it cost?
#
# First on one small federation that can be looked at, then on runs with seeds. Intervals are 95 % Student-t over seeds and not adjusted for their number.

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from fedmuscle_core.analysis import effects, lessons, plots, tables, task_tables
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.runs import one_thread, sweep, sweep_groups
from fedmuscle_core.experiments.statistics import EFFECT, final_scores, log_odds_change, mean_interval, verdict
from fedmuscle_core.methods import METHODS
from fedmuscle_core.methods.sharing import copied
from fedmuscle_core.networks.client_network import num_parameters
from fedmuscle_core.paths import results

plots.use_style()
print(len(set(plans.notebook_14(profile, seeds))), "runs are behind this notebook")

# %% [markdown]
# ## Does the merged encoder reflect every client?
#
# Two rounds of a small federation. After the first, one client's encoder after the other is moved by 1 in every parameter; each time the
# merged encoder must move by the client's weight: its share of its task's scenes, divided by the number of tasks.

# %%
settings = profile_settings("quick", "mfed_dense", "mfed", [0], rounds=2, test_size=0, bad_uploads="raise")[0]
specs = pd.DataFrame(settings.setup.clients, index=pd.RangeIndex(1, 13, name="client"))
weights = specs["train_size"] / specs.groupby("task")["train_size"].transform("sum") / specs["task"].nunique()
with one_thread():
    federation = build(settings)
    federation.fit(1, progress=False)


def as_vector(state):
    return torch.cat([value.flatten() for value in state.values()])


def merged_encoder():
    federation.play(federation.method.gather(federation.server, 2), 2)
    return as_vector(federation.server.memory.encoders[1])


# %%
original = merged = merged_encoder()
moved = []
for client in federation.clients:
    before = as_vector(copied(client.network.encoder()))
    with torch.no_grad():
        for parameter in client.network.encoder().parameters():
            parameter += 1.0
    now = merged_encoder()
    moved.append({"client": client.name, "task": client.task.name, "distance to the merged encoder": (before - original).norm().item(),
                  "its weight": weights[client.name], "merged encoder moved by": (now - merged).mean().item()})
    merged = now
pd.DataFrame(moved).round(4)

# %% [markdown]
# ## NaN, another architecture, a missing tensor: refused by name
#
# Task and number of scenes are registered once and do not travel, so no upload can claim another's. What does travel is compared
# with what the server asked for, tensor by tensor. Client 2 hands in one that is wrong:

# %%
stage = next(federation.method.gather(federation.server, 2))
good = {client.name: federation.method.hand_in(client, stage.message_of(client.name)) for client in federation.clients}
name, value = next(iter(good[2].items()))
for wrong in ({name: value * float("nan")}, {name: value[1:]}, {}):
    rest = {other: part for other, part in good[2].items() if other != name}
    try:
        federation.server.accepted(stage, good | {2: rest | wrong})
    except ValueError as error:
        print(error)

# %% [markdown]
# ## Do the tasks conflict?
#
# Two tasks conflict where the gradients $g, h$ of their losses with respect to the shared encoder point apart: a cosine
# $g \cdot h / (\lVert g \rVert \lVert h \rVert)$ below 0. Clients hand
# in that gradient (of their first 32 scenes, at the encoder they were sent) at the beginning of every local phase. Mean cosine between
# the clients of two tasks over the first fifth of the rounds, in which these scenes are not yet learned by heart, and over seeds, with
# M-Fed, where all begin at one encoder. On the diagonal the clients of one task: what agreement there can be at this noise.

# %%
records, history = sweep(plans.mfed_table(profile, "mfed_dense", seeds), results(profile), workers)
early = history[history["round"] <= max(1, history["round"].max() / 5)]
conflict = task_tables.conflict(early)
fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
apart = conflict.to_numpy()[~np.eye(len(conflict), dtype=bool)]
plots.grid_heatmap(ax, conflict, f"Encoder gradients of two tasks: cosine {apart.min():+.2f} at the lowest", 0.5, "with clients of", "clients of", digits=2)
plots.save_figure(fig, conflict.reset_index(), "14_mfed_checks_conflict", profile)

# %% [markdown]
# Is it who agrees with the others that gains from them? Beside the mean cosine to the clients of other tasks: M-Fed minus FedAvg in task, mean
# over the task's clients. The two are compared as tuned: encoder, decoder term, learning rate and batch size differ.

# %%
changes = log_odds_change(final_scores(history)).set_index(["method", "client", "task", "seed"])["log_odds"]
to_others = pd.DataFrame({seed: (matrix.sum(axis=1) - np.diag(matrix)) / (len(matrix) - 1) for seed, matrix in (
    (seed, task_tables.conflict(rows)) for seed, rows in early.groupby("seed"))})
adds = (changes["mfed"] - changes["fedavg"]).groupby(["task", "seed"], sort=False).mean()
agreement = to_others.mean(axis=1).sort_values()
pd.DataFrame([{"task": task, "cosine to other tasks": tables.mean_text(to_others.loc[task], 2),
               "M-Fed minus FedAvg (log-odds)": tables.mean_text(rows, 2), "shown": verdict(mean_interval(rows), EFFECT)}
              for task, rows in adds.groupby(level="task", sort=False)])

# %% [markdown]
# ## Over the rounds
#
# Length of the gradient, and its cosine to those of other clients, of its task and of other tasks. One line a method, mean over clients;
# bands over seeds. With FedAvg in task and MaT-FL the clients of different tasks begin at different encoders.

# %%
rows = history[history["metric"].str.startswith("gradient_")]
own = rows["metric"] == "gradient_cosine_" + rows["task"]
shown = ["length of the gradient", "cosine, same task", "cosine, other tasks"]
rows = rows.assign(metric=np.select([rows["metric"] == "gradient_norm", own], shown[:2], shown[2]))
means = rows.groupby(["metric", "method", "round", "seed"])["value"].mean().reset_index()
table = plots.over_seeds(means, ["metric", "method", "round"])
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for ax, title in zip(axes, shown, strict=True):
    for method in ("fedavg", "encoder_only", "matfl", "mfed"):
        line = table[(table["metric"] == title) & (table["method"] == method)]
        ax.plot(line["round"], line["mean"], color=plots.colour_of(method), label=METHODS[method].label)
        ax.fill_between(line["round"], line["low"], line["high"], color=plots.colour_of(method), alpha=0.15, linewidth=0)
    ax.set(title=title, xlabel="round")
axes[0].legend()
plots.save_figure(fig, table, "14_mfed_checks_rounds", profile)

# %% [markdown]
# ## Which part matters?
#
# M-Fed as tuned against itself with one of its parts changed; each has the values that were tuned for the whole, which favours the whole.
# *Decoders stay*: they are not averaged, and there is no term either, as it
# needs the global one. *No global decoder term*: decoders are averaged and taken over, but lambda is 0. *Frozen encoder*: it
# stays as it was pretrained. The variant whose term is the distance to the global decoder has
# a lambda of its own: it is a method in [13](13_mfed.ipynb).

# %%
variants = effects.measure(sweep_groups(ablations.by_mfed_variant(profile, seeds), results(profile), workers))
effects.effect_table(variants, "as tuned", "M-Fed", "mfed")

# %% [markdown]
# ## Bytes a round
#
# Counted by the ledger: down in every round, up in every round but the first. Beside it the closed form, 4 bytes a parameter.

# %%
sizes = pd.DataFrame([{"task": client.task.name, "encoder": 4 * num_parameters(client.network.encoder()),
                       "decoder": 4 * num_parameters(client.network.decoder())} for client in federation.clients[::3]])
sizes["both"] = sizes["encoder"] + sizes["decoder"]
(sizes.set_index("task") / 1024).round(1).rename(columns="{} (KiB one way)".format)

# %%
variants.groupby("value", sort=False)["kib"].mean().map("{:,.1f} KiB a client and round, up and down".format)

# %% [markdown]
# ## One to eight tasks
#
# The three segmentation clients are there at every count; the parts, saliency and edge clients join, then those of the four label tasks.
# What do others' tasks do for them? Delta over these three clients alone, against Local, which is the same at every count. FedAvg in task
# cannot change. Rate and lambda are those tuned with four tasks.

# %%
growing = sweep_groups(ablations.by_task_count(profile, seeds), results(profile), workers)
grown = effects.measure(effects.of_first_clients(growing, 3))
effects.effect_table(grown, 1, "tasks", "mfed")

# %%
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
drawn = plots.value_curves(ax, grown[grown["method"] == "mfed"])
ax.axhline(grown[grown["method"] == "fedavg"]["delta"].mean(), linestyle="--", color=plots.colour_of("fedavg"), label=METHODS["fedavg"].label)
ax.set(xlabel="tasks", ylabel="Delta of three segmentation clients (%)", title=f"What others' tasks do for three clients,\n{tables.seeds_text(grown['seed'].nunique())}, 95 % intervals")
ax.legend()
plots.save_figure(fig, drawn, "14_mfed_checks_tasks", profile)

# %% [markdown]
# ## Deviations from the paper
#
# The checks are ours; no such table was found for the paper.

# %% [markdown]
# ## Published, and ours

# %%
pd.DataFrame([{"question": f"M-Fed as tuned against: {row.label}", "published": "not found",
               "ours: log-odds [95 % CI over seeds]": tables.interval_text((-row.mean, -row.high, -row.low), 2), "agrees?": "cannot be said"}
              for row in effects.effects(variants, "as tuned", "mfed").itertuples() if row.label != "as tuned"])

# %% tags=["hide-input"]
def changed(value):
    return effects.between(variants, value, "as tuned", "mfed")


def words(what):
    return f"{what}, M-Fed is worth more", f"{what}, M-Fed is worth less", f"{what}, no difference is shown"


def told(chosen):
    return "; ".join(f"{first} and {second} {cosine:+.2f}" for (first, second), cosine in cosines[chosen].items()) or "none"


cosines = pd.Series({(first, second): conflict.loc[first, second] for place, first in enumerate(conflict) for second in list(conflict)[place + 1:]}).sort_values()
sent = variants.groupby("value")["kib"].mean()
alone = grown[grown["method"] == "mfed"]

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
lessons.learned(
    "Every client reaches the merged encoder by its weight, to within "
    f"{max(abs(row['its weight'] - row['merged encoder moved by']) for row in moved):.0e}.",
    f"Encoder gradients of two tasks: a cosine below 0, which is conflict, for {told(cosines < 0)}; above 0 for {told(cosines > 0)}; within a task "
    f"{np.diag(conflict).mean():+.2f} on average.",
    *(lessons.says(mean_interval(adds[task]), f"The {which} with the others ({task}, cosine {agreement[task]:+.2f}): M-Fed adds to sharing within the task",
                   f"The {which} with the others ({task}, cosine {agreement[task]:+.2f}): M-Fed takes from sharing within the task",
                   f"The {which} with the others ({task}, cosine {agreement[task]:+.2f}): no difference of M-Fed to sharing within the task is shown", "in log-odds", 2)
      for which, task in (("task that agrees most", agreement.index[-1]), ("task that agrees least", agreement.index[0]))),
    f"A client sends and receives {sent['as tuned']:,.0f} KiB a round, and {sent['decoders stay']:,.0f} where decoders stay.",
    lessons.says(changed("decoders stay"), *words("Where decoders stay, so that there is no term either"), "in log-odds against M-Fed as tuned", 2),
    lessons.says(changed("no global decoder term"), *words("Without the term of the global decoder"), "in log-odds", 2),
    lessons.says(changed("frozen encoder"), *words("Where the encoder stays as it was pretrained"), "in log-odds", 2),
    lessons.says(effects.between(grown, grown["value"].max(), 1, "mfed"), f"{grown['value'].max()} tasks are worth more to three clients than their own alone",
                 f"{grown['value'].max()} tasks are worth less to three clients than their own alone",
                 f"{grown['value'].max()} tasks against their own alone: no difference for three clients is shown", "in log-odds", 2),
    "Mean Delta of the three clients with M-Fed: " + ", ".join(f"{rows['delta'].mean():+.0f} % with {count} task{'s' * (count > 1)}" for count, rows in alone.groupby("value"))
    + f"; with FedAvg in task {grown[grown['method'] == 'fedavg']['delta'].mean():+.0f} %. With one task nobody else is there to conflict with: what the two differ by "
    "there is decoder term, rate and batch size.")

# %% [markdown]
# ## What to try next
#
# Next: [13](13_mfed.ipynb) has the tables; [SECURITY.md](../SECURITY.md) says who sees what.
#
# **Exercise.** Who pulls the encoder most? Order the clients by how far the merged encoder moved when theirs did.
#
# <details><summary>Solution</summary>
#
# ```python
# pd.DataFrame(moved).sort_values("merged encoder moved by", ascending=False).head(3)
# ```
#
# It follows the weights: a client's share of its task's scenes, over the number of tasks.
#
# </details>
