"""The papers' numbers, and tables and sentences that put them beside ours, row by row.

They come from secondary summaries of the papers (column `source`), in percent unless `unit` says otherwise.
"""

import pandas as pd
import scipy

from ..exchange import bytes_per_step
from ..experiments.statistics import failures, final_scores, mean_interval, verdict
from ..methods import METHODS
from ..paths import PUBLISHED
from .tables import delta_difference, delta_interval, interval_text, marked
from .task_tables import against_best, order_text

SIGNS = {"higher": "same sign", "lower": "other sign"} | dict.fromkeys(("no difference shown", "one seed: no interval"),
                                                                      "sign not shown")
SETUP_1_CLIENTS = ("client1_mlc", "client4_ic100", "client6_ic10")
SETUP_2_GROUPS = {"mlc": (1, 2, 3), "ic100": (4, 5), "ic10": (6,), "ss": (7, 8), "tc": (9, 10)}
PUBLIC_NAMES = {"pascal_voc": "Pascal VOC", "coco": "COCO", "cifar100": "CIFAR-100"}


def published(**where):
    """Rows of the published FedMuscle numbers in which every named column has the named value; ValueError if there is none."""
    table = pd.read_csv(PUBLISHED / "fedmuscle_published.csv")
    for column, value in where.items():
        if column not in table:
            raise ValueError(f"{column}: not a column, expected one of {list(table.columns)}")
        table = table[table[column] == value]
    if table.empty:
        raise ValueError(f"published: no row with {where}")
    return table


def published_value(**where):
    """The one published number that matches, as a float."""
    rows = published(**where)
    if len(rows) != 1:
        raise ValueError(f"published: {len(rows)} rows with {where}, expected one")
    return float(rows["value"].iloc[0])


def published_delta(setup, method, public_data):
    """The published Delta in percent, a float, or None where none was found."""
    try:
        return published_value(setup=setup, method=method, public_data=public_data, quantity="delta")
    except ValueError:
        return None


def published_deltas():
    """{method: Delta in percent} published for Setup 1 with Pascal VOC, Local left out."""
    rows = published(setup="setup1", public_data="pascal_voc", quantity="delta", table="table1")
    return {row.method: float(row.value) for row in rows.itertuples() if row.method != "local"}


def agreement(published_number, interval):
    """Whether a published number is told apart from ours, (mean, low, high), and the sign is the same, in words."""
    mean, low, high = interval
    if low != low:
        return "same sign" if (mean > 0) == (published_number > 0) else "other sign"
    if low <= published_number <= high:
        return "not told apart" if low > 0 or high < 0 else "not told apart, nor from 0"
    if low > 0 and published_number > 0 or high < 0 and published_number < 0:
        return "same sign, other size"
    return "sign not shown" if low <= 0 <= high else "other sign"


def order_beside(history):
    """Published order by Delta of the methods that we have, too, beside ours, as a sentence, with Kendall's tau over them where
    they are four or more."""
    paper = published_deltas()
    ours = {method: delta_interval(history, method)[0] for method in history["method"].unique() if method != "local"}
    both = [method for method in METHODS if method in paper and method in ours]
    order = " > ".join(f"{METHODS[method].label} {paper[method]:+.1f}" for method in sorted(both, key=paper.get, reverse=True))
    tau = ""
    if len(both) > 3:
        statistic = scipy.stats.kendalltau([paper[method] for method in both], [ours[method] for method in both]).statistic
        tau = f"; Kendall's tau over the {len(both)}: {statistic:+.2f}"
    return f"published {order}; {marked('ours', history)} {order_text(history, both)}{tau}."


def table1_beside(history, seeds):
    """Table 1 row by row: published scores of three clients and Delta, beside our Delta; rows without a twin say so.

    history: our runs with the first public domain.  Columns: method, the published numbers, ours, seeds, agrees?.
    """
    names = {"sage": "SAGE (published only: could not be identified)"}
    names |= {name: method.label for name, method in METHODS.items()}
    paper = published(table="table1", setup="setup1", public_data="pascal_voc").pivot(
        index="method", columns="quantity", values="value").astype(float)
    ran, failed, rows = set(history["method"]), failures(history), []
    for method in [name for name in names if name in paper.index or name in ran]:
        row = {"method": names[method]}
        row |= {f"published {column} (%)": paper.loc[method, column] if method in paper.index else "not found"
                for column in (*SETUP_1_CLIENTS, "delta")}
        ours = delta_interval(history, method) if method in ran - {"local", *failed} else None
        known = ours is not None and method in paper.index
        said = interval_text(ours) if ours else failed.get(method, "-")
        rows.append({**row, marked("ours: Delta (%), mean [95 % CI]", history): said,
                     "seeds": len(seeds) if method in ran else 0,
                     "agrees?": agreement(paper.loc[method, "delta"], ours) if known else "cannot be said"})
    return pd.DataFrame(rows)


def domain_spread(histories, domains):
    """Delta of FedMuscle in Setup 1: published for three public data sets, then ours for our domains; only signs can agree."""
    paper = published(setup="setup1", method="fedmuscle", quantity="delta")
    return _below(paper, {domain: histories[domain] for domain in domains},
                  lambda history: delta_interval(history, "fedmuscle"), " (%)")


