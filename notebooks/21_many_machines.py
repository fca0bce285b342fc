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
# # 21 Does a federation on many machines give what one process gives, also when a node dies?
#
# Between machines the messages of a federation are carried by [Flower](https://flower.ai): a SuperLink keeps them at the server, a
# SuperNode stands for each client. Method, clients and round loop stay as they are; only the engine below them changes. Here three
# SuperNodes, with clients as in [16](16_your_own.ipynb), each a process of its own, are run twice: undisturbed, and with one of them
# killed in the middle of a message and started again. The numbers asked for: those of one process, to the bit.

# %% tags=["parameters"]
profile: str = "mini"  # mini shows the stored deployment; quick plays Flower's simulation, where it is installed, too
seed: int = 0  # of the simulation; the stored deployment has seed 0

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seed")

# %%
import importlib.util
import json
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import torch

from fedmuscle_core.analysis import lessons, plots
from fedmuscle_core.benchmarks import digits
from fedmuscle_core.paths import DATA

plots.use_style()
torch.set_num_threads(1)

# %% [markdown]
# ## What one writes
#
# An app is a module with two objects. Each node makes its own client, from data that never leave its machine; the server has a
# federation without clients of its own.
#
# ```python
# from fedmuscle_core.engines import flower
#
# server_app = flower.server_app(federation, CLIENTS)
# client_app = flower.client_app(lambda context: federation().join(client(context.node_config["name"])), federation().method)
# ```
#
# `fedmuscle flower init FOLDER --clients anna ben cleo` writes such an app and all around it: a certificate for the server, a key for each node,
# a command for each machine, and a README that says what stays open. The federation itself is an ordinary one:

# %%
federation = digits.federation([digits.client(name) for name in digits.CLIENTS], seed=seed)
history = federation.fit(rounds=4, progress=False)
final = history[(history["round"] == 4) & (history["split"] == "validation")]
final[["client", "metric", "value", "bytes"]].round(1)

# %% [markdown]
# ## Why it can be equal
#
# A message is `[run, number], safe, calls`. For message $k$ a client's next state and reply are functions of its state and the message
# alone, and the state goes into a file, whole or not at all, before the reply is sent:
#
# $$(s_{k},\,r_{k}) = f(s_{k-1},\,m_k),\qquad \text{a message } m_{k'} \text{ with } k' \le k \text{ gets the kept } r_{k'} \text{, or is refused; } s_k \text{ stays.}$$
#
# All randomness is drawn from streams that seed, client, round and batch name, never from what was drawn before. So a node may die
# before, in or after $f$: it is asked again and gives the same. In `engines/flower/client.py`:
#
# ```python
# if given.get(number[1], [None])[0] == record.object_id:      # this very message was answered before
#     return packed(given[number[1]][1])
# if number <= done:
#     raise ValueError(f"client {client.name}: got message {number}, expected one after {done}: it came late")
# ```

# %% [markdown]
# ## In processes of this machine: Flower's simulation
#
# `federation.fit(rounds, engine="flower")` plays the same with clients in processes of Ray, where the extra `[flower]` is installed.
# It cannot share an environment with the newest papermill and friends (`make test-flower` makes one of its own), so the committed
# output of this cell may say that it is missing; the tests of that environment run this notebook and compare.

# %% tags=["nbval-ignore-output"]
def simulated():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Flower and Ray
        there = digits.federation([digits.client(name) for name in digits.CLIENTS], seed=seed)
        return there.fit(rounds=4, engine="flower", progress=False)


if profile == "quick" and importlib.util.find_spec("flwr"):
    print("simulation and one process:", "equal to the bit" if simulated().equals(history) else "NOT EQUAL")
else:
    print("not simulated: profile quick does where flwr is installed")

# %% [markdown]
# ## On three SuperNodes: TLS, a key each, one killed
#
# Stored by `python -m fedmuscle_core.benchmarks.deployment --save data/results/deployment.json`, which starts all processes itself.

# %%
measured = json.loads((DATA / "results" / "deployment.json").read_text())
print(f"{measured['measured'][:10]}, flwr {measured['versions']['flwr']}, torch {measured['versions']['torch']}, "
      f"{measured['cores']} cores, {measured['rounds']} rounds, seed {measured['seed']}; killed: {measured['victim']}")

# %%
here = measured["in_process"]
pd.DataFrame([{"run": name, "rows of history": len(run["history"]["value"]), "history": run["history"] == here["history"],
               "bytes of every client and round": run["ledger"] == here["ledger"], "seconds": round(run["seconds"])}
              for name, run in measured["runs"].items()]).replace({True: "equal to the bit", False: "NOT EQUAL"})

# %% [markdown]
# The scores, of the run with the killed node beside one process:

# %%
scores = {name: pd.DataFrame(table).query("split == 'validation'").pivot(index="round", columns="client", values="value")
          for name, table in (("one process", here["history"]), ("one node killed", measured["runs"]["killed"]["history"]))}
pd.concat(scores, axis=1).round(2)

# %% [markdown]
# ## What happened when
#
# A bar from a question to its answer. The killed node's bar goes on until it is back and has been asked again; the others wait with
# the next message, as the server needs all replies, or the end of its patience.

