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
# # 20 Do two losses that take turns come to rest, and which schedule of the contrastive rate is safe?
#
# Every round of FedMuscle first aligns and then trains locally. We found no proof of convergence in the papers. Here the question is asked three times: of a
# federation that can be solved on paper, of the same by simulation, and of the real one, over a hundred rounds with both phases measured.

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from fedmuscle_core.analysis import effects, lessons, plots, stability, tables
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.runs import sweep_groups
from fedmuscle_core.experiments.statistics import failures, holm_intervals, last_validation, mean_interval, verdict
from fedmuscle_core.methods import FedMuscle
from fedmuscle_core.paths import results

plots.use_style()

# %% [markdown]
# ## A federation that can be solved
#
# Client $n$ has one number $w_n$ in each direction of the public data. Its local loss is $\frac{h}{2} (w_n - a_n)^2$, its contrastive loss
# $\frac{c}{2} \sum_m (w_n - w_m)^2$ over $M$ peers, which are constant; all clients step at once, by gradient descent. In $E$ local steps the
# distance to $a_n$ is multiplied by $\rho_l = (1 - \eta_l h)^E$. In $T$ contrastive steps the mean over clients stays, and every difference
# between clients is multiplied by
#
# $$\rho_c = \Big( 1 - \eta_c \, c \, \frac{M N}{N - 1} \Big)^T ,$$
#
# as both ends of a difference move: exactly where all others are peers, on average where fewer are drawn. So a round maps the gap of two
# clients, $\delta \mapsto \rho_l \rho_c \, \delta + (1 - \rho_l)(a_1 - a_2)$. It comes to rest if and only if $|\rho_l \rho_c| < 1$, at
#
# $$\delta^* = (a_1 - a_2) \, \frac{1 - \rho_l}{1 - \rho_l \rho_c} ,$$
#
# and alignment alone drives clients apart from $\eta_c = 2 a / (c \, (a^2 + b))$ on, with $a = M N / (N - 1)$ and $b = M (N - 1 - M) / (N - 1)$: drawing
# peers adds $b$ to the mean square, and where all others are peers it is 0. Even at rest the phases do not: each round alignment
# takes $(1 - \rho_c) \, \delta^*$ away and the local phase gives it back. With a constant rate this tug of war never ends; it is proportional
# to $\eta_c T$ where that is small.

# %%
values = {"local_rate": 0.1, "local_steps": 5, "contrastive_steps": 8}
limit = stability.largest_rate(1.0)
fig, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
drawn = []
for ax, (name, rate) in zip(axes, (("a small rate", 0.02), ("a large one", 0.9 * limit), ("beyond the limit", 1.12 * limit)), strict=True):
    path = stability.play([1.0, -0.5], 25, contrastive_rate=rate, **values)
    gaps = (path[..., 0] - path[..., 1]).ravel()
    rhos = stability.contraction(0.1, 1.0, 5), stability.contraction(rate, stability.spread(2, 1), 8)
    ax.plot(np.arange(1, 51) / 2, gaps, "o-", markersize=2.5)
    if abs(rhos[0] * rhos[1]) < 1:
        ax.axhline(stability.resting_gap(1.5, *rhos), color="k", lw=0.8, ls="--")
    ax.set(title=f"{name}: {rate:.2f}", xlabel="round")
    drawn += [{"rate": rate, "half round": place, "gap": gap} for place, gap in enumerate(gaps, 1)]
axes[0].set_ylabel("gap of the two clients")
axes[-1].set_yscale("symlog")
fig.suptitle("The two phases pull the gap to and fro; dashed: where a round ends at rest, by the formula", x=0.01, ha="left")
plots.save_figure(fig, pd.DataFrame(drawn), "20_convergence_solved", profile)

# %% [markdown]
# Five clients with two peers drawn at random for every step, against the formula, which holds for the mean over draws:

