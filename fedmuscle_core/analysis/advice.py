"""Where does alignment pay?  A rule of thumb, fitted on the grid of federations of notebook 17.

A client's gain, in log-odds of its score, is a polynomial of six things that can be known before any training (FEATURES),
fitted by ridge regression (least squares that keeps its weights small); how far it is off is measured on kinds of networks and
sizes of private sets that it was not fitted on.
`python -m fedmuscle_core.analysis.advice` writes the rule, from the stored runs of the grid and what `experiments.grid` has
measured.
"""

import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ..checks import number, positive_int
from ..experiments.grid import GAINS, PARTS, observed
from ..experiments.store import write_atomically
from ..paths import check_commits, results

FEATURES = {           # name: how it enters
    "labels": np.log2, "own": lambda share: np.log(share / (1 - share)), "peers": lambda share: np.log(share / (1 - share)),
    "photos": np.log2, "mismatch": np.sqrt, "rate": np.log10,
}
RULE = Path(__file__).parent / "advice.json"
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
    """The rule of the stored grid; ValueError where there is none."""
    if not RULE.is_file():
        raise ValueError(f"{RULE}: got no rule, expected the one that comes with the package; "
                         "`python -m fedmuscle_core.analysis.advice` makes it anew")
    return json.loads(RULE.read_text())


def advise(labels, own, peers, photos, mismatch, rate, rule=None):
    """What to expect of aligning a client with others, and of its own contrastive learning: a dict.

    labels: private labels a class.  own, peers: accuracy, 0 to 1, of a linear probe of the client's pretrained network and the
    mean over its peers', on data that all can be probed on.  photos: public samples.  mismatch: `experiments.mismatch.mmd` of
    the client's representations of private and public samples, 0 for one law.  rate: contrastive learning rate of AdamW.
    fedmuscle, simclr: (expected change in log-odds of the score, typical error of it); lead: that of the first over the second;
    outside: names of what lies beyond the grid that the rule was fitted on, where it is a guess; sentence: what follows.
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
    elif harms["fedmuscle"]:
        said = "do not align: harm is expected, and of learning from public data by yourself no gain"
    elif harms["simclr"]:
        said = "do not learn from public data by yourself: harm is expected, and of alignment no gain"
    else:
        said = "do not count on it: what is expected is less than the rule's error"
    if helps["simclr"] and harms["lead"]:
        said = "learn from public data by yourself: alignment is expected to give less"
    return said + (f" (a guess: {', '.join(outside)} beyond what the rule was fitted on)" if outside else "")


def main():
    """Fit RULE to what the stored runs of the grid gained."""
    check_commits()
    write_atomically(RULE, json.dumps(fit(observed(results("foundation")))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
