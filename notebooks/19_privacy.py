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
# them. Is a given sample in the private set? Which classes does a client have, and which task? What does an update show of the sample that
# made it? What do noise and sums over peers hide, and at what price?
#
# The attacker is whoever reads uploads, such as the server, which follows the protocol and chooses public samples. What was expected is in
# [data/PREDICTIONS.md](../data/PREDICTIONS.md).

# %% tags=["parameters"]
profile: str = "mini"  # "quick" plays a few short shadow federations; "mini" shows the stored ones and computes those that lack
workers: int = 2  # processes, one federation each

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "workers")

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from fedmuscle_core.analysis import lessons, plots, tables
from fedmuscle_core.exchange import tuple_payload
from fedmuscle_core.experiments import shadows
from fedmuscle_core.experiments.statistics import delta, mean_interval, relative_change
from fedmuscle_core.paths import results
from fedmuscle_core.privacy import accounting, secure_sum
from fedmuscle_core.privacy.attacks import (detection, detection_interval, grams_of_sums, guessed_tasks, likelihood_ratios, mix_correlations,
                                            rows_of_sums)

plots.use_style()
torch.set_num_threads(1)
short, steps, samples = {}, 300, 4
if profile == "quick":
    steps, samples = 20, 1
    short = {"rounds": 1, "contrastive_steps": 4, "public_size": 64, "validation_size": 50, "test_size": 100}
count, variants = (8, ("Local", "FedMuscle", "M-Fed")) if profile == "quick" else (shadows.SHADOWS, tuple(shadows.VARIANTS))
path = results(profile) / "privacy" / "shadows.ndjson"
records = shadows.compute(path, variants, count, workers, **short)
print(f"{len(records)} shadow federations of {len(shadows.SETUP.clients)} clients")
for (variant, shadow), record in records.items():
    if "failed" in record:
        print(f"{variant}, federation {shadow}: {record['failed']}; left out")
played = {variant: {shadow: records[variant, shadow] for shadow in range(count) if "failed" not in records[variant, shadow]} for variant in variants}

# %% [markdown]
# ## Is this sample in the private set?
#
# Client 1 has two-digit numbers: half of 400 candidates, drawn anew in each federation. Of every candidate one number is read from what the
# client would send next, after its last local phase, were it asked for the candidates:
#
# - from parameters, how sure the network is of the true answer, $\log p_y - \log (1 - p_y)$;
# - from representations, how sure of it a ridge head is that the attacker fits on the other candidates, whose answers she knows; beside
#   it, without a head, how much nearer the candidate lies to its class than to others (*by nearness*);
# - from FedHeNN's kernels the same, but within each batch of which one is sent: between batches nothing travels;
# - from votes, whether it votes for the true answer.
#
# Then the likelihood ratio of Carlini et al. (2022): the number's normal law in the other federations that had the sample, against that in those
# without. She knows the candidates and their answers and has played such federations herself, more than most attackers. But she reads one number
# of each, and another may tell more: what is found is a lower end of what uploads give away to her.
#
# What counts is the share of members found where hardly any other is accused: at 1 % false alarms, 1 % are found by chance. *AUC*: how often a
# member looks more like one than another sample does, 0.5 by chance. *DP-SGD*: local steps along gradients that are clipped one by one, with
# Gaussian noise of so many times the clipping length (Abadi et al., 2016). *epsilon*: how far any private sample can change the odds of what is
# sent, $e^{\varepsilon}$ times but for a chance of $\delta = 0.001$; of DP-SGD by Opacus' accountant, for the smallest private set of client 1 in
# all federations; of noise on representations for all uploads of the run and that of the candidates; infinite without either. Intervals: federations resampled, not adjusted for the number of rows. *Local*: nothing leaves; what its parameters
# would tell.

