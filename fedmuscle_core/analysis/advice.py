"""Where does alignment pay?  A rule of thumb, fitted on the grid of federations of notebook 17.

A client's gain, in log-odds of its score, is a polynomial of six things that can be known before any training (FEATURES),
fitted by ridge regression (least squares that keeps its weights small); how far it is off is measured on kinds of networks and
sizes of private sets that it was not fitted on.
`python -m fedmuscle_core.analysis.advice`, where the photos are, measures their likeness, data/results/grid_mismatch.csv, and
writes the rule.
"""

import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ..checks import number, positive_int
from ..experiments import ablations
from ..experiments.mismatch import public_mismatch
from ..experiments.runs import stored
from ..experiments.setups import SETUPS
from ..experiments.statistics import failures, final_scores, log_odds_change
from ..experiments.store import write_atomically
from ..paths import BACKBONES, DATA, check_commits, results
from ..world.tasks import task_named

FEATURES = {           # name: how it enters
    "labels": np.log2, "own": lambda share: np.log(share / (1 - share)), "peers": lambda share: np.log(share / (1 - share)),
    "photos": np.log2, "mismatch": np.sqrt, "rate": np.log10,
}
METHODS = ("fedmuscle", "simclr")
GAINS = (*METHODS, "lead")                            # over Local, and of alignment over SimCLR
RULE, MISMATCHES = Path(__file__).parent / "advice.json", DATA / "results" / "grid_mismatch.csv"
CELL = ["networks", "sizes", "source", "photos"]      # of `ablations.by_cell`, its rate left out
PROBED = ("cifar10_excerpt", "cifar100_excerpt")
PARTS = ("networks", "sizes")                         # of the grid, by whose values errors are measured
PENALTIES = [10.0 ** power for power in range(-2, 4)]


def transformed(table):
    """(n, 6) array of the FEATURES of a mapping {name: values}, as they enter."""
    return np.stack([np.asarray(function(np.asarray(table[name], dtype=float))) for name, function in FEATURES.items()], 1)


def polynomial(penalties, folds, degree=2):
    """Ridge regression on products of up to `degree` columns of standard scale, its penalty the best on what each of `folds`
    leaves out."""
    model = make_pipeline(StandardScaler(), PolynomialFeatures(degree, include_bias=False), Ridge())
    return GridSearchCV(model, {"ridge__alpha": penalties}, cv=folds, scoring="neg_mean_squared_error")


def fit(table, penalties=PENALTIES):
    """The rule that `advise` reads, a dict, fitted on one row a client: FEATURES, GAINS and the columns of PARTS.

    error, plain: root mean squared error of the rule and of the mean gain on rows that were not fitted on: each value of each
    of PARTS, e.g. all weak networks, is left out in turn, and the penalty is chosen without it.  sign: share of these gains
    whose sign the rule says.  least, most: the FEATURES' range.
    """
    values = transformed(table)
    held_out = [np.asarray(table[part]) == value for part in PARTS for value in sorted(set(table[part]))]

    def fitted(kept, wanted):
        folds = [(np.flatnonzero(~out[kept]), np.flatnonzero(out[kept])) for out in held_out
                 if out[kept].any() and not out[kept].all()]
        return polynomial(penalties, folds).fit(values[kept], wanted[kept]).best_estimator_

    rule = {"gains": {}, "least": values.min(0).tolist(), "most": values.max(0).tolist()}
    for gain in GAINS:
        wanted = np.asarray(table[gain], dtype=float)
        truth = np.concatenate([wanted[out] for out in held_out])
        found = np.concatenate([fitted(~out, wanted).predict(values[out]) for out in held_out])
        plain = np.concatenate([np.full(out.sum(), wanted[~out].mean()) for out in held_out])
        scaler, products, ridge = fitted(np.ones(len(wanted), dtype=bool), wanted)
        rule |= {"centre": scaler.mean_.tolist(), "scale": scaler.scale_.tolist(), "powers": products.powers_.tolist()}
        rule["gains"][gain] = {
            "weights": ridge.coef_.tolist(), "constant": float(ridge.intercept_), "penalty": ridge.alpha,
            "error": root_mean_squared_error(truth, found), "plain": root_mean_squared_error(truth, plain),
            "sign": float((np.sign(found) == np.sign(truth)).mean())}
    return rule


def predict(rule, values):
    """{gain: (n,) expected ones} by a rule of (n, 6) FEATURES as they enter."""
    columns = (((values - rule["centre"]) / rule["scale"])[:, None] ** np.asarray(rule["powers"])).prod(2)
    return {gain: columns @ one["weights"] + one["constant"] for gain, one in rule["gains"].items()}


@lru_cache(maxsize=1)
def stored_rule():
    """The rule of the stored grid."""
    return json.loads(RULE.read_text())


