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
# # 22 Which single number says fairly what a federation did for all of its clients?
#
# The paper reports Delta, the mean relative change against training alone, and asks for a number that does not hide who pays. With
# $P_n$ the score of client $n$ as a share and $g_n = \operatorname{logit} P_n - \operatorname{logit} P_n^{\text{Local}}$ its change in
# log-odds, four numbers:
#
# $$\Delta = \frac{100}{N} \sum_n \frac{P_n - P_n^{\text{Local}}}{P_n^{\text{Local}}}, \qquad
# \bar g = \frac{1}{N} \sum_n g_n, \qquad
# \text{worst third of the relative changes}, \qquad
# G = - \log \frac{1}{N} \sum_n e^{-g_n} .$$
#
# The last one, the *fair gain*, is our proposal: $e^{-g_n}$ is how many times the odds of a failure are what training alone gives, and $G$
# is the mean of these factors, as log-odds again. The first three are common; here they are asked the same questions, and then put to all stored
# runs of this companion.

# %% tags=["parameters"]
profile: str = "mini"  # the stored runs of "mini" and "foundation" are shown in every profile
seeds: list = []  # empty: those of the tables

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seeds")

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import kendalltau

from fedmuscle_core.analysis import lessons, plots, rankings, tables
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.runs import stored
from fedmuscle_core.experiments.statistics import (
    NUMBERS,
    RISES,
    client_weights,
    fair_mean,
    final_scores,
    finished,
    flips,
    overall_numbers,
)
from fedmuscle_core.methods import METHODS
from fedmuscle_core.paths import results

plots.use_style()

# %% [markdown]
# ## What one would ask of it
#
# Four clients, scores in percent before and after. A fair number should not change its mind where errors are scored instead of
# successes (changes then count the other way round), should not hang on one client near zero, and should count the worst client, not it alone.

# %%
questions = {
    "all four double their odds": ([20, 40, 60, 80], [33.3, 57.1, 75, 88.9]),
    "the same, with errors near 0": ([5, 10, 90, 95], [9.5, 18.2, 94.7, 97.4]),
    "one rises from 1 to 10 %, three lose a little": ([1, 50, 50, 50], [10, 45, 45, 45]),
    "one doubles, one halves": ([20, 20, 40, 40], [40, 20, 20, 40]),
    "the same, errors scored": ([80, 80, 60, 60], [60, 80, 80, 60]),
    "three gain a little, one falls to half": ([60, 60, 60, 60], [65, 65, 65, 30]),
}
rows = {}
for question, (before, after) in questions.items():
    before, after, sign = np.array(before), np.array(after), -1 if "errors scored" in question else 1
    changes, gains = sign * 100 * (after / before - 1), sign * (logit(after / 100) - logit(before / 100))
    rows[question] = [changes.mean(), gains.mean(), np.sort(changes)[:2].mean(), fair_mean(gains)]
asked = pd.DataFrame(rows, index=["Delta (%)", "log-odds", "worst third (%)", "fair gain"]).T
asked.round(2)

# %% [markdown]
# ## Why this mean and no other
#
# Ask of a number $G(g_1, \ldots, g_N)$ that
#
# 1. clients that all gain $g$ have $G = g$, their order does not matter, it is continuous, and a gain of any one client raises it;
# 2. a group of clients may be replaced by as many that all have the group's own $G$;
# 3. $c$ more for everybody is $c$ more for $G$, wherever they start;
# 4. log-odds given by a better client to a worse one raise it.
#
# By 1 and 2 it is $\varphi^{-1}\big(\frac{1}{N} \sum_n \varphi(g_n)\big)$ for some monotone $\varphi$ (Kolmogorov, Nagumo, de Finetti); by 3
# $\varphi$ is linear or exponential, and by 4 it is $\varphi(g) = -e^{-\lambda g}$ with $\lambda > 0$. We take $\lambda = 1$, where a client
# counts by the odds of its failures relative to training alone. As functions of the gains, $\bar g$ fails 4 and a mean over the worst third 1
# and 2; Delta and the worst third of relative changes depend on where clients start, against 3. What follows from the formula:
# $\min_n g_n \le G \le \min(\bar g, \min_n g_n + \log N)$, and where all stand alike, one client, however far it rises, adds at most
# $\log \frac{N}{N-1}$.
#
# What holds, and for what. *Scale-free* holds for log-odds, of $\bar g$ and $G$ by construction; in points of score both count a client near 0 or 100 % more, as
# a point is more there. *No client near zero dominates* holds of $G$ for rises alone; a client that falls without end takes $G$ with it, as it should
# by 4. *Monotone* holds strictly between the limits at which scores are clipped, 0.5 and 99.5 %: beyond, a client that rises or falls changes
# neither $\bar g$ nor $G$. *The worst client counts*, not it alone: $G$ is at most its gain plus $\log N$.
#
# Its price: $G \approx \bar g - \frac{1}{2} \operatorname{Var} g_n$. Spread costs, that of noise included, so that a method without any
# effect comes out a little below 0: compare methods with one another.
#
# ## Who has how much weight?
#
# The weight of a client: the share of the number's rise if that client rises a little, where its score is, all by as much: in log-odds, in which $\bar g$
# has equal weights, $1/N$, by construction, and in points of score, in which nobody has. Below, the heaviest client of every run, mean over methods
# and seeds, times $N$.

