"""What the stored runs of profile "mini" come to, as one page: `python -m fedmuscle_core.analysis.findings` writes
data/results/README.md anew.  Nothing in it is written by hand but what it is about."""

import json
import statistics
import sys
from functools import cache, partial

import pandas as pd

from ..experiments import ablations, plans
from ..experiments.claims import CLAIMS, MFED_CLAIMS, SETUP2_CLAIMS, claimed, compared_runs
from ..experiments.forecast import as_text, estimated, times_stored
from ..experiments.runs import stored
from ..experiments.statistics import mean_interval, verdict
from ..experiments.store import write_atomically
from ..methods import METHODS
from ..paths import check_commits, results
from . import effects, outcomes
from .beside_paper import order_beside, published_value
from .tables import (
    clients_shown,
    delta_interval,
    delta_sentence,
    delta_table,
    improvement_sentence,
    interval_text,
    log_odds_difference,
)
from .task_tables import order_sentence, rank_table

FOLDER = results("mini")
PATH = FOLDER / "README.md"
KINDS_NAMED = {"one_kind": "one architecture", "two_kinds": "two architectures", ablations.MAIN: "five architectures"}
PUBLISHED = {"setup": "setup1", "public_data": "pascal_voc", "method": "fedmuscle", "quantity": "delta"}
HEAD = """# Results

Profile `mini`, test scenes, means over seeds with 95 % Student-t intervals, not adjusted for their number unless it is said.
*Delta*, the papers' number: mean over clients of the relative change against Local on the same seed. *Log-odds*: mean over
clients of the change in log-odds; 0.1 is 2.5 points at 50 %. *Worst client*: the lowest relative change of any. "Higher",
"lower" and "shown": the interval leaves out 0; "no difference shown": it does not. Where 0.1 in log-odds is asked about, "no
difference" says that the interval excludes so much, "too few seeds" that it does not.

Written by `python -m fedmuscle_core.analysis.findings` from the runs beside it; the notebooks say more.
"""


def page():
    """The whole page, as text."""
    return "\n\n".join([HEAD.rstrip(), *(block for part in PARTS for block in part())]) + "\n"


