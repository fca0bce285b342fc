"""`fedmuscle verify`: check every stored run against its own settings, then recompute some and compare all that they hold."""

import tempfile

import numpy as np

from ..checks import positive_int
from ..experiments.code import code_digest
from ..experiments.profiles import check_profile
from ..experiments.runs import can_run, data_used, fingerprint, run
from ..experiments.settings import Settings
from ..experiments.setups import SETUPS
from ..experiments.soundness import flaws
from ..experiments.store import whole_runs
from ..methods import METHODS
from ..paths import results

# One machine with one set of versions gives identical runs.  Another processor sums in another order: the last digits differ,
# and training lets that grow from round to round, most where a loss is close to 0 or a client has few samples.  Structure and
# bytes do not depend on it.  The limits lie a few times above what was seen, and far below what a damaged run shows.
BEFORE = 1.0                   # points, a client's score before training
EARLY = 0.01                   # relative, a loss of the first round
LOSS_MEAN, LOSS_CLIENT = 2.0, 4.0     # factors, losses of a later round: mean over clients, one client
SMALL = 0.05                   # differences of losses below this do not count
MEASURED = 0.5                 # other numbers of training, such as cosines of gradients: mean over clients
ROUND_MEAN, ROUND_CLIENT = 6.0, 20.0  # points, validation scores of a round
FINAL_MEAN, FINAL_CLIENT = 3.0, 10.0  # points, test scores
ALIKE_BEFORE, ALIKE = 0.01, 0.1       # mean over a matrix of alignment, of its mean size where that is above 1
PIXELS = 0.25                  # share of a client's pixels
KEYS = ["method", "client", "task", "metric", "split", "round", "seed"]


def verify(profile, sample=None):
    """Check all stored runs of `profile`, see `soundness.flaws`, recompute those that are sound and print a line for each.

    Returns 0 if all are sound and agree, else 1.  Runs on real data that are not here, and those of setups and methods that
    nothing here defines, are not recomputed.
    sample: only so many, one of each setup and method in turn, methods that exchange before Local, quickest first; 0: none.
    """
    if sample is not None:
        positive_int("sample", sample, least=0)
    found, wrong = whole_runs(results(check_profile(profile)))
    if not found and not wrong:
        raise ValueError(f"profile: got {profile!r}, but {results(profile)} holds no stored runs")
    sound = []
    for line, record, history in found:
        if flawed := flaws(record, history) or of_other_clients(record):
            wrong += [f"{line.path}, line {line.number}: {line.run}: {text}" for text in flawed]
        else:
            sound.append((line, record, history))
    print("".join(f"DAMAGED  {text}\n" for text in wrong)
          + f"{len(sound)} of {len(found)} stored runs that can be read are as their settings say")
    chosen = take_turns([each for each in sound if can_recompute(each[1])])
    if left := len(sound) - len(chosen):
        print(f"{left} runs left out: their setup or method is gone, or their real data or backbones are not here")
    chosen = chosen[:sample]
    agree = 0
    for line, record, history in chosen:
        settings = Settings.of(**record["settings"])
        with tempfile.TemporaryDirectory() as folder:
            differences, text = compare((record, history), run(settings, folder))
        agree += not differences
        print(f"agrees   {settings.describe()}: {text}{of_other_code(record)}" if not differences else "\n".join(
            f"DIFFERS  {line.path}, line {line.number}: {line.run}: {each}{of_other_code(record)}" for each in differences))
    print(f"{agree} of {len(chosen)} runs agree")
    return 0 if agree == len(chosen) and not wrong else 1


def of_other_code(record):
    """A note where a run was computed by other code than there is now, see `experiments.code`; "" for the same."""
    now = code_digest()
    return "" if record.get("code") == now else f" (code {record.get('code', 'not noted')}, now {now})"