def loss_gains_beside(histories, domains):
    """What Muscle gains over the Gramian loss: published for three data sets (whether in points or relative is not said),
    ours in points of Delta, paired over seeds, for our domains.  Only the signs can agree."""
    return _below(published(table="loss_comparison"), {domain: histories[domain] for domain in domains},
                  lambda history: delta_difference(history, "fedmuscle", "gramian"))


def _below(paper, histories, ours_of, unit=""):
    rows = [(f"{PUBLIC_NAMES[row.public_data]} (published)", float(row.value), "-", "-", "-") for row in paper.itertuples()]
    for domain, history in histories.items():
        ours = ours_of(history)
        rows.append((marked(f"{domain} (ours)", history), "-", interval_text(ours), history["seed"].nunique(),
                     SIGNS[verdict(ours)]))
    return pd.DataFrame(rows, columns=["public data", f"published{unit}", f"ours{unit}", "seeds", "agrees?"])


def table2_beside(history, seeds):
    """Table 2 by group of clients: published scores, Local and FedMuscle, beside ours; then Delta."""
    scores, rows, mine = final_scores(history), [], marked("ours (%)", history)
    for group, clients in SETUP_2_GROUPS.items():
        for method in ("local", "fedmuscle"):
            paper = published(setup="setup2", method=method)
            value = paper[paper["quantity"].isin([group, f"{group}_range"])]["value"].iloc[0]
            ours = scores[(scores["method"] == method) & scores["client"].isin(clients)].groupby("client")["value"].mean()
            low, high = ours.min(), ours.max()
            rows.append({"clients": f"{group.upper()} {clients[0]}" + (f"-{clients[-1]}" if clients[1:] else ""),
                         "method": METHODS[method].label, "published (%)": value,
                         mine: f"{low:.1f}" if clients[1:] == () else f"{low:.1f}-{high:.1f}", "seeds": len(seeds),
                         "agrees?": "scores of other data: cannot be said"})
    paper = published_value(setup="setup2", method="fedmuscle", quantity="delta")
    ours = delta_interval(history, "fedmuscle")
    rows.append({"clients": "all: Delta", "method": METHODS["fedmuscle"].label, "published (%)": paper,
                 mine: interval_text(ours), "seeds": len(seeds), "agrees?": agreement(paper, ours)})
    return pd.DataFrame(rows)


def peers_beside(measured):
    """Delta of FedMuscle in Setup 1 against the number of peers: published beside ours.

    measured: as from `effects.measure`, the value being M.
    """
    rows = []
    for count in (1, 3, 5):
        paper = published_value(table="peer_count", method=f"fedmuscle M={count}", quantity="delta")
        mine = measured[(measured["method"] == "fedmuscle") & (measured["value"] == count)]
        ours = mean_interval(mine["delta"]) if len(mine) else None
        rows.append({"M": count, "published Delta (%)": paper,
                     marked("ours (%)", measured): interval_text(ours) if ours else "not run",
                     "seeds": len(mine), "agrees?": agreement(paper, ours) if ours else "cannot be said"})
    return pd.DataFrame(rows)


def costs_beside(batch_sizes, dim):
    """Ratios of the published cost per round between numbers of peers, beside those of the closed form of the downlink of
    tuples, B^M (d + 1) numbers, for each of `batch_sizes`.  A ratio does not depend on steps, clients or units."""
    paper = published(table="peer_count", quantity="communication").set_index("method")["value"].astype(float)
    paper = {count: paper[f"fedmuscle M={count}"] for count in (1, 3, 5)}
    rows = []
    for before, count in ((1, 3), (3, 5)):
        row = {"M": f"{count} over {before}", "published (GB per round)": f"{paper[count]:g} over {paper[before]:g}",
               "published ratio": round(paper[count] / paper[before], 1)}
        for size in batch_sizes:
            up, down = zip(*(bytes_per_step(size, number, dim, "tuples") for number in (before, count)), strict=True)
            row |= {f"ours: downlink, B = {size}": round(down[1] / down[0], 1),
                    f"with uplink, B = {size}": round((up[1] + down[1]) / (up[0] + down[0]), 1)}
        fits = [size for size in batch_sizes if abs(size ** 2 / row["published ratio"] - 1) < 0.01]
        rows.append({**row, "agrees?": f"with B = {', '.join(map(str, fits))}" if fits else "with neither"})
    return pd.DataFrame(rows)


def mfed_beside(history):
    """The published ranks and gain of M-Fed beside ours, as text: one row a task.

    Ours: rank by mean score among the federated methods and Local, the difference to the best other in points.
    """
    paper = pd.read_csv(PUBLISHED / "mfed_published.csv").set_index("quantity")["value"]
    rows = []
    for row in against_best(history).itertuples():
        gain = f"{paper['semantic_segmentation_mIoU']:+.2f}" if row.task == "semseg" else "not found"
        found = (row.mean, row.low, row.high)
        rows.append({"task": row.task, "metric": row.metric, "published: rank": int(paper["rank_on_all_four_tasks"]),
                     "published: minus best other": gain, marked("ours: rank", history): row.rank,
                     "best other": row.best_other, "ours: minus best other (points)": interval_text(found),
                     "agrees?": {"higher": "yes", "lower": "no"}.get(verdict(found), "not shown")})
    return pd.DataFrame(rows)