def advise(labels, own, peers, photos, mismatch, rate, rule=None):
    """What to expect of aligning a client with others, and of its own contrastive learning: a dict.

    labels: private labels a class.  own, peers: accuracy, 0 to 1, of a linear probe of the client's pretrained network and the
    mean over its peers', on data that all can be probed on.  photos: public samples.  mismatch: `experiments.mismatch.mmd` of
    the client's representations of private and public samples, 0 for one law.  rate: contrastive learning rate of AdamW.
    fedmuscle, simclr: (expected change in log-odds of the score, typical error of it); lead: that of the first over the second;
    outside: names of what lies beyond the
    grid that the rule was fitted on, where it is a guess; sentence: what follows.
    Raises ValueError for values that cannot be.
    """
    for name, value in (("labels", labels), ("rate", rate)):
        number(name, value, above=0)
    for name, value in (("own", own), ("peers", peers)):
        number(name, value, above=0, below=1)
    positive_int("photos", photos)
    number("mismatch", mismatch, least=0)
    rule = rule or stored_rule()
    values = transformed({name: [value] for name, value in zip(
        FEATURES, (labels, own, peers, photos, mismatch, rate), strict=True)})
    found = {gain: (float(expected[0]), rule["gains"][gain]["error"]) for gain, expected in predict(rule, values).items()}
    outside = [name for name, value, least, most in zip(FEATURES, values[0], rule["least"], rule["most"], strict=True)
               if not least - 1e-9 <= value <= most + 1e-9]
    return found | {"outside": outside, "sentence": sentence(found, outside)}


def sentence(found, outside=()):
    """What `advise` expects, in words; a gain, or the lead of alignment, counts where it is more than its typical error."""
    helps = {gain: found[gain][0] > found[gain][1] for gain in GAINS}
    harms = {gain: found[gain][0] < -found[gain][1] for gain in GAINS}
    if helps["fedmuscle"] and helps["lead"]:
        said = "align: the others teach more than public data alone do"
    elif helps["fedmuscle"] and helps["simclr"]:
        said = "learn from public data, with the others or by yourself: which is better, the rule cannot tell"
    elif helps["simclr"]:
        said = "learn from public data by yourself: of alignment no gain is expected"
    elif helps["fedmuscle"]:
        said = "align: a gain is expected, and none of learning by yourself, though the rule cannot tell them apart"
    elif harms["fedmuscle"] and harms["simclr"]:
        said = "leave it: both would harm"
    else:
        said = "do not count on it: what is expected is less than the rule's error"
    if helps["simclr"] and harms["lead"]:
        said = "learn from public data by yourself: alignment is expected to give less"
    return said + (f" (a guess: {', '.join(outside)} beyond what the rule was fitted on)" if outside else "")


def observations(results, strengths, mismatches):
    """One row a client and cell of `ablations.by_cell`: FEATURES, GAINS, federation, client, task and the parts of the cell.

    results: {(cell, method): (records, history)}.  strengths: {backbone: probe accuracy}.  mismatches: {cell[:4]: {client:
    mmd}}.  Cells with a run that diverged are left out; `attrs["left_out"]` names them.
    """
    rows, left_out = [], []
    for cell in [cell for cell, method in results if method == METHODS[0]]:
        networks, labels, source, photos, rate = cell
        setup = SETUPS[results[cell, METHODS[0]][0][0]["settings"]["setup"]]
        several = pd.concat([results[key][1] for key in ((cell[:2], "local"), *((cell, method) for method in METHODS))])
        if failures(several):
            left_out.append(cell)
            continue
        gains = log_odds_change(final_scores(several)).pivot(index="client", columns="method", values="log_odds")
        own = {client: strengths[spec.backbone] for client, spec in enumerate(setup.clients, 1)}
        for client, spec in enumerate(setup.clients, 1):
            aligned, alone = (gains.loc[client, method] for method in METHODS)
            rows.append({
                "federation": f"{networks} networks, {labels} labels", "networks": networks, "sizes": labels,
                "client": client, "task": spec.task, "source": source,
                "labels": spec.train_size / task_named(spec.task).num_outputs, "own": own[client],
                "peers": sum(value for other, value in own.items() if other != client) / (len(own) - 1),
                "photos": photos, "mismatch": max(0.0, mismatches[cell[:4]][client]), "rate": rate,
                "fedmuscle": aligned, "simclr": alone, "lead": aligned - alone})
    table = pd.DataFrame(rows)
    table.attrs["left_out"] = left_out
    return table


def observed(folder):
    """`observations` of the grid's runs stored in `folder`, with what MISMATCHES says of their photos."""
    runs = ablations.by_cell("foundation")
    probes = pd.read_csv(BACKBONES / "probe_real.csv").query("weights == 'pretrained' and source in @PROBED")
    measured = pd.read_csv(MISMATCHES).set_index([*CELL, "client"])["mmd"]
    return observations({key: stored(several, folder) for key, several in runs.items()},
                        probes.groupby("backbone")["accuracy"].mean().to_dict(),
                        {cell: rows.droplevel(CELL).to_dict() for cell, rows in measured.groupby(level=CELL)})


def main():
    """Measure MISMATCHES, for which the photos are needed, and fit RULE to what the stored runs gained."""
    check_commits()
    firsts = {cell[:4]: several[0] for (cell, method), several in ablations.by_cell("foundation").items()
              if method == METHODS[0]}
    measured = pd.concat({cell: public_mismatch(first.replace(test_size=0)) for cell, first in firsts.items()}, names=CELL)
    write_atomically(MISMATCHES, measured.reset_index(CELL)[[*CELL, "client", "mmd"]].round(5).to_csv(
        index=False, lineterminator="\n"))
    write_atomically(RULE, json.dumps(fit(observed(results("foundation")))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