# %%
optima = np.array([1.0, -0.5, 0.3, 2.0, -1.2])
ends = np.mean([stability.play(optima, 60, contrastive_rate=0.03, num_peers=2, seed=seed, **values)[-1, 1] for seed in range(200)], axis=0)
rhos = stability.contraction(0.1, 1.0, 5), stability.contraction(0.03, stability.spread(5, 2), 8)
formula = optima.mean() + stability.resting_gap(optima - optima.mean(), *rhos)
pd.DataFrame({"own optimum": optima, "at rest, formula": formula, "at rest, mean of 200 plays": ends},
             index=pd.RangeIndex(1, 6, name="client")).round(3)

# %% [markdown]
# ## The condition, put to the real code
#
# `Federation` and FedMuscle as they are, but for gradient descent in the place of AdamW, with two linear clients of one number each, the angle by which
# they turn points of a plane. Their Muscle loss hangs on the difference of the angles alone, and both losses are quadratic where that is small; $h$ and $c$
# are second derivatives of the losses themselves. *Alignment alone*: by what a contrastive phase of $T = 8$ steps multiplies the gap. *At rest*: the gap after
# 30 rounds with local phases, over that of the clients' own optima; not asked beyond the largest rate, where angles do not stay small.

# %%
h, c = stability.turning_curvatures()
limit, alone, both = stability.largest_rate(c), {"local_rate": 1e-12, "local_steps": 1, "contrastive_steps": 8}, {
    "local_rate": 0.4, "local_steps": 3, "contrastive_steps": 8}
rows = []
for share in (0.02, 0.1, 0.5, 0.9, 0.98, 1.02, 1.1):
    rhos = stability.contraction(0.4, h, 3), stability.contraction(share * limit, c * stability.spread(2, 1), 8)
    phase = stability.turning_federation([-0.005, 0.005], 1, contrastive_rate=share * limit, **alone)[-1]
    rest = stability.turning_federation([-0.005, 0.005], 30, contrastive_rate=share * limit, **both)[-1] if share < 1 else [np.nan] * 2
    rows.append({"rate over the largest": share, "alignment alone: formula": abs(rhos[1]), "alignment alone: measured": abs(np.ptp(phase)) / 0.01,
                 "at rest: formula": stability.resting_gap(1.0, *rhos) if share < 1 else np.nan, "at rest: measured": np.diff(rest)[0] / 0.01})
real = pd.DataFrame(rows).set_index("rate over the largest")
real.round(3).astype(object).fillna("-")

# %% [markdown]
# What it predicts for the federation of images: with a constant rate the local phase takes back what alignment did, the two displacements point
# against one another (a cosine of -1 at rest), and drift grows with the rate; a rate that falls to 0 ends it. The optimiser of the real one
# is AdamW, which moves by about its rate whatever the gradient, so drift that stays and grows with the rate would show without a tug of war as
# well. Nor does any negative cosine prove one: two phases that only jitter about one point have -0.5. Only a cosine clearly below that tells.
#
# ## A hundred rounds of the real one
#
# Three clients of Setup 1 with each other as peers. Drift: mean squared distance by which a phase moves the unit-length representations of 64
# public samples; gradients are those of both losses on these and on 64 private samples, at the end of a round, the same samples always. The tuned
# contrastive rate times a factor, constant over the rounds; at the tuned rate and the highest factor two more schedules from the same rate on: cosine
# to 0, one over the square root of the round.

# %%
runs = sweep_groups(ablations.by_rate_and_schedule(profile, seeds), results(profile), workers)
print(f"{len(set(plans.notebook_20(profile, seeds)))} runs are behind this notebook")
lost = {key: text for (key, method), (_, history) in runs.items() for text in failures(history).values()}
for key, text in lost.items():
    print(f"rate x {key[0]:g}, {key[1]}: {text}; it is left out of the means below")
traced = {key: history for (key, method), (_, history) in runs.items() if method == "fedmuscle_traced" and key not in lost}


def measured(history, name):
    """Mean over clients and seeds of what was measured, by round."""
    return history[history["metric"] == name].groupby("round")["value"].mean()


