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
# # 24 What does a federation of a hundred thousand clients need, and what breaks first?
#
# What grows with what was measured with up to a thousand clients in one process, each with a network of a few numbers, so that what is left
# is the protocol. The closed forms are those that the ledger counts. Together they plan a federation nobody here can run.
#
# A client that takes part sends and receives, in float32, per round of $T$ batches
#
# $$\text{up} = 4 \, T B d \ \text{ or } \ 4 \, P d, \qquad \text{down} = 4 \, T M B d ,$$
#
# the second where it uploads all $P$ public samples once a round; the server then keeps $4 \, N P d$ bytes.

# %% tags=["parameters"]
profile: str = "mini"  # every profile shows the stored measurement

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile")

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd

from fedmuscle_core.analysis import lessons, plots, scaling
from fedmuscle_core.paths import STORED

plots.use_style()
if not (path := STORED / "benchmark_scaling.json").is_file():
    raise ValueError(f"{path}: got no such file, expected the measurement; `python -m fedmuscle_core.benchmarks.scaling --save {path}` makes it")
record = json.loads(path.read_text())
rows = pd.DataFrame(record["rows"])
print(f"measured {record['measured'][:10]} with {record['public_size']} public samples, by `python -m fedmuscle_core.benchmarks.scaling --save {path.name}`")

# %% [markdown]
# ## Measured
#
# Milliseconds a round, client and step: of what clients do, their files among it, and of what the server does: checks, counts, draws of peers,
# messages. More than three peers are sampled, and batches of 128 have four steps instead of eight, so that what is fixed weighs more there.

# %%
usual = scaling.USUAL
rows["server_seconds"] = rows["seconds"] - rows["client_seconds"]
rows["server_ms"], rows["client_ms"] = (1e3 * rows[name] / rows["clients"] / rows["steps"] for name in ("server_seconds", "client_seconds"))
fig, axes = plt.subplots(1, 4, figsize=(12, 2.9), layout="constrained")
varied = {}
for ax, (name, text) in zip(axes, (("clients", "clients N"), ("num_peers", "peers M"), ("batch_size", "batch size B"), ("dim", "width d")), strict=True):
    line = rows[(rows[[other for other in usual if other != name]] == pd.Series({other: usual[other] for other in usual if other != name})).all(axis=1)]
    line = varied[text] = line.set_index(name).sort_index()
    ax.plot(line["client_ms"], "o-", color="#737373", label="the client")
    ax.plot(line["server_ms"], "o-", color="#1d4ed8", label="the server")
    ax.set(xlabel=text, xscale="log", ylim=(0, None))
axes[0].set_ylabel("ms a round, client and step")
axes[0].legend()
server_ms = varied["clients N"]["server_ms"]
least, most = server_ms.iloc[0], server_ms.iloc[-1]
fig.suptitle(f"The server's work for a client and step: {least:.2f} ms with {server_ms.index.min()} clients, {most:.2f} with {server_ms.index.max()}", x=0.01, ha="left")
plots.save_figure(fig, rows, "24_scaling", profile)

# %% [markdown]
# All rows of the measurement; one of N, M, B and d is varied at a time.

# %%
shown = rows.sort_values(["dim", "batch_size", "num_peers", "clients"]).set_index(list(usual)).rename_axis(["N", "M", "B", "d"])
pd.DataFrame({"steps": shown["steps"], "seconds a round": shown["seconds"], "of it the server's": shown["server_seconds"].round(2),
              "KiB up a client": shown["up_bytes"] / 1024, "KiB down a client": shown["down_bytes"] / 1024,
              "MiB the server keeps": (shown["server_bytes"] / 2 ** 20).round(1), "MiB of memory above the start": shown["extra_MiB"]}).round(2)

# %% [markdown]
# ## A hundred thousand clients
#
# $M = 3$, $B = 32$, $d = 256$ and 5,000 public samples are the paper's; 60 batches a round ours, the paper's cost column fits some 250. One server
# with a link of 10 Gbit/s and 256 GB, clients with 10 Mbit/s, a round an hour. *Waits*: how often a round waits for its slowest client. The
# server's work is extrapolated from a thousand clients, this package on one core, with the measurement's small messages of d = 32 and three peers: a
# lower end for wider ones, the panels above say by how much. What breaks, the worst first:

