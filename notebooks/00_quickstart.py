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
# # 00 Quickstart: can three clients with different models and different tasks teach each other?
#
# One client names *all digits* in a scene, one reads a *two-digit number*, one names a *single digit*; each owns a handful of
# scenes. Their networks differ, so weights cannot be averaged; their tasks differ, so predictions cannot be compared.
# FedMuscle ([arXiv 2602.01626](https://arxiv.org/abs/2602.01626)) lets them compare *representations of public images* instead.
#
# This is a replication, not the official code. Everything runs on real handwriting that ships with scikit-learn.

# %% tags=["parameters"]
profile: str = "mini"  # where runs are stored; "quick" trains the same federations anew
seeds: list = [20, 21, 22]  # one federation a seed and method
workers: int = 2  # processes, one run each

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seeds", "workers")

# %%
import time

import matplotlib.pyplot as plt
import pandas as pd

from fedmuscle_core.analysis import beside_paper, diagrams, lessons, plots, tables
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.statistics import final_scores
from fedmuscle_core.paths import results
from fedmuscle_core.world.scenes import digit_scenes, public_scenes
from fedmuscle_core.world.tasks import TASKS, targets

plots.use_style()

# %% [markdown]
# ## The clients
#
# Clients 1, 5 and 6 of Setup 1: three tasks, three networks of two families, private sets so small that each alone stays near
# where the paper's clients are without help (42 %, 25 % and 44 %; ours stand in the table of test scores below).

# %%
clients = pd.DataFrame(SETUPS["quickstart"].clients, index=pd.RangeIndex(1, 4, name="client"))
clients["metric"] = [TASKS[task].metric for task in clients["task"]]
clients

# %% [markdown]
# Each client sees scenes of its own kind. Titles are what it has to predict.

# %%
shown = {name: digit_scenes("train", TASKS[name].layout, 3, 0, "quickstart") for name in ("mlc", "ic100", "ic10")}
titles = [f"{name}: {answer}" for name, scenes in shown.items() for answer in (
    ["".join(str(c) for c in row.nonzero()[:, 0].tolist()) for row in targets(name, scenes)]
    if name == "mlc" else targets(name, scenes).tolist())]
fig = plots.scene_grid([image for scenes in shown.values() for image in scenes.images], titles)

# %% [markdown]
# And this is the public data that all of them can see: scenes without any label, from handwriting that nobody trains or is
# tested on.

# %%
fig = plots.scene_grid(public_scenes("single", 9, 0))

# %% tags=["nbval-ignore-output"]
clock = time.perf_counter()
digit_scenes("train", "multi", 4000, 1, "speed")
print(f"Scenes are drawn when they are needed: {4000 / (time.perf_counter() - clock):.0f} a second here.")

# %% [markdown]
# ## Two ways to train, the same seeds
#
# *Local*: every client trains alone. *FedMuscle*: before each round of local training, the clients embed batches of public
# scenes, receive the other two clients' representations, and take a step on the Muscle loss. Both get the same number of local
# epochs and end with a local phase, and a client is tested with its parameters of its best validation round. Learning rates are those
# tuned for Setup 1, on other seeds. Finished runs are stored, so asking again costs nothing.

# %%
senders = [diagrams.Sender(f"client {row.Index}: {row.task}, {row.backbone.split('_')[0]}\nown scenes, labels, network", "$z$: B x d", "M peers' $z$")
           for row in clients.itertuples()]
fig = diagrams.exchange("server: hands each client the representations of M others, keeps nothing", senders,
                        "public batch: the same B unlabelled scenes for all")

# %%
scenes = {"validation_size": Settings.validation_size, "test_size": Settings.test_size}          # in profile "quick", too
wanted = [settings for method in ("local", "fedmuscle")
          for settings in profile_settings(profile, "quickstart", method, seeds, num_peers=2, **SETUPS["quickstart"].settings, **scenes)]
records, history = sweep(wanted, results(profile), workers)
settings = records[-1]["settings"]
print({name: settings[name] for name in ("rounds", "contrastive_steps", "num_peers", "batch_size", "dim", "tau", "tau_prev", "public_size")})

# %% [markdown]
# ## What happened, round by round
#
# Scores on validation scenes, means over seeds with their 95 % intervals. Round 0 is before any training: the backbones know printed
# letters, the heads know nothing. Where the blue line leaves the grey one upwards, the client gained; downwards, it paid.

# %%
fig, drawn = plots.learning_curves(history)
plots.save_figure(fig, drawn, "00_quickstart", profile)

# %% [markdown]
# ## What alignment looks like
#
# Three rounds of the same federation, here and now. Each line joins what clients 1 and 2 make of one public scene; each panel has its own two axes,
# along which both clients spread most. Before, every client speaks a language of its own; compare the mean cosine in the titles, not lengths
# across panels.

# %%
from fedmuscle_core.client import represent
from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.runs import one_thread

with one_thread():
    federation = build(wanted[-1].replace(rounds=3, test_size=0))
    first, second = federation.clients[:2]
    pairs = {"before": [represent(client, client.held_out.first(24)) for client in (first, second)]}
    federation.fit(3, progress=False)
    pairs["after 3 rounds"] = [represent(client, client.held_out.first(24)) for client in (first, second)]
fig, drawn = plots.pairs_in_the_plane(pairs, ("client 1", "client 2"))
plots.save_figure(fig, drawn, "00_quickstart_alignment", profile)