def markdown(table):
    """A frame of texts as a table."""
    rows = [list(table), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def of(runs):
    return stored(runs, FOLDER)[1]


def measured(groups):
    return effects.measure({key: stored(runs, FOLDER) for key, runs in groups.items()})


def lines(sentences):
    return "\n".join(f"- {sentence}" for sentence in sentences)


def claims_part():
    found = outcomes.verdicts("mini", FOLDER)
    runs = of([run for several in compared_runs("mini").values() for run in several])
    yield "## Setup 1: the claims (notebook 02)"
    yield ("Written down before the runs: [data/PREDICTIONS.md](../PREDICTIONS.md). Change in log-odds, intervals and p "
           "adjusted by Holm over the five.")
    yield markdown(found)
    yield outcomes.sentence(found)
    yield markdown(delta_table(runs))
    yield lines(delta_sentence(runs, "fedmuscle", other) for other in ("pairwise", "simclr"))


def alpha_part():
    yield "## Learned alpha (notebook 03)"
    yield outcomes.alpha_sentence(outcomes.weight_differences("mini", FOLDER))


def table1_part():
    tuned, plain = of(plans.table1("mini")), of(plans.at_defaults("mini"))
    yield "## Table 1: every aligning method on Setup 1 (notebook 04)"
    yield "As tuned, twelve configurations a method:"
    yield markdown(delta_table(tuned))
    yield "At defaults:"
    yield markdown(delta_table(plain))
    others = [name for name in plans.tabled("embedded1") if name not in ("local", "fedmuscle")]
    yield lines(improvement_sentence(tuned, "fedmuscle", other) for other in others)
    yield lines((f"As tuned: {order_beside(tuned)}", f"At defaults: {order_beside(plain)}"))


def table2_part():
    history = of(plans.table2("mini"))
    yield "## Table 2: every aligning method on Setup 2 (notebook 05)"
    found = outcomes.verdicts("mini", FOLDER, claims=SETUP2_CLAIMS)
    yield markdown(found)
    yield outcomes.sentence(found)
    yield markdown(delta_table(history))
    yield lines(delta_sentence(history, "fedmuscle", other) for other in plans.tabled("embedded2")
                if other not in ("local", "fedmuscle"))


def ablations_part():
    yield "## Ablations (notebooks 02, 07 to 10 and 12)"
    yield ("FedMuscle around its tuned point in Setup 1, one factor at a time; other clients as named. Public data: each kind "
           "with the values tuned on it, where the notebook says that it was; digits of a public scene: with the values of "
           "single digits throughout. Whether clients gain at all is another question: with other architectures than those of "
           f"Setup 1, {gains_of_kinds()}.")
    answers = [(head, runs("mini"), reference, name) for head, runs, reference, name in (
        ("Rounds", ablations.by_rounds, 8, "rounds"),
        ("Rounds, Setup 2", partial(ablations.by_rounds, setup="embedded2"), 10, "rounds"),
        ("Peers", ablations.by_peer_count, 3, "M"),
        ("Peers, twelve clients", partial(ablations.by_peer_count, setup="clients12"), 3, "M"),
        ("Exact or sampled", ablations.by_estimator, "exact", "the loss"),
        ("Tuples drawn an anchor, seven peers of twelve clients", ablations.by_samples, 64, "K"),
        ("Choice of one peer", ablations.by_choice, "random", "the choice"),
        ("Public data", ablations.by_domain, "single", "public data"),
        ("Digits of a public scene", ablations.by_layout, "single", "layout"),
        ("Public samples", ablations.by_public_size, 5000, "public samples"),
        ("Temperature of distant pairs", ablations.by_distant_tau, "as tuned", "it"),
        ("Dirichlet private data, twelve clients", ablations.by_concentration, "IID", "concentration"),
        ("Absence and age of uploads, Dirichlet(0.1)", ablations.by_absence, "0.0, batch",
         "(probability to miss a round, refresh)"),
        ("Architectures", partial(ablations.by_setup, setups=ablations.KINDS), ablations.MAIN, "architectures"),
        ("Number of clients", ablations.by_size, ablations.MAIN, "clients"))]
    tuned = ablations.tuned_runs("mini", "fedmuscle")[0].flat()
    answers += [(ablations.FACTOR_NAMES[factor], ablations.by_factor("mini", factor), tuned[factor], "it")
                for factor in ablations.FACTORS]
    yield lines(f"{head[0].upper()}{head[1:]}: {effects.answer(measured(runs), reference, name)}"
                for head, runs, reference, name in answers)


def gains_of_kinds():
    """FedMuscle against Local where all clients have networks of one or two kinds, in words."""
    gains = measured(ablations.by_setup("mini", ablations.KINDS)).query("method == 'fedmuscle'").groupby("value", sort=False)
    return "; ".join(f"{KINDS_NAMED[value]}: {verdict(mean_interval(rows))} {interval_text(mean_interval(rows), 2)} in log-odds"
                     for value, rows in gains["log_odds"] if value != ablations.MAIN)


def mfed_part():
    methods = [name for name in ablations.MFED_METHODS if name != "fedmuscle"]
    yield "## M-Fed (notebooks 13 and 14)"
    found = outcomes.verdicts("mini", FOLDER, claims=MFED_CLAIMS)
    yield markdown(found)
    yield outcomes.sentence(found)
    for setup, tasks in zip(plans.MFED_BENCHMARKS, ("dense tasks", "labels"), strict=True):
        history = of(plans.mfed_table("mini", setup))
        yield f"Four tasks, three clients each, {tasks}:"
        yield markdown(delta_table(history))
        yield f"Order: {order_sentence(history, methods)}"
        yield lines(delta_sentence(history, "mfed", other) for other in ("fedavg", "encoder_only", "mfed_proximal"))
        yield "Ranks by task, 1 for the highest score:"
        yield markdown(rank_table(history).reset_index())
    for value in ablations.MFED_PARTITIONS[1:]:
        history = of([run for (one, _), runs in ablations.by_mfed_partition("mini").items() if one == value for run in runs])
        yield f"Dense tasks, the clients of a task with Dirichlet({value}) shares: {delta_sentence(history, 'mfed', 'fedavg')}"
    yield effects.answer(measured(ablations.by_mfed_variant("mini")), "as tuned", "M-Fed", "mfed")
    grown = {key: stored(runs, FOLDER) for key, runs in ablations.by_task_count("mini").items()}
    grown = effects.measure(effects.of_first_clients(grown, 3))
    yield f"The segmentation clients alone: {effects.answer(grown, 1, 'tasks', 'mfed')}"


def photos_part():
    yield "## Of earlier versions: real photos"
    yield ("Real photos and texts, excerpts of public data sets at 32 pixels, small backbones pretrained on reserved parts of "
           "them (notebook 15; tuned on one seed; nobody else has published numbers on these excerpts):")
    for domain, count in plans.PHOTO_DOMAINS.items():
        history = of(plans.photos1("mini", domain=domain))
        yield f"Setup 1, {count} public photos of {domain}:"
        yield markdown(delta_table(history))
        yield lines(delta_sentence(history, "fedmuscle", other) for other in ("simclr", "pairwise"))
    history, slower = of(plans.photos1("mini")), of(plans.photos1_at_one_rate("mini"))
    yield "With alpha = 1 at FedMuscle's contrastive learning rate, which is lower than the one it was tuned to:"
    yield lines([delta_sentence(pd.concat([history.query("method != 'pairwise'"), slower]), "fedmuscle", "pairwise"),
                 effects.answer(measured(plans.photos1_as_few("mini")), "voc_animals", "180 public photos of")])
    history = of(plans.photos2("mini"))
    yield "Setup 2, 320 public photos of COCO with a caption each:"
    yield markdown(delta_table(history))
    yield lines(delta_sentence(history, "fedmuscle", other) for other in ("simclr", "pairwise"))


def in_short():
    """The findings in short, a list of sentences."""
    names = {"yes": "shown", "no": "not shown"}
    for several in (CLAIMS, SETUP2_CLAIMS, MFED_CLAIMS):
        found = outcomes.holm_over("mini", FOLDER, claims=several).set_index("name")
        for claim in several:
            row = found.loc[claim.number]
            shown = names.get(outcomes.shown(row), "the other way round")
            yield f"{claim.text}: {shown}, {interval_text(tuple(row[['mean', 'low', 'high']]), 2)}"
    yield "Setup 1, tuned, ten seeds: " + delta_sentence(
        of([run for several in compared_runs("mini").values() for run in several]), "fedmuscle", "simclr")
    yield outcomes.alpha_sentence(outcomes.weight_differences("mini", FOLDER))
    tuned, plain = of(plans.table1("mini")), of(plans.at_defaults("mini"))
    yield f"Setup 1, tuned, views of its own: {delta_sentence(tuned, 'fedmuscle_views', 'simclr_samples')}"
    yield f"Setup 1, order as tuned: {order_beside(tuned)}"
    yield f"Setup 1, order at defaults: {order_beside(plain)}"
    yield f"Setup 1, at defaults: {delta_sentence(plain, 'fedmuscle', 'simclr')}"
    yield f"Setup 1, numbers of peers: {effects.answer(measured(ablations.by_peer_count('mini')), 3, 'M')}"
    yield f"Setup 1, kinds of public data: {effects.answer(measured(ablations.by_domain('mini')), 'single', 'public data')}"
    yield harm_sentence()


def of_the_readme():
    """The findings of the README, a list of sentences."""
    numbers = adjusted(CLAIMS) | adjusted(SETUP2_CLAIMS) | adjusted(MFED_CLAIMS)
    plain = interval_text(log_odds_difference(of(plans.at_defaults("mini")), "fedmuscle", "simclr"), 2)
    own = of([run for several in compared_runs("mini").values() for run in several])
    above, below = clients_shown(own, "fedmuscle")
    domains = domains_shown()
    yield ("Alignment helps: with single digits as public data FedMuscle gains "
           f"{interval_text(delta_interval(own, 'fedmuscle'))} % over training alone (published "
           f"{published_value(**PUBLISHED):+.1f}), {numbers[1]} in log-odds; of six clients {len(above)} are shown to gain, "
           f"{len(below)} to pay. Kinds of public data that were tried: {', '.join(ablations.PUBLIC_DOMAINS)}; shown to help "
           f"in log-odds: {', '.join(domains) or 'none'} (single digits were chosen after a look at validation scores).")
    yield harm_sentence()
    yield ("Against each client's own contrastive learning, SimCLR, its place hangs on tuning and on who takes part: in "
           f"log-odds {plain} at defaults (two of five seeds were added after a look at three); where rate and temperature are "
           f"chosen for both, {numbers[4]} among six image clients, and {numbers[8]} with segmentation "
           f"and texts beside them (the texts alone: {interval_text(of_texts(), 2)}). {against_the_others()}")
    yield (f"Learned alpha is worth {numbers[2]} in log-odds at the paper's temperatures, and {numbers[3]} where the "
           "temperature is chosen; there, trained until curves are flat, or nearly, "
           f"{alpha_at_length(ablations.MAIN)} on Setup 1 and {alpha_at_length('embedded2')} on Setup 2.")
    yield (f"M-Fed (a reconstruction) against training alone on dense tasks: {numbers[9]} in log-odds; against FedAvg within "
           f"each task, without any exchange among tasks: {numbers[10]}.")


def time_of(number):
    """How long the runs behind a notebook take with one worker, by the times of stored runs; "" where there are none."""
    runs = set(plans.PLANS[number]("mini")) if number in plans.PLANS else ()
    return as_text(estimated(runs, known_times())) if runs else ""


@cache
def known_times():
    return times_stored(FOLDER)


def alpha_at_length(setup):
    """Learned alpha minus alpha = 1, both tuned, with the most rounds that were played, in log-odds."""
    runs = ablations.by_rounds("mini", setup=setup)
    longest = of([run for (rounds, _), several in runs.items() if rounds == max(runs)[0] for run in several])
    return interval_text(log_odds_difference(longest, "fedmuscle", "pairwise"), 2)


def adjusted(claims):
    """{number: text of its interval} of claims that are adjusted together."""
    found = outcomes.holm_over("mini", FOLDER, claims=claims).set_index("name")
    return {name: interval_text(tuple(found.loc[name][["mean", "low", "high"]]), 2) for name in found.index}


def domains_shown():
    """The kinds of public data with which FedMuscle is shown above Local."""
    gains = measured(ablations.by_domain("mini", methods=["fedmuscle"])).groupby("value", sort=False)["log_odds"]
    return [domain for domain, values in gains if verdict(mean_interval(values)) == "higher"]


def harm_sentence():
    """Where FedMuscle is shown below Local, in log-odds, among all public data, sizes and architectures that were tried, and on
    photos."""
    found = []
    for name, groups in (("{} as public data", ablations.by_domain("mini", methods=["fedmuscle"])),
                         ("{} public samples", ablations.by_public_size("mini")),
                         ("clients of {}", ablations.by_setup("mini", ablations.KINDS))):
        gains = measured(groups).query("method == 'fedmuscle'").groupby("value", sort=False)["log_odds"]
        found += [f"{name.format(KINDS_NAMED.get(value, value))} {interval_text(mean_interval(rows), 2)}"
                  for value, rows in gains if verdict(mean_interval(rows)) == "lower"]
    photos = {domain: log_odds_difference(of(plans.photos1("mini", domain=domain)), "fedmuscle", "local")
              for domain in plans.PHOTO_DOMAINS}
    lower = [f"{interval[0]:+.2f} ({domain})" for domain, interval in photos.items() if verdict(interval) == "lower"]
    return ("FedMuscle also harms; shown below training alone, in log-odds: "
            f"{'; '.join(found) or 'with no kind of clients and data tried here'}; "
            f"real photos of {len(lower)} of {len(photos)} sources, in the regime of version 0.5: "
            f"{', '.join(lower) or 'none'}.")


def against_the_others():
    """FedMuscle as tuned on Setup 1 against the methods that exchange something else, in log-odds, in words."""
    tuned = of(plans.table1("mini"))
    found = {other: log_odds_difference(tuned, "fedmuscle", other) for other in ("fedhenn", "gramian", "pairwise", "cofed")}
    said = "; ".join(f"{METHODS[other].label} {interval_text(interval, 2)}" for other, interval in found.items())
    return f"Against other exchanges, tuned alike, five seeds: {said}."


def of_texts():
    """FedMuscle minus SimCLR over the text clients of Setup 2 alone, in log-odds, on the seeds of the claims."""
    history = of(claimed("mini", claims=SETUP2_CLAIMS))
    return log_odds_difference(history[history["task"].isin(["tc10", "tcleft"])], "fedmuscle", "simclr")


def short_part():
    yield "## In short"
    yield lines(in_short())


def costs_part():
    yield "## What it costs"
    yield ("One core, float32, d = 256, as measured by `python -m fedmuscle_core.benchmarks.loss`, `round` and `setup_run`; "
           "wall times of the stored runs, many of which ran beside other work.")
    loss = {(row["evaluation"], row["B"], row["M"]): row for row in measured_by("loss")["rows"]}
    three, four = (loss["literal", 32, peers]["times_slower"] for peers in (3, 4))
    largest = [(size, peers, loss["factored", size, peers]) for size, peers in ((32, 5), (256, 3))]
    yield lines((
        f"The factored loss at B = 32, forward and backward, is {three:,.0f} times faster than the literal one with three "
        f"peers, {four:,.0f} times with four.",
        *(f"Exact with B = {size} and M = {peers}: {row['seconds']:.2f} s, {row['extra_MiB']:.0f} MiB beyond the process."
          for size, peers, row in largest),
        f"A FedMuscle round of Setup 1, without validation, takes {measured_by('round')['median_ratio']:.2f} times what the "
        "networks' own forward and backward passes take.",
        setup_run_sentence(measured_by("setup_run")),
        f"All stored runs took {hours_stored(FOLDER):.0f} hours of a core, tuning {hours_stored(FOLDER / 'tuning'):.0f} more; "
        "`fedmuscle reproduce --profile mini --force --workers 2` computes them again."))


def setup_run_sentence(found):
    """What benchmark `setup_run` says about a round of Setup 1, and whether versions before 0.8 took twice as long."""
    whole, share = statistics.median(taken for taken, _ in found["seconds"]["as it is"]), found["share_of_passes"]
    longer = "; ".join(f"{name} {times:.2f} times as long" for name, times in found["ratios"].items() if name != "as it is")
    twice = "is" if found["ratios"]["images in the usual format"] >= 2 else "is not"
    return (f"A FedMuscle round of Setup 1 with its validation takes {whole:.1f} s; {longer}. Twice as fast at equal settings, "
            f"the goal, {twice} reached: {100 * share:.0f} % of a round is in the networks' own passes, and less code around "
            f"them could make it {1 / share:.2f} times faster at most.")


def measured_by(benchmark):
    """What a benchmark stored."""
    return json.loads((FOLDER / f"benchmark_{benchmark}.json").read_text())


def hours_stored(folder):
    """Wall time of all runs of a folder, in hours."""
    return sum(json.loads(line).get("wall_seconds", 0) for path in sorted(folder.glob("*.jsonl"))
               for line in path.read_text().splitlines()) / 3600


PARTS = (short_part, claims_part, alpha_part, table1_part, table2_part, ablations_part, mfed_part, photos_part, costs_part)


def main():
    check_commits()
    write_atomically(PATH, page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