# %%
work, draw = scaling.server_work(record["rows"])
limits = scaling.Limits(server_work=work, server_draw=draw)
ways = {
    "uploads every batch, all take part": {"refresh": "batch"},
    "uploads once a round, all take part": {"refresh": "round"},
    "the same, 250 batches": {"refresh": "round", "steps": 250},
    "once a round, a tenth takes part": {"refresh": "round", "share": 0.1},
    "every batch, a tenth takes part": {"refresh": "batch", "share": 0.1},
    "every batch, one in a hundred": {"refresh": "batch", "share": 0.01},
    "every batch, a tenth, M = 1, d = 64": {"refresh": "batch", "share": 0.1, "num_peers": 1, "dim": 64},
    "the paper's sums, one in a hundred": {"refresh": "batch", "share": 0.01, "protocol": "tuples"},
}
plans = {name: scaling.plan(100_000, limits=limits, **changes) for name, changes in ways.items()}
pd.DataFrame({name: {"MiB up": f"{one.client_up / 2 ** 20:.2f}", "MiB down": f"{one.client_down / 2 ** 20:.1f}", "GB kept": f"{one.server_memory / 1e9:.1f}",
                     "hours of link": f"{one.link_seconds / 3600:.2f}", "hours of work, d = 32": f"{one.server_seconds / 3600:.2f}",
                     "waits": one.waits, "breaks": ", ".join(f"{what} ({times:.1f} times)" for what, times in scaling.breaks(one, limits)) or "nothing"}
              for name, one in plans.items()}).T

# %% [markdown]
# Uploads once a round save waits, not bytes: 5,000 public samples are more than 60 batches of 32 read. What to set, in this order: let a share of the
# clients take part in each round ([09](09_noniid.ipynb) measures what absence costs twelve clients), then fewer peers ([07](07_peer_count.ipynb)), then a
# smaller $d$ ([10](10_sensitivity.ipynb)).
#
# ## Deviations from the paper
#
# The largest federation that we found in the paper has 35 clients. Plan, limits and tiny networks are ours; the server's work is that of this package in Python, on one core.
#
# ## Published, and ours

# %%
first = {name: (scaling.breaks(one, limits) or [("nothing", 0)])[0][0] for name, one in plans.items()}
pd.DataFrame([{"question": f"100,000 clients, {name}: what breaks first?", "published": "not found", "ours": what, "agrees?": "cannot be said"}
              for name, what in first.items()])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
fits = [name for name, one in plans.items() if not scaling.breaks(one, limits)]
lessons.learned(
    f"The server's work for a client and step goes from {least:.2f} ms with {server_ms.index.min()} clients to {most:.2f} ms with {server_ms.index.max()}.",
    "Of one client and step, the server's and the client's milliseconds: " + "; ".join(
        f"{text} = {line.index[place]}: {line['server_ms'].iloc[place]:.2f} and {line['client_ms'].iloc[place]:.2f}"
        for text, line in varied.items() if text != "clients N" for place in (0, -1)) + ".",
    f"Of {len(plans)} ways to run 100,000 clients {len(fits)} fit one server: {'; '.join(fits) or 'none'}.",
    "What breaks first: " + "; ".join(f"{what} with {' and with '.join(name for name in first if first[name] == what)}" for what in dict.fromkeys(first.values())
                                      if what != "nothing") + ".")

# %% [markdown]
# ## What to try next
#
# Next: [09](09_noniid.ipynb) has clients that are absent, [07](07_peer_count.ipynb) fewer peers, [10](10_sensitivity.ipynb) a smaller d.
#
# **Exercise.** Your server has a link of 1 Gbit/s. With uploads every batch, what share of 100,000 clients may take part in a round?
#
# <details><summary>Solution</summary>
#
# ```python
# slower = limits._replace(server_link=limits.server_link / 10)
# for share in (1.0, 0.5, 0.3, 0.1, 0.03, 0.01):
#     print(share, scaling.breaks(scaling.plan(100_000, limits=slower, refresh="batch", share=share), slower) or "fits")
# ```
#
# The largest share that "fits" is printed beside it. With uploads once a round no share fits: the server keeps what all clients sent, 512 GB.
#
# </details>
