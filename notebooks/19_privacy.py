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
# # 19 What do uploads give away, and what does holding it back cost?
#
# FedMuscle sends representations of public samples, M-Fed parameters, CoFED votes, FedHeNN kernels. None sends private data; all depend on
# it. Four questions: is a given sample in the private set? Which classes does it have? Which task is it? What does an update show of the
# sample that made it? And: what do noise and secure sums hide, at what price?
#
# The attacker is whoever reads uploads, such as the server; it follows the protocol and chooses public samples.

# %% tags=["parameters"]
profile: str = "mini"  # "quick" plays a few short shadow federations; "mini" shows the stored ones and computes those that lack
workers: int = 2  # processes, one federation each

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from fedmuscle_core.analysis import plots, tables
from fedmuscle_core.client import local_phase
from fedmuscle_core.exchange import tuple_payload
from fedmuscle_core.experiments import shadows
from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.statistics import mean_interval
from fedmuscle_core.paths import results
from fedmuscle_core.privacy import accounting
from fedmuscle_core.privacy.attacks import detection, grams_of_sums, inverted, likelihood_ratios, psnr

plots.use_style()
torch.set_num_threads(1)
short = {"rounds": 1, "contrastive_steps": 4, "public_size": 64, "validation_size": 50, "test_size": 100} if profile == "quick" else {}
count, variants = (8, ("FedMuscle", "M-Fed")) if profile == "quick" else (shadows.SHADOWS, tuple(shadows.VARIANTS))
path = results(profile) / "privacy" / "shadows.jsonl"
records = shadows.compute(path, variants, count, workers, **short)
print(f"{len(records)} shadow federations of {len(shadows.SETUP.clients)} clients")

# %% [markdown]
# ## Is this sample in the private set?
#
# Client 1 has two-digit numbers: half of 400 candidates, drawn anew in each federation. Of every candidate one number is read from what the
# client sends in the last round:
#
# - from parameters, how sure the network is of the true answer, $\log p_y - \log (1 - p_y)$;
# - from representations, or kernels, how much nearer it lies to its class than to others;
# - from votes, whether it votes for the true answer.
#
# Then the likelihood ratio of Carlini et al. (2022): the number's normal law in the other federations that had the sample, against that in those
# without. What counts is the share of members found where hardly any other is accused.

# %%
found = {}
for variant in variants:
    several = [records[variant, shadow] for shadow in range(count)]
    values, member = (np.array(rows) for rows in ([record["values"] for record in several],
                                                  [[one == "1" for one in record["member"]] for record in several]))
    enough = (member.sum(0) >= 3) & ((~member).sum(0) >= 3)
    ratios = likelihood_ratios(values[:, enough], member[:, enough])
    found[variant] = {"ratios": ratios, "member": member[:, enough], "enough": enough,
                      "score": [record["score"]["1"] for record in several], **detection(ratios, member[:, enough])}