# %%
def bars(run):
    """One row per message and client: when it was asked first and answered."""
    events = pd.DataFrame(run["events"], columns=["time", "message", "client", "event", "bytes"])
    asked, answered = (events[events["event"] == event] for event in ("asked", "answered"))
    key = ["message", "client"]
    table = asked.groupby(key)["time"].agg(asked="first", times="size").join(answered.set_index(key)[["time", "bytes"]])
    return table.rename(columns={"time": "answered", "bytes": "up"}).join(asked.groupby(key)["bytes"].first().rename("down")).reset_index()


timeline = pd.concat({name: bars(run) for name, run in measured["runs"].items()}, names=["run", "row"]).reset_index("run")
kill = next(event for event in measured["runs"]["killed"]["events"] if event[3] == "killed")
fig, axes = plt.subplots(2, 1, figsize=(9, 4.2), sharex=True, layout="constrained")
for ax, (name, rows) in zip(axes, timeline.groupby("run", sort=False), strict=True):
    colours = [(plots.GAIN, plots.UNCLEAR)[message % 2] for message in rows["message"]]
    ax.barh(rows["client"], rows["answered"] - rows["asked"], left=rows["asked"], color=colours, height=0.6)
    ax.set_title(f"{name}: {rows['answered'].max():.0f} s")
    ax.invert_yaxis()
axes[1].plot(kill[0], kill[2], "x", color=plots.LOSS, markersize=10, markeredgewidth=3)
axes[1].annotate("killed (-9), started again, asked again", (kill[0], 0.5), color=plots.LOSS, fontsize=9)
axes[1].set_xlim(0, None)
axes[1].set_xlabel("seconds since the run began; a bar: from a message to its reply, colours alternate")
plots.save_figure(fig, timeline, "21_many_machines", profile)

# %% [markdown]
# ## What a message costs
#
# Every message starts a process at its node, which imports torch before it computes anything; all three nodes share this machine's
# cores. What is exchanged and computed hardly matters at this size: compare with the time of all rounds in one process. So a round
# should be worth its message: networks that train for minutes, not these.

# %%
quiet = timeline[timeline["run"] == "undisturbed"]
seconds = (quiet["answered"] - quiet["asked"]).groupby(quiet["message"]).max()
print(f"undisturbed: {len(seconds)} messages a client, {seconds.median():.1f} s the median one, {seconds.min():.1f} to {seconds.max():.1f} s; "
      f"all rounds in one process: {measured['in_process']['seconds']:.1f} s")

# %% [markdown]
# Bytes: the ledger counts the tensors that the method exchanges, as the papers do. A message has names and numbers beside them, and
# twice the representations of held-out samples by which alignment is measured, which the ledger leaves out. The SuperLink counts
# messages with their metadata and objects, but not the app itself, heartbeats, empty polls, HTTP and TLS: the wire carries more.

# %%
ledger = pd.DataFrame(here["ledger"]).groupby("direction")["bytes"].sum()
traffic = measured["runs"]["undisturbed"]["traffic"]
wire = pd.DataFrame({"ledger: tensors": ledger, "messages": {"down": quiet["down"].sum(), "up": quiet["up"].sum()},
                     "SuperLink": {"down": traffic["outbound-bytes"], "up": traffic["inbound-bytes"]}}).astype(int)
wire["SuperLink : ledger"] = (wire["SuperLink"] / wire["ledger: tensors"]).round(2)
wire

# %% [markdown]
# ## What stays open
#
# Flower asks nobody for a password at the SuperLink's control path: whoever reaches it can start programs on all nodes. The README
# that `fedmuscle flower init` writes says how to close it, [SECURITY.md](../SECURITY.md) who can see what. A method travels if it
# exchanges once a round: `refresh="batch"`, centralised training and gradient diagnostics are refused by name.
#
# ## Published, and ours
#
# The papers simulate on one machine and publish no deployment.

# %%
killed = measured["runs"]["killed"]
pd.DataFrame([{"question": "same history on three nodes?", "published": "not found", "ours": str(measured["runs"]["undisturbed"]["history"] == here["history"])},
              {"question": "same with a node killed (-9)?", "published": "not found", "ours": str(killed["history"] == here["history"])},
              {"question": "what did the kill cost?", "published": "not found",
               "ours": f"{killed['seconds'] - measured['runs']['undisturbed']['seconds']:+.0f} s"}])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
lessons.learned(
    "With a client's state in a file, numbered messages and named random streams, a node that was killed once cost time and changed no number."
    if killed["history"] == here["history"] else "The run with a killed node differs from one process.",
    f"The run with the kill took {killed['seconds'] - measured['runs']['undisturbed']['seconds']:.0f} s longer, one run each.",
    f"A message took {seconds.median():.1f} s, the median of the slowest node, the start of a process included; all rounds in one process took "
    f"{measured['in_process']['seconds']:.1f} s, so a round should be worth its message.")

# %% [markdown]
# ## What to try next
#
# Next: [24](24_scaling.ipynb) plans for many more clients; [16](16_your_own.ipynb) is about the clients themselves.
#
# **Exercise.** Which messages were asked more than once, and of whom?
#
# <details><summary>Solution</summary>
#
# ```python
# timeline[timeline["times"] > 1][["run", "client", "message", "times"]]
# ```
#
# </details>