def of_other_clients(record):
    """What is wrong with a fingerprint, a list like that of `flaws`."""
    setup = SETUPS.get(record["settings"]["setup"])
    if setup is None or record["fingerprint"] == fingerprint(setup):
        return []
    return [f"fingerprint: got {record['fingerprint']}, expected {fingerprint(setup)}: its clients, their rates or weights "
            "were others"]


def can_recompute(record):
    """Whether the setup and the method of a stored run still exist, and the data and backbones that it had are at hand."""
    values = record["settings"]
    if values["setup"] not in SETUPS or values["method"] not in METHODS:
        return False
    settings = Settings.of(**values)
    return can_run(settings) and record.get("data") == data_used(settings)


def take_turns(stored):
    """Stored runs (line, record, history), the quickest of each setup and method first, then the second quickest, and so on."""
    groups = {}
    for found in sorted(stored, key=lambda found: found[1]["wall_seconds"]):
        values = found[1]["settings"]
        groups.setdefault((values["method"] == "local", values["method"], values["setup"]), []).append(found)
    turns = [(turn, key, found) for key, several in groups.items() for turn, found in enumerate(several)]
    return [found for *_, found in sorted(turns, key=lambda entry: entry[:2])]


def compare(stored, again):
    """([in what two (record, history) of the same settings differ beyond the limits], a sentence for when they do not)."""
    (record, history), (other, table) = stored, again
    found = compare_rows(history, table)
    if record.get("failed") != other.get("failed"):
        return [f"failed: got {record.get('failed')}, now {other.get('failed')}"], ""
    if "failed" in record:
        return found, f"diverges again: {record['failed']['reason']}"
    found += compare_ledger(record["ledger"], other["ledger"])
    found += [f"{name}: got {record[name]}, now {other[name]}" for name in ("data", "parameters") if name in record
              and record[name] != other[name]]
    found += compare_alignment(record["alignment"], other["alignment"])
    found += compare_masks(record.get("masks") or {}, other["masks"]) if "masks" in record else []
    if found:
        return found, ""
    if history.equals(table) and all(record.get(name, other[name]) == other[name] for name in ("alignment", "masks")):
        return [], "identical to the last bit"
    moved = (table["value"] - history["value"])[history["split"] == "test"].abs().max()
    return [], f"the same rows and bytes, numbers within the limits (test scores of a client within {moved:.2f} points)"


def compare_rows(history, table):
    """As `compare`, of the histories: rows and bytes exactly, values within the limits of their kind."""
    if list(history.columns) != list(table.columns):
        return [f"columns: got {list(history.columns)}, now {list(table.columns)}"]
    rows, now = (list(zip(*(each[name].tolist() for name in KEYS), strict=True)) for each in (history, table))
    if rows != now:
        other = sorted(set(rows) ^ set(now))
        reason = (f"{len(set(rows) - set(now))} rows that are not there now and {len(set(now) - set(rows))} that are new, e.g. "
                  f"{dict(zip(KEYS, other[0], strict=True))}" if other else "a row twice" if len(rows) != len(now) else
                  "the same rows in another order")
        return [f"rows: got {reason}"]
    if np.isnan(history["value"]).any():
        return [f"value: got NaN in {int(np.isnan(history['value']).sum())} rows"] if "diverged" not in set(
            history["split"]) else []
    if (sent := history["bytes"] != table["bytes"]).any():
        row = history[sent].iloc[0]
        return [f"bytes: got {row['bytes']} of client {row['client']}, round {row['round']}, now {table['bytes'][row.name]}"]
    both = history.assign(now=table["value"], moved=table["value"] - history["value"])
    found = []
    for (split, metric, round), group in both.groupby(["split", "metric", "round"], sort=False):
        for text in compare_group(split, metric, round, group):
            found.append(f"{split} {metric}, round {round}: {text}")
            break
    for split, limit in (("validation", ROUND_MEAN), ("test", FINAL_MEAN)):
        for round, moved in both[both["split"] == split].groupby("round")["moved"].mean().items():
            if abs(moved) > limit:
                found.append(f"{split}, round {round}: mean over clients moved by {moved:+.2f} points (limit {limit:g})")
    return found