# %% [markdown]
# ## Delta
#
# The paper's summary is the mean over the N clients of the relative change of the score P against local training:
#
# $$\Delta = \frac{100}{N} \sum_{n=1}^{N} \frac{P_n - P_n^{\text{Local}}}{P_n^{\text{Local}}}$$
#
# It hides who pays, so the worst client stands
# beside it. *Log-odds*: mean over clients of the change in $\log (P / (100 - P))$, in which a client near zero does not dominate; 0.1 is 2.5
# points at 50 %. *mAP*: mean average precision over the digits. These are test scenes, touched once, after the last round; differences are paired over seeds. *Clients improved*: share of
# pairs of seed and client above Local.

# %%
tables.score_table(history)

# %%
tables.delta_table(history)

# %% [markdown]
# The same seed by seed: does every federation say it?

# %%
scores = final_scores(history)
by_client = {}
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for ax, ((client, task, metric), rows) in zip(axes, scores.groupby(["client", "task", "metric"]), strict=True):
    pairs = rows.pivot(index="seed", columns="method", values="value")[["local", "fedmuscle"]]
    by_client[client, task] = change = pairs["fedmuscle"] - pairs["local"]
    for _, pair in pairs.iterrows():
        ax.plot([0, 1], pair, "o-", color=plots.colour_of("fedmuscle") if pair["fedmuscle"] > pair["local"] else plots.UNCLEAR)
    ax.set_xticks([0, 1], ["Local", "FedMuscle"])
    ax.set(xlim=(-0.3, 1.3), ylabel=f"{metric} (%)", title=f"client {client}, {task}: higher on\n{(change > 0).sum()} of {len(change)} seeds, mean {change.mean():+.1f}")
plots.save_figure(fig, scores, "00_quickstart_pairs", profile)

# %% [markdown]
# ## What it cost
#
# Every byte that passed between clients and server was counted where it was sent. The published protocol ships all
# $B^M$ sums of representations; sending the $M$ matrices instead gives the same loss and gradient for far fewer bytes.

# %%
from fedmuscle_core.exchange import bytes_per_step

steps = settings["contrastive_steps"]
for protocol in ("matrices", "tuples"):
    size = steps * sum(bytes_per_step(settings["batch_size"], 2, settings["dim"], protocol))
    print(f"{protocol:8} {size / 2 ** 20:7.2f} MiB per client and round")
measured = history.query("method == 'fedmuscle' and round == 1")["bytes"].unique()
print(f"measured {measured[0] / 2 ** 20:7.2f} MiB (protocol {settings['protocol']})")

# %% [markdown]
# ## Deviations from the paper
#
# Three clients instead of six, small backbones instead of foundation models, composed scenes instead of photographs; rounds, steps, rates and
# sizes are ours ([02](02_setup1.ipynb)).
#
# ## Published, and ours
#
# The paper's number is for six clients, pretrained foundation models and Pascal VOC as public data; ours for three small clients
# and handwriting. Only the sign is comparable, and three seeds are few: [data/PREDICTIONS.md](../data/PREDICTIONS.md) says what ten seeds
# of six clients are to show, and whether other ways to use the public data do as well.

# %%
paper = beside_paper.published_value(setup="setup1", public_data="pascal_voc", method="fedmuscle", quantity="delta")
ours = tables.delta_interval(history, "fedmuscle")
pd.DataFrame([{"quantity": "Delta of FedMuscle (%)", "published (6 clients, VOC)": paper,
               "ours (3 clients)": tables.interval_text(ours), "seeds": len(seeds),
               "agrees?": beside_paper.agreement(paper, ours)}])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
lessons.learned(
    lessons.says(ours, "On average over clients FedMuscle gains over training alone; whether by the exchange or by more unlabelled data, [02](02_setup1.ipynb) asks",
                 "FedMuscle harmed these clients", "Whether FedMuscle helps these clients is not shown", f"% Delta, {tables.seeds_text(len(seeds))}"),
    lessons.says(tables.log_odds_difference(history, "fedmuscle", "local"), "In log-odds, which no client near zero dominates, it gains as well",
                 "In log-odds, which no client near zero dominates, it harms", "In log-odds, which no client near zero dominates, a gain is not shown",
                 "in log-odds, mean over clients", 2),
    "Client by client: " + "; ".join(f"client {client} ({task}) is higher on {(change > 0).sum()} of {tables.seeds_text(len(change))}, by {change.mean():+.1f} points on average"
                                     for (client, task), change in by_client.items()) + ".",
    tables.who_pays(history, "fedmuscle"),
    f"A round cost a client {measured[0] / 2 ** 20:.1f} MiB. As sums over tuples, the published way, the same loss would cost "
    f"{size / 2 ** 20:.0f} MiB.")

# %% [markdown]
# ## What to try next
#
# Next: [01](01_muscle_loss.ipynb) builds the loss by hand; [02](02_setup1.ipynb) asks six clients, ten seeds, and whether each client's own
# contrastive learning would do as well; [16](16_your_own.ipynb) federates models of your own.
#
# **Exercise.** Let every client hear one peer instead of two. What becomes of the bytes, and of the gain? (It trains for a minute.)
#
# <details><summary>Solution</summary>
#
# With one peer the Muscle loss is InfoNCE, and a client sends one matrix and receives one: two thirds of the bytes.
#
# ```python
# fewer = profile_settings(profile, "quickstart", "fedmuscle", seeds, num_peers=1, **SETUPS["quickstart"].settings, **scenes)
# _, few = sweep([*fewer, *(run for run in wanted if run.method.name == "local")], results(profile), workers)
# print(few.query("method == 'fedmuscle' and round == 1")["bytes"].unique() / 2 ** 20, "MiB")
# tables.delta_table(few)
# ```
#
# </details>