# %%
found, nearness = {}, {}
for variant in variants:
    several = list(played[variant].values())
    member = np.array([[one == "1" for one in record["member"]] for record in several])
    enough = (member.sum(0) >= 3) & ((~member).sum(0) >= 3)
    for name in shadows.NUMBERS[shadows.VARIANTS[variant][2]]:
        ratios = likelihood_ratios(np.array([record["values"][name] for record in several])[:, enough], member[:, enough])
        interval = 100 * np.array(detection_interval(ratios, member[:, enough], "tpr at 1 % fpr"))
        into = nearness if name == "margin" else found
        into[variant] = {"ratios": ratios, "member": member[:, enough], "enough": enough, **detection(ratios, member[:, enough]), "interval": interval,
                         "text": tables.interval_text(interval, signed=False)}
def uploads_of(settings):
    return settings.rounds * settings.method.num_batches(settings.public_size) + -(-shadows.POOL // settings.method.batch_size)


rows = []
for variant, one in found.items():
    settings, fewest = shadows.settings_of(variant, 0, **short), min(record["member"].count("1") for record in played[variant].values())
    spent = accounting.epsilon(*shadows.privacy_of(settings, fewest)) if not getattr(settings.method, "noise", 0) else (
        accounting.epsilon_of_representations(settings.method.noise, settings.method.batch_size, uploads_of(settings)))
    rows.append({"what is sent": variant, "AUC": round(one["auc"], 2), "found at 1 % false alarms (%)": one["text"],
                 "by nearness (%)": nearness[variant]["text"] if variant in nearness else "-",
                 "at 0.1 % (%)": round(100 * one["tpr at 0.1 % fpr"], 1), "epsilon": "no bound" if spent == float("inf") else f"{spent:.1f}",
                 "client 1: test score (%)": tables.mean_text([record["score"]["1"] for record in played[variant].values()], signed=False)})
table = pd.DataFrame(rows).set_index("what is sent")
table

# %% [markdown]
# Contrastive steps read public samples and what peers sent, so that private local phases cover what they give as well; not losses and scores,
# which are measured here and told. DP-SGD runs at the learning rate that was tuned without noise, and with clipping length 1: neither was tuned
# for it, and its price is an upper end. Noise on representations has an epsilon of its own; of the noises below the three least were played, what
# the others leave to learn from was not measured. Of all uploads of the run and that of the candidates:

# %%
settings = shadows.settings_of("FedMuscle", 0, **short)
pd.Series({noise: accounting.epsilon_of_representations(noise, settings.method.batch_size, uploads_of(settings)) for noise in (0.03, 0.1, 0.3, 1.0, 10.0, 100.0)},
          name="epsilon").rename_axis("noise on each number").round(1).to_frame()

# %% [markdown]
# Privacy against gain: of client 1 members are found, all three clients pay. Delta: change of a client's score in percent of that when it trains
# alone on the same private set, mean over the three clients and over federations.

# %%
scores = pd.DataFrame([{"method": variant, "seed": shadow, "client": client, "value": value} for variant, several in played.items()
                       for shadow, record in several.items() for client, value in record["score"].items()])
alone = scores[scores["method"] == "Local"].groupby("seed")["value"].min()
changes = relative_change(scores[scores["seed"].isin(alone[alone > 0].index)], "Local")
gains = dict.fromkeys(variants, {}) | {variant: several.set_index("seed")["delta"].to_dict() for variant, several in delta(changes).groupby("method")}  # by shadow
fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained")
bars = pd.DataFrame({variant: one["interval"] for variant, one in found.items()}, index=["found", "low", "high"]).T.sort_values("found")
order = bars["found"]
axes[0].barh(order.index, order, xerr=[order - bars["low"], bars["high"] - order], color=["#b91c1c" if low > 1 else "#a3a3a3" for low in bars["low"]])
axes[0].axvline(1, color="k", lw=0.8)
axes[0].set(xlabel="members found at 1 % false alarms (%); line: chance; red: above it")
worth = pd.Series({variant: np.mean(list(several.values())) for variant, several in gains.items() if several})
axes[1].scatter(worth, bars["found"][worth.index], color="#1d4ed8")
for variant in worth.index:
    axes[1].annotate(variant, (worth[variant], bars["found"][variant]), fontsize=7, xytext=(3, 3), textcoords="offset points")
axes[1].axhline(1, color="k", lw=0.8)
axes[1].axvline(0, color="k", lw=0.8, ls=":")
axes[1].set(xlabel="Delta, mean over clients (%); dotted: Local", ylabel="found at 1 % false alarms (%)")
above = [variant for variant in order.index if bars["low"][variant] > 1]
fig.suptitle(f"Members are shown to be found above chance from: {'; '.join(above) or 'none of these'}", x=0.01, ha="left")
plots.save_figure(fig, bars.assign(delta=worth).reset_index(names="what is sent"), "19_privacy_membership", profile)

# %% [markdown]
# ## Which classes does it have?
#
# The same numbers, mean over the candidates of a class, against the share of these that are in the private set: rank correlation over the
# classes with three candidates or more, mean over federations.

# %%
_, wanted = shadows.candidates(shadows.settings_of("FedMuscle", 0, **short))
mixes = {}
for variant, one in found.items():
    rhos = mix_correlations(one["ratios"], one["member"], wanted.numpy()[one["enough"]])
    mixes[variant] = tables.mean_text(rhos[rhos == rhos], 2)
pd.Series(mixes, name="rank correlation of guessed and true shares").to_frame()

# %% [markdown]
# ## Which task is it?
#
# The server knows: clients register their task. A peer, or whoever else reads representations, may have scenes with the answers of three tasks,
# and asks for which task the nearest class mean in a client's representations is right most often, compared with the other clients. Share of
# clients whose task it names; a guess is right for a third. Votes tell a task by their shape; parameters here do not tell `mlc` from `ic10`,
# which have ten outputs each.

# %%
own = {str(place): spec.task for place, spec in enumerate(shadows.SETUP.clients, 1)}
tasks = {}
for variant in [variant for variant in variants if shadows.VARIANTS[variant][2] == "representations"]:
    right = [100 * np.mean([task == own[client] for client, task in guessed_tasks(record["probes"]).items()]) for record in played[variant].values()]
    tasks[variant] = tables.mean_text(right, signed=False)
pd.Series(tasks, name="tasks named right (%)").to_frame()

# %% [markdown]
# ## What does an update show of the sample that made it?
#
# M-Fed sends parameters, so the server knows their change in a local phase. Of one sample and one plain gradient step that would be a gradient, which
# is inverted by gradient descent on the picture (Geiping et al., 2020): an upper end, as clients here step by AdamW, which sends hardly more than
# signs; what M-Fed really sends is the sum of many such steps. Peak signal-to-noise ratio in dB, of a
# step to the picture that it was made on, of a phase the best over all private pictures; *nothing*: of the mean public picture to the same ones.

# %%
found_back = shadows.inversions(path.with_name("inversion.json"), samples, steps, **short)
inversion = pd.DataFrame(found_back["rows"]).groupby("read", sort=False).mean()
inversion.round(1)

# %%
shown = [f"{kind} {place}" for place in range(samples) for kind in ("private", "one step")] + ["a phase"]
fig = plots.scene_grid(torch.stack([shadows.picture_of(found_back, name) for name in shown]), shown)
step, phase = (inversion.loc[read] for read in ("one step, one sample", "a local phase"))
fig.suptitle(f"One step on a picture shows it at {step['psnr']:.0f} dB (nothing: {step['nothing']:.0f}), a whole phase the likest of all at "
             f"{phase['psnr']:.0f} (nothing: {phase['nothing']:.0f})", x=0.01, ha="left")
plots.save_figure(fig, inversion.reset_index(), "19_privacy_inversion", profile)

# %% [markdown]
# ## Matrices or sums?
#
# To save its clients work the paper's protocol sends sums of peers' rows over all tuples, ours the peers' matrices, far fewer bytes. Do the sums hide
# the peers from one another? Two tuples that differ in one place give the difference $D_j = z_j - z_0$ of two rows of one peer, and as both have
# length 1, $z_0 \cdot D_j = - |D_j|^2 / 2$. So every peer's inner products follow exactly, and its rows but for the part of them at right angles to
# all differences; with more rows than dimensions there is none. Share of the rows' squared length that differences do not tell, an upper end of
# what sums hide, as the sums themselves and the weights that go with them tell more. Made-up rows, at random or with a common part: what a batch has
# in common is what differences hide.

# %%
rows = {}
for batch, dim, alike in ((8, 32, 0.0), (40, 32, 0.6), (32, 256, 0.0), (32, 256, 0.6)):
    rng = torch.Generator().manual_seed(0)
    common, own = (torch.nn.functional.normalize(torch.randn(2, count, dim, generator=rng, dtype=torch.float64), dim=2) for count in (1, batch))
    peers = torch.nn.functional.normalize(alike ** 0.5 * common + (1 - alike) ** 0.5 * own, dim=2)
    sums, _ = tuple_payload(peers, 0.2, 0.15)
    exact = (grams_of_sums(sums, 2, batch, 0.2) - peers @ peers.mT).abs().max() < 1e-9
    rows[f"B = {batch}, d = {dim}, mean cosine {alike:g}"] = {
        "inner products exact": bool(exact), "rows not told by differences (%)": round(100 * (peers - rows_of_sums(sums, 2, batch, 0.2)).square().sum(2).mean().item(), 1)}
pd.DataFrame(rows).T

# %% [markdown]
# Where a server needs nothing but a sum over clients, uploads can be masked: each pair of clients adds and takes off the same random numbers,
# modulo $2^{64}$. One upload says nothing, the sum of these integers is exact. FedAvg, FedProx, encoder-only and M-Fed do so with `masked=True`:
# each client sends its parameters times their share in the mean. The price: 8 bytes a number go up instead of 4 (down as before), a mean that lacks
# one upload is lost, and who spoils one cannot be named. With two clients a mean still tells each of them the other's part. FedHeNN's mean kernel
# could be had likewise, which is not built. With kernels for numbers:

# %%
kernels = {client: torch.nn.functional.normalize(torch.randn(32, 256, generator=torch.Generator().manual_seed(client)), dim=1) for client in (1, 2, 3)}
kernels = {client: rows @ rows.T for client, rows in kernels.items()}
uploads = {client: secure_sum.masked(kernel, client, [1, 2, 3], lambda one, other: 1000 * one + other) for client, kernel in kernels.items()}
seen = np.corrcoef(uploads[1].astype(float).ravel(), kernels[1].numpy().ravel())[0, 1]
print(f"correlation of an upload with its kernel: {seen:+.3f} (of {kernels[1].numel()} random numbers: within {2 / kernels[1].numel() ** 0.5:.3f}); "
      f"largest error of the sum: {(secure_sum.unmasked_sum(list(uploads.values())) - sum(kernels.values())).abs().max():.0e}; "
      f"bytes of an upload: {uploads[1].nbytes / kernels[1].nbytes:g} times those of its numbers")

# %% [markdown]
# ## Deviations from the paper
#
# The papers make no claim about privacy beyond that private data stay; all of this is ours: attacks that are known, on the embedded world, one
# attacked client, candidates of which half are members. The attacks on representations ask for those of the candidates; what travels in a run is
# of public scenes, and was not attacked. M-Fed has Local's tuned values and no term (lambda 0), the others their own. DP-SGD draws
# Poisson samples, by a loop of our own, a sample at a time, as Opacus does not take these networks and optimisers as they are; its accountant is
# used. FedMuscle needs the matrices: secure sums do not serve it. They were not attacked here, and how clients agree on seeds is left out.
#
# ## Published, and ours

# %%
low, share = bars["low"].to_dict(), bars["found"].to_dict()
came = {"M-Fed": low["M-Fed"] > 1 and share["M-Fed"] > 2, "FedMuscle": low["FedMuscle"] > 1 and share["FedMuscle"] < share["M-Fed"],
        **{variant: low[variant] <= 1 for variant in ("M-Fed, DP-SGD 1", "FedMuscle, DP-SGD 1") if variant in low}}
expected = {"M-Fed": "yes, more than 2 %", "FedMuscle": "yes, less than M-Fed", "M-Fed, DP-SGD 1": "no", "FedMuscle, DP-SGD 1": "no"}
pd.DataFrame([{"question": f"are members found in: {variant}?", "published": "not found", "we expected": expected.get(variant, "-"),
               "ours: found at 1 % false alarms (%)": value, "came out?": "yes" if came.get(variant) else "no" if variant in came else "-"}
              for variant, value in table["found at 1 % false alarms (%)"].items()])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
told = "; ".join(f"{variant}: {value}" for variant, value in table["found at 1 % false alarms (%)"].items())
bare = {variant: variant.split(",")[0] for variant in variants if "," in variant}
pairs = {variant: [gains[variant][shadow] - gains[other][shadow] for shadow in gains[variant].keys() & gains[other].keys()] for variant, other in bare.items()}
paid = {variant: mean_interval(several) for variant, several in pairs.items() if several}
lacking = {variant: count - len(several) for variant, several in (gains | pairs).items() if len(several) < count}
lessons.learned(
    f"That members of a private set are found above chance is shown from: {'; '.join(above) or 'none of these'}.",
    f"Found at 1 % false alarms, in percent (chance: 1): {told}.",
    "Likewise by nearness, without a head: " + "; ".join(f"{variant}: {one['text']}" for variant, one in nearness.items()) + ".",
    *(lessons.says(cost, f"{variant}: the clients gain by the defence", f"{variant}: the clients pay for the defence",
                   f"{variant}: a price for the clients is not shown", "points of Delta, mean over clients") for variant, cost in paid.items()),
    f"Of {count} federations of each kind, left out of Delta and prices, as they or what they are held against diverged or scored 0: "
    f"{'; '.join(f'{variant}: {several}' for variant, several in lacking.items()) or 'none'}.",
    "Guessed and true shares of classes, rank correlation: " + "; ".join(f"{variant}: {value}" for variant, value in mixes.items()) + ".",
    "Tasks named right from representations, in percent (a guess: 33): " + "; ".join(f"{variant}: {value}" for variant, value in tasks.items()) + ".",
    f"Likeness of what is read to a private picture: from the gradient of one step on it {step['psnr']:.1f} dB (mean of {samples}; the mean public "
    f"picture to the same: {step['nothing']:.1f}), from a whole local phase {phase['psnr']:.1f} (the likest of all private ones; likewise {phase['nothing']:.1f}).",
    ("Sums over tuples tell all inner products of a peer's rows, as matrices do" if all(row["inner products exact"] for row in rows.values())
     else "Sums over tuples do not tell all inner products of a peer's rows")
    + "; of the rows themselves differences leave at most " + ", ".join(f"{row['rows not told by differences (%)']:.1f} % with {case}" for case, row in rows.items()) + ".")

# %% [markdown]
# ## What to try next
#
# Next: [SECURITY.md](../SECURITY.md) says who sees what in a deployment; [21](21_many_machines.ipynb) how one is set up.
#
# **Exercise.** How much noise gives an epsilon of 8 to a client that trains for twice as many rounds?
#
# <details><summary>Solution</summary>
#
# ```python
# settings = shadows.settings_of("FedMuscle, DP-SGD 1", 0, **short)
# longer = settings.replace(rounds=2 * settings.rounds)
# for noise in (0.8, 0.9, 1.0, 1.1, 1.2):
#     print(noise, *(round(accounting.epsilon(noise, *shadows.privacy_of(one, shadows.POOL // 2)[1:]), 1) for one in (settings, longer)))
# ```
#
# First number: the rounds as they are, second: twice as many. 0.9 is enough for the first, 1.1 for the second: epsilon grows about with the square root of
# the number of steps.
#
# </details>