usual, highest = traced.get((1.0, "constant")), max(ablations.RATE_FACTORS)
factors = [factor for factor, schedule in traced if schedule == "constant"]
fig, axes = plt.subplots(1, len(factors), figsize=(3 * len(factors), 3), sharey=True, layout="constrained", squeeze=False)
drawn = []
for ax, factor in zip(axes[0], sorted(factors), strict=True):
    for name, colour in (("drift_contrast", "#2563eb"), ("drift_local", "#d97706"), ("drift_round", "#111827")):
        curve = measured(traced[factor, "constant"], name)
        ax.plot(curve, color=colour, label=name.replace("drift_", "").replace("contrast", "alignment"))
        drawn.append(curve.rename("value").reset_index().assign(factor=factor, measure=name))
    ax.set(title=f"rate x {factor:g}", xlabel="round", yscale="log")
axes[0, 0].set_ylabel("drift")
axes[0, -1].legend()
ends = "the federation diverges" if usual is None else (
    f"the cosine between the two phases' displacements ends at {measured(usual, 'drift_cosine').iloc[-10:].mean():+.2f} (jitter alone: -0.5)")
fig.suptitle(f"Constant rates; at the tuned one {ends}", x=0.01, ha="left")
plots.save_figure(fig, pd.concat(drawn), "20_convergence_drift", profile)

# %% [markdown]
# Gradients at the end of a round: lengths, and the cosine between them; above 0, both losses fall together.

# %%
names = {"gradient_contrast": "length, contrastive", "gradient_local": "length, local", "gradient_cosine": "cosine of gradients",
         "drift_cosine": "cosine of displacements"}
last = {factor: {text: measured(traced[factor, "constant"], name).iloc[-10:].mean() for name, text in names.items()} for factor in sorted(factors)}
first = {f"{factor:g}, first ten rounds": {text: measured(traced[factor, "constant"], name).iloc[:10].mean() for name, text in names.items()}
         for factor in sorted(factors)}
pd.DataFrame({**first, **{f"{factor:g}, last ten rounds": row for factor, row in last.items()}}).T.rename_axis("rate x").round(3)

# %% [markdown]
# ## How much of the local drift is alignment's doing?
#
# Where the contrastive rate has fallen to 0, at the end of the cosine schedule, local training still drifts by itself. Mean over the last ten rounds;
# *slope*: of drift against the rate, both in logarithms, 2 in the solved case and for an optimiser that moves by its rate.

# %%
late = {key: {name: measured(history, name).iloc[-10:].mean() for name in ("drift_contrast", "drift_local", "drift_round", "drift_cosine")}
        for key, history in traced.items() if key[1] in ("constant", "cosine")}
pd.DataFrame(late).T.rename_axis(["rate x", "schedule"]).round(4)

# %%
ends = pd.DataFrame([{"factor": factor, "seed": seed, "drift": rows.query("metric == 'drift_contrast'").groupby("round")["value"].mean().iloc[-10:].mean()}
                     for (factor, schedule), history in traced.items() if schedule == "constant" for seed, rows in history.groupby("seed")])
slopes = [np.polyfit(np.log(rows["factor"]), np.log(rows["drift"]), 1)[0] for _, rows in ends.groupby("seed") if len(rows) > 1]
slope = mean_interval(slopes) if slopes else (np.nan, np.nan, np.nan)
print(f"slope {tables.interval_text(slope, 2)} over {tables.seeds_text(len(slopes))}")

# %% [markdown]
# ## Which schedule?
#
# Change in log-odds against training alone for as many rounds, at equal rates of the first round, which is what one sets: each client tested at its best validation round, and below,
# on validation samples, at the last round, where late harm shows.

# %%
table = effects.measure({(", ".join(map(str, key)) if isinstance(key, tuple) else key, method): found for (key, method), found in runs.items()
                         if key not in lost})
gains = table[table["method"] == "fedmuscle_traced"].assign(
    factor=lambda rows: rows["value"].str.split(", ").str[0].astype(float), schedule=lambda rows: rows["value"].str.split(", ").str[1])