# %%
tabled = {"Setup 1": plans.table1("mini", seeds), "Setup 1 at defaults": plans.at_defaults("mini", seeds), "Setup 2": plans.table2("mini", seeds),
          "M-Fed, dense tasks": plans.mfed_table("mini", "mfed_dense", seeds), "M-Fed, labels": plans.mfed_table("mini", "mfed_labels", seeds)}
tabled |= {f"photos, {setup.removeprefix('foundation').lstrip('_')}": plans.foundation_table("foundation", setup, seeds) for setup in plans.FOUNDATION_SETUPS}
found = {name: final_scores(finished(stored(settings, results("mini"))[1])) for name, settings in tabled.items()}
heaviest = {}
for rise in RISES:
    weights = {name: client_weights(scores, rise) for name, scores in found.items()}
    heaviest[rise] = pd.DataFrame({name: table["client"].nunique() * table.groupby(["method", "seed"])[list(NUMBERS)].max().mean()
                                   for name, table in weights.items()}).T.rename(columns=NUMBERS)
fig, axes = plt.subplots(1, 2, figsize=(11, 3.4), sharey=True, layout="constrained")
for ax, (rise, table) in zip(axes, heaviest.items(), strict=True):
    for place, (number, colour) in enumerate(zip(("Delta (%)", "fair gain", "log-odds"), ("#b91c1c", "#1d4ed8", "#737373"), strict=True)):
        ax.barh(np.arange(len(table)) + 0.27 * (place - 1), table[number], 0.25, color=colour, label=number)
    ax.axvline(1, color="k", lw=0.8)
    ax.set(xlabel="weight of the heaviest client, times the number of clients", title=f"per rise in {rise}")
axes[0].set_yticks(range(len(table)), table.index)
axes[0].invert_yaxis()
axes[0].legend(loc="lower right")
most = {rise: table[["Delta (%)", "log-odds", "fair gain"]].max() for rise, table in heaviest.items()}
fig.suptitle("The heaviest client has at most " + "; ".join(f"per rise in {rise} {row['Delta (%)']:.1f} times its share in Delta, {row['fair gain']:.1f} in the fair gain"
                                                             for rise, row in most.items()), x=0.01, ha="left")
plots.save_figure(fig, pd.concat(heaviest, names=["rise", "table"]).reset_index(), "22_one_number_weights", profile)

# %% [markdown]
# ## Do they order methods differently?
#
# Kendall's tau between the orders of the methods' means by Delta and by each other number: 1, the same order; 0, none in common.

# %%
numbers = {name: overall_numbers(scores) for name, scores in found.items()}
means = {name: table[table["method"] != "local"].groupby("method")[list(NUMBERS)].mean() for name, table in numbers.items()}
agreement = pd.DataFrame({name: {NUMBERS[other]: kendalltau(table["delta"], table[other]).statistic for other in NUMBERS if other != "delta"}
                          | {"methods": len(table)} for name, table in means.items()}).T
agreement.astype({"methods": int}).round(2)

# %% [markdown]
# Pairs of methods that Delta and another number order differently; differences are the one better by Delta minus the other, paired over seeds,
# 95 % intervals; both are shown where both intervals leave out 0. Of the worst third, which differs most, those pairs alone.

# %%
rows = [{"table": name, "other number": NUMBERS[other], "better by Delta": METHODS[row.former].label, "better by the other": METHODS[row.latter].label,
         "by Delta (points)": tables.interval_text(row.first), "by the other": tables.interval_text(row.second, 1 if other == "worst_third" else 2),
         "both shown": "yes" if rankings.shown(row) else "no"}
        for other in NUMBERS if other != "delta" for name, table in numbers.items() for row in flips(table[table["method"] != "local"], "delta", other).itertuples()]