rows = []
for variant, one in found.items():
    settings = shadows.settings_of(variant, 0, **short)
    try:
        spent = accounting.epsilon(*shadows.privacy_of(settings, shadows.POOL // 2))
    except ValueError:                                                        # without the extra [privacy]
        spent = float("nan")
    rows.append({"what is sent": variant, "AUC": one["auc"], "found at 1 % false alarms (%)": 100 * one["tpr at 1 % fpr"],
                 "at 0.1 % (%)": 100 * one["tpr at 0.1 % fpr"], "epsilon": spent, "client 1: test score (%)": tables.mean_text(one["score"], signed=False)})
table = pd.DataFrame(rows).set_index("what is sent")
table.round(2)

# %% [markdown]
# *epsilon*: of client 1's whole run, at $\delta = 0.001$, by Opacus' accountant; infinite without DP-SGD. Contrastive steps read public samples and
# what peers sent, so that private local phases make all that a client sends private. Noise of 0.1 on representations has an epsilon, too:

# %%
settings = shadows.settings_of("FedMuscle", 0, **short)
uploads = settings.rounds * settings.method.num_batches(settings.public_size)
try:
    pd.Series({noise: accounting.epsilon_of_representations(noise, settings.method.batch_size, uploads) for noise in (0.1, 1.0, 10.0, 100.0)},
              name="epsilon").rename_axis("noise on each number").round(1)
except ValueError as error:
    print(error)

# %%
fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained")
order = table["found at 1 % false alarms (%)"].sort_values()
axes[0].barh(order.index, order, color=["#b91c1c" if value > 2 else "#737373" for value in order])
axes[0].axvline(1, color="k", lw=0.8)
axes[0].set(xlabel="members found at 1 % false alarms (%); line: chance")
scores = pd.Series({variant: mean_interval(one["score"])[0] for variant, one in found.items()})
axes[1].scatter(scores, table["AUC"], color="#1d4ed8")
for variant in scores.index:
    axes[1].annotate(variant, (scores[variant], table["AUC"][variant]), fontsize=7, xytext=(3, 3), textcoords="offset points")
axes[1].axhline(0.5, color="k", lw=0.8)
axes[1].set(xlabel="client 1: test score (%)", ylabel="AUC of the attack")
most = order.index[-1]
fig.suptitle(f"Most is given away by {most}: {order.iloc[-1]:.0f} % of the members at 1 % false alarms", x=0.01, ha="left")
plots.save_figure(fig, table.reset_index(), "19_privacy_membership", profile)

# %% [markdown]
# ## Which classes does it have?
#
# The same numbers, mean over the candidates of a class, against the share of these that are in the private set: rank correlation over the
# classes with three candidates or more, mean over federations.

# %%
_, wanted = shadows.candidates(shadows.settings_of("FedMuscle", 0, **short))
mixes = {}
for variant, one in found.items():
    classes = wanted.numpy()[one["enough"]]
    frequent = [name for name in np.unique(classes) if (classes == name).sum() >= 3]
    rhos = [spearmanr([ratios[classes == name].mean() for name in frequent], [member[classes == name].mean() for name in frequent]).statistic
            for ratios, member in zip(one["ratios"], one["member"], strict=True)]
    mixes[variant] = tables.mean_text([rho for rho in rhos if rho == rho], 2)
pd.Series(mixes, name="rank correlation of guessed and true shares").to_frame()

# %% [markdown]
# ## Which task is it?
#
# The attacker has scenes with the answers of three tasks of its own, reads what each client sends of them, and asks for which task the nearest class
# mean is right most often, compared with the other clients. Share of clients whose task it names; a guess is right for a third.

# %%
names = {}
for variant in variants:
    right = []
    for shadow in range(count):
        shares = pd.DataFrame(records[variant, shadow]["probes"]).T[list(shadows.PROBED)]
        guessed = (shares - shares.mean()).div(shares.std() + 1e-9).idxmax(axis=1)
        right.append(100 * np.mean([guess == spec.task for guess, spec in zip(guessed, shadows.SETUP.clients, strict=True)]))
    names[variant] = tables.mean_text(right, signed=False)
pd.Series(names, name="tasks named right (%)").to_frame()

# %% [markdown]
# ## What does an update show of the sample that made it?
#
# M-Fed sends parameters, so the server knows their change in a local phase. With one sample and one step that is a gradient, which is inverted
# by gradient descent on the picture (Geiping et al., 2020); what M-Fed really sends is the sum of many steps. Peak signal-to-noise ratio in dB, a
# random picture of the same kind has the one in the last row.

# %%
federation = build(shadows.settings_of("M-Fed", 0, **short))
client = federation.clients[0]
inputs, answers = client.data["train"].take(torch.arange(4))
parameters = [parameter for parameter in client.network.encoder().parameters()]
before, rows = torch.cat([parameter.detach().flatten() for parameter in parameters]), []
pictures = []
for place in range(2 if profile == "quick" else 4):
    gradient = torch.autograd.grad(client.task.loss(client.network.eval()(inputs[place:place + 1]), answers[place:place + 1]), parameters, materialize_grads=True)
    update = -torch.cat([part.flatten() for part in gradient])
    guess, cosine = inverted(client.network, client.task, update, answers[place:place + 1], inputs[place:place + 1].shape, steps=40 if profile == "quick" else 300)
    rows.append({"what is read": "one step, one sample", "cosine": cosine, "dB": psnr(guess, inputs[place:place + 1])})
    pictures.append(guess[0])
local_phase(client, 1)
update = torch.cat([parameter.detach().flatten() for parameter in parameters]) - before
guess, cosine = inverted(client.network, client.task, update, answers[:1], inputs[:1].shape, steps=40 if profile == "quick" else 300)
rows.append({"what is read": "a local phase of M-Fed", "cosine": cosine, "dB": psnr(guess, inputs[:1])})
rows += [{"what is read": "nothing: another picture", "cosine": float("nan"), "dB": psnr(inputs[place], inputs[place - 1])} for place in range(1, 4)]
inversion = pd.DataFrame(rows).groupby("what is read", sort=False).mean()
inversion.round(2)

# %%
fig = plots.scene_grid(torch.stack([*inputs[:len(pictures)], *pictures, guess[0]]),
                       [*["private"] * len(pictures), *["from one step"] * len(pictures), "from a phase"])
plots.save_figure(fig, inversion.reset_index(), "19_privacy_inversion", profile)

# %% [markdown]
# ## Matrices or sums?
#
# To save its clients work the paper's protocol sends sums of peers' rows over all tuples, ours the peers' matrices, far fewer
# bytes. Do the sums hide the peers from one another? Two tuples that differ in one place give the difference of two rows of one peer, and rows have
# length 1: every peer's inner products follow exactly. What stays hidden is where its rows point as a whole.

# %%
peers = torch.nn.functional.normalize(torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=2)
sums, _ = tuple_payload(peers, 0.2, 0.15)
error = (grams_of_sums(sums, 3, 8, 0.2) - peers @ peers.mT).abs().max().item()
print(f"Largest error of the inner products read off {len(sums)} sums: {error:.1e}")

# %% [markdown]
# ## Deviations from the paper
#
# The papers make no claim about privacy beyond that private data stay; all of this is ours: attacks that are known, on the embedded world, one
# attacked client, candidates of which half are members. DP-SGD draws Poisson samples; losses and scores that are measured are not private, and
# M-Fed has no term here (lambda 0). Secure sums (`fedmuscle_core.privacy.secure_sum`) hide single uploads where a server needs sums alone: M-Fed's
# means, FedHeNN's kernels; not FedMuscle's matrices.
#
# ## Published, and ours

# %%
pd.DataFrame([{"question": f"are members found in: {variant}?", "published": "not found",
               "ours: found at 1 % false alarms (%)": round(value, 1), "agrees?": "cannot be said"}
              for variant, value in table["found at 1 % false alarms (%)"].items()])

# %%
said = "; ".join(f"{variant} {value:.1f} %" for variant, value in table["found at 1 % false alarms (%)"].items())
print(f"Members found at 1 % false alarms: {said}. Inversion of one step: {inversion.loc['one step, one sample', 'dB']:.1f} dB, of a local phase "
      f"{inversion.loc['a local phase of M-Fed', 'dB']:.1f} dB, of nothing {inversion.loc['nothing: another picture', 'dB']:.1f} dB.")