gains.groupby(["schedule", "factor"])["log_odds"].apply(lambda values: tables.mean_text(values, 2)).unstack()

# %%
alone, rows = last_validation(runs[None, "local"][1]), []
for (factor, schedule), history in traced.items():
    change = (last_validation(history) - alone).groupby("seed").mean()
    rows += [{"schedule": schedule, "factor": factor, "seed": seed, "last": value} for seed, value in change.items()]
last_round = pd.DataFrame(rows)
last_round.groupby(["schedule", "factor"])["last"].apply(lambda values: tables.mean_text(values, 2)).unstack()

# %% [markdown]
# The safe schedule is the one that still does well where the rate was chosen badly. Each against the constant one at each factor, intervals by Holm
# over all of a table; a run that diverged counts as the worst of all.

# %%
def against_constant(scores, name):
    """{(schedule, factor): (mean, low, high) of the paired difference to the constant rate}, where both came to an end."""
    wide = scores.pivot_table(index="seed", columns=["schedule", "factor"], values=name)
    pairs = {(schedule, factor): (wide[schedule, factor] - wide["constant", factor]).dropna() for schedule, factor in wide
             if schedule != "constant" and ("constant", factor) in wide}
    several = min(map(len, pairs.values()), default=0) > 1
    rows = holm_intervals(pairs)[["mean", "low", "high"]].to_numpy() if several else [mean_interval(values) for values in pairs.values()]
    return {pair: tuple(row) for pair, row in zip(pairs, rows, strict=True)}


def outcome(found, schedule, factor):
    """(in words, what is shown) of a schedule against the constant rate; "higher" where that alone diverged."""
    if (factor, "constant") in lost:
        return ("both diverged", "-") if (factor, schedule) in lost else ("the constant rate diverged, this one did not", "higher")
    if (factor, schedule) in lost:
        return "it diverged, the constant rate did not", "lower"
    return tables.interval_text(found[schedule, factor], 2), verdict(found[schedule, factor])


against = {tested: against_constant(scores, name) for tested, scores, name in (
    ("best round, test", gains, "log_odds"), ("last round, validation", last_round, "last"))}
falling = [(key[1], key[0]) for key, method in runs if method == "fedmuscle_traced" and key[1] != "constant"]
pd.DataFrame([{"tested at": tested, "schedule": schedule, "rate x": factor, **dict(zip(("minus constant (log-odds)", "shown"), outcome(found, schedule, factor), strict=True))}
              for tested, found in against.items() for schedule, factor in falling])

# %% [markdown]
# ## Longer phases
#
# Four times the contrastive steps [T], or the local epochs and least local steps [E], at the tuned rate; the last ten rounds.

# %%
LONGER = {"contrastive_steps 48": "four times T", "local_epochs 4, min_local_steps 40": "four times E"}
phases = sweep_groups(ablations.by_phases(profile, seeds), results(profile), workers)
phase = pd.DataFrame({name: {measure: measured(history, measure).iloc[-10:].mean() for measure in ("drift_contrast", "drift_local", "drift_round", "drift_cosine", "gradient_cosine")}
                      for (name, _), (_, history) in phases.items() if not failures(history)}).T.rename(LONGER)
phase.round(4)

# %% [markdown]
# ## Deviations from the paper
#
# The solved case, what is measured, and the schedules are ours; the sources name no schedule. Gradient descent in the solved case and where it is put to
# the real code, AdamW in the federation of images.
#
# ## Published, and ours

# %%
late_of, answers = late.get((1.0, "constant")), [("drift against the rate, slope of logarithms", "less than 2", tables.interval_text(slope, 2), slope[2] < 2)]
answers.append(("do the phases point against one another in late rounds? (cosine)", "below -0.5", *(
    ("diverged", False) if late_of is None else (f"{late_of['drift_cosine']:+.2f}", late_of["drift_cosine"] < -0.5))))