def compare_group(split, metric, round, group):
    """What lies outside the limits of one metric of one round, for `compare_rows`: texts."""
    worst = group.loc[group["moved"].abs().idxmax()]
    if split != "train":
        limit = FINAL_CLIENT if split == "test" else ROUND_CLIENT if round else BEFORE
        if abs(worst["moved"]) > limit:
            yield f"client {worst['client']}: got {worst['value']:.2f}, now {worst['now']:.2f} (limit {limit:g} points)"
    elif not metric.endswith("loss"):
        if abs(group["moved"].mean()) > MEASURED * max(1.0, group["value"].abs().mean()):
            yield f"mean over clients: got {group['value'].mean():.3g}, now {group['now'].mean():.3g} (limit {MEASURED:g})"
    elif round == 1:
        relative = group["moved"].abs() / group["value"].abs()
        if (relative > EARLY).any():
            row = group.loc[relative.idxmax()]
            yield f"client {row['client']}: got {row['value']:.4g}, now {row['now']:.4g} (limit {100 * EARLY:g} %)"
    else:
        means = group["value"].mean(), group["now"].mean()
        if abs(means[1] - means[0]) > SMALL and not 1 / LOSS_MEAN <= means[1] / means[0] <= LOSS_MEAN:
            yield f"mean over clients: got {means[0]:.3g}, now {means[1]:.3g} (limit: factor {LOSS_MEAN:g})"
        for row in group[group["moved"].abs() > SMALL].itertuples():
            if not 1 / LOSS_CLIENT <= row.now / row.value <= LOSS_CLIENT:
                yield f"client {row.client}: got {row.value:.3g}, now {row.now:.3g} (limit: factor {LOSS_CLIENT:g})"


def compare_ledger(ledger, again):
    """As `compare`, of two ledgers: exactly."""
    other = sorted([entry for entry in ledger if entry not in again] + [entry for entry in again if entry not in ledger])
    if other or len(ledger) != len(again):
        round, client, direction, size = (other or ledger)[0]
        return [f"ledger: {len(other)} entries differ, the first: round {round}, client {client}, {direction}, {size} bytes"]
    return []


def compare_alignment(matrices, again):
    """As `compare`, of {"before", "after"}: matrices of the same names and shapes, their numbers within the limits."""
    found = []
    for when, limit in (("before", ALIKE_BEFORE), ("after", ALIKE)):
        one, other = matrices.get(when) or {}, again.get(when) or {}
        if one.keys() != other.keys():
            found.append(f"alignment {when}: got {sorted(one)}, now {sorted(other)}")
            continue
        for name in one:
            values, now = np.array(one[name], dtype=float), np.array(other[name], dtype=float)
            moved = np.abs(now - values).mean() if values.shape == now.shape else np.nan
            if not moved <= limit * max(1.0, np.abs(values).mean()):
                found.append(f"alignment {when}, {name}: differs by {moved:.3g} on average (limit {limit:g})")
    return found


def compare_masks(masks, again):
    """As `compare`, of predicted masks: the same scenes, most pixels alike."""
    found, again = [], {str(client): several for client, several in again.items()}
    if masks.keys() != again.keys():
        return [f"masks: got clients {sorted(masks)}, now {sorted(again)}"]
    for client, several in masks.items():
        if list(map(len, several)) != list(map(len, again[client])):
            found.append(f"masks: client {client}: got scenes of other sizes or number than now")
            continue
        pixels = list(zip("".join(several), "".join(again[client]), strict=True))
        moved = sum(one != other for one, other in pixels) / len(pixels)
        if moved > PIXELS:
            found.append(f"masks: client {client}: {100 * moved:.0f} % of the pixels differ (limit {100 * PIXELS:g} %)")
    return found