turned = pd.DataFrame(rows, columns=["table", "other number", "better by Delta", "better by the other", "by Delta (points)", "by the other", "both shown"])
turned[turned["other number"].ne(NUMBERS["worst_third"]) | turned["both shown"].eq("yes")].set_index(["table", "other number"])

# %% [markdown]
# ## All stored runs
#
# The runs of all plans: those of one setup, private data and number of rounds are a table, by whatever else they differ, peers, temperatures,
# public data. Pairs of competitors in all, those that each number orders otherwise than Delta, and in brackets those of which both differences
# are shown. Intervals are not adjusted, and competitors share runs: counts, not tests.

# %%
planned = [settings for number, plan in plans.PLANS.items() for profile_of in ("mini", *["foundation"] * (number in plans.NOTEBOOKS_OF["foundation"]))
           for settings in plan(profile_of, seeds)]
every = {name: rankings.stored_numbers(table, results("mini")) for name, table in rankings.competitors(planned).items() if len(table) > 2}
rows = {}
for name, table in every.items():
    if table is not None and (count := table["method"].nunique() - 1) > 1:
        rows[name] = {"competitors": count, "pairs": count * (count - 1) // 2} | rankings.disagreements(table)
columns = {other: [row[other] for row in rows.values()] for other in NUMBERS if other != "delta"}
counts = pd.DataFrame({name: {"competitors": row["competitors"], "pairs": row["pairs"]} for name, row in rows.items()}).T
counts.assign(**{NUMBERS[other]: [f"{turned_around} ({shown})" for turned_around, shown in several] for other, several in columns.items()})

# %% [markdown]
# ## Deviations from the paper
#
# The paper asks the question and proposes no number. The fair gain, its axioms and the limits of 0.5 and 99.5 % at which scores are
# clipped before their logit are ours. A score that is no share of successes, such as mIoU, is treated as if it were one.
#
# ## Published, and ours

# %%
pairs = {name: len(table) * (len(table) - 1) // 2 for name, table in means.items()}
by_fair = turned[turned["other number"] == NUMBERS["fair_gain"]]
both = {name: int(by_fair["both shown"].eq("yes")[by_fair["table"] == name].sum()) for name in numbers}
pd.DataFrame([{"question": f"do Delta and the fair gain order methods differently: {name}?", "published": "not found",
               "we expected": "at least one pair, both shown" if name.startswith("M-Fed") else "-",
               "ours: pairs of methods": f"{(by_fair['table'] == name).sum()} of {pairs[name]}", "of these, both shown": both[name],
               "came out?": ("yes" if both[name] else "no") if name.startswith("M-Fed") else "-"}
              for name in numbers])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
example = asked.loc["one rises from 1 to 10 %, three lose a little"]
lessons.learned(
    f"Where one client rises from 1 to 10 % and three lose, Delta is {example['Delta (%)']:+.0f} %, the fair gain {example['fair gain']:+.2f}: not free of that "
    "client, but bounded; where all others stand alike, one client of N adds at most log N / (N - 1), however far it rises.",
    *(f"Per rise in {rise} the heaviest client has {table['Delta (%)'].min():.1f} to {table['Delta (%)'].max():.1f} times its share in Delta, "
      f"{table['log-odds'].min():.1f} to {table['log-odds'].max():.1f} times in the mean change in log-odds, "
      f"{table['fair gain'].min():.1f} to {table['fair gain'].max():.1f} times in the fair gain." for rise, table in heaviest.items()),
    f"In the main tables Delta and the fair gain order {len(by_fair)} of {sum(pairs.values())} pairs of methods differently; for {sum(both.values())} of these both "
    "differences are shown.",
    f"Of {counts['pairs'].sum():,} pairs in {len(counts)} tables of all stored runs Delta and another number order differently: " + "; ".join(
        f"{NUMBERS[other]} {sum(found for found, _ in columns[other]):,}, {sum(shown for _, shown in columns[other]):,} of them shown by both" for other in columns) + ".")

# %% [markdown]
# ## What to try next
#
# Next: [04](04_table1.ipynb) has both numbers side by side; [13](13_mfed.ipynb) tasks of which some start near zero.
#
# **Exercise.** How far can one client of six raise the fair gain if the others stay where they are?
#
# <details><summary>Solution</summary>
#
# By $\log \frac{6}{5} = 0.18$, however far it rises:
#
# ```python
# print(-np.log(np.mean(np.exp(-np.array([50.0, 0, 0, 0, 0, 0])))))
# ```
#
# </details>