for tested, found in against.items():
    for schedule, factor in falling:
        if factor == highest:
            said, shown = outcome(found, schedule, factor)
            answers.append((f"{schedule} above constant at rate x {highest:g}, {tested}", "yes", said, shown == "higher"))
pd.DataFrame([{"question": question, "published": "not found", "we expected": expected, "ours": answer, "came out?": "yes" if came else "no"}
              for question, expected, answer, came in answers])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
WAYS = {"constant": "a constant rate", "cosine": "a cosine that falls to 0", "sqrt": "one over the square root of the round"}
lowest = last_round[last_round["factor"].isin(ablations.FALLING_FACTORS)].groupby(["schedule", "factor"])["last"].mean().groupby("schedule").min()
lowest = lowest.where([not any((factor, schedule) in lost for factor in ablations.FALLING_FACTORS) for schedule in lowest.index], -np.inf)
apart = {name: (real[f"{name}: measured"] - real[f"{name}: formula"]).abs().max() for name in ("alignment alone", "at rest")}
lessons.learned(
    f"Two linear clients in the real code: a contrastive phase multiplies their gap by what the formula says, within {apart['alignment alone']:.1g}, at rest the gap is "
    f"the formula's share of that of their own optima within {apart['at rest']:.1g}; alignment alone still draws them together at "
    f"{real.index[real['alignment alone: measured'] < 1].max():g} times the largest rate and drives them apart from {real.index[real['alignment alone: measured'] > 1].min():g} times on.",
    "At the tuned, constant rate the federation diverges." if usual is None else
    f"In the last ten of {usual['round'].max()} rounds at the tuned, constant rate alignment moves representations by a mean squared distance of "
    f"{late_of['drift_contrast']:.4f} a round, local training by {late_of['drift_local']:.4f}, at a cosine of {late_of['drift_cosine']:+.2f}; "
    f"a whole round moves them by {late_of['drift_round']:.4f} (at rest: 0).",
    f"Slope of alignment's drift against its rate, in logarithms: {tables.interval_text(slope, 2)}; where it can be solved, it is 2 for small rates." if slopes else None,
    *dict.fromkeys(lessons.says(found[schedule, factor], f"At {factor:g} times the tuned rate {WAYS[schedule]} is safer than a constant rate",
                                f"At {factor:g} times the tuned rate {WAYS[schedule]} is less safe than a constant rate",
                                f"At {factor:g} times the tuned rate {WAYS[schedule]} against a constant rate: no difference shown", f"in log-odds, {tested}, by Holm", 2)
                   if (schedule, factor) in found else f"At {factor:g} times the tuned rate, {WAYS[schedule]}: {outcome(found, schedule, factor)[0]}."
                   for tested, found in against.items() for schedule, factor in falling if factor == highest),
    f"Highest in the last round at its own worst rate, without a test: {WAYS[lowest.idxmax()]}. Default of the package: {WAYS[FedMuscle().schedule]}.",
    "Alignment's drift and the local phase's, against those of the phases as they are: " + "; ".join(
        f"{name} {phase.loc[name, 'drift_contrast'] / phase.loc['as they are', 'drift_contrast']:.1f} and "
        f"{phase.loc[name, 'drift_local'] / phase.loc['as they are', 'drift_local']:.1f} times" for name in phase.index if name in LONGER.values()) + "."
    if "as they are" in phase.index and len(phase) > 1 else None)

# %% [markdown]
# ## What to try next
#
# Next: [10](10_sensitivity.ipynb) varies the rate itself; [02](02_setup1.ipynb) shows the curves of all methods.
#
# **Exercise.** In the solved federation: how strong must alignment be, that the gap at rest is half of what local training alone would leave?
#
# <details><summary>Solution</summary>
#
# $\delta^* = (a_1 - a_2) / 2$ where $1 - \rho_l \rho_c = 2 (1 - \rho_l)$, so at $\rho_c = 2 - 1 / \rho_l$: with $\rho_l = 0.8$ at 0.75.
#
# </details>
