"""Real data for clients: which samples of a source are whose, and the tensors they become.

One rule for every source.  Its test split is for scores only.  The rest, in one random order of the source's own: first what is
reserved to pretrain backbones on, then what is held out for validation, then the pool; a text that occurs twice has one role,
see `split_rows`.  In a run the pool is shuffled by the run's seed; clients of that source take their private sets from its
beginning, one after the other, and public samples come from its end.  So no sample has two roles, and a client's set does not
depend on the method.
"""

import hashlib
from functools import lru_cache

import torch

from ...experiments.setups import SETUP_SETTINGS, SETUPS
from ...seeds import generator
from ..partition import deal, split_by_class
from ..tasks import task_named
from .photos import VOID, largest_class, load_photos
from .sources import source_folder, source_named, source_table

HELD_OUT, MOST_HELD_OUT = 0.1, 1000   # of what is not reserved (our choice)
NEEDS = {"image": "photos", "label": "labels", "mask": "masks", "texts": "texts"}


def is_real(setup):
    """Whether the clients of a setup have real data; ValueError where some do and others do not."""
    real = {bool(task_named(spec.task).source) for spec in SETUPS[setup]}
    if len(real) == 2:
        raise ValueError(f"setup: got clients with scenes and with real data in {setup!r}, expected either")
    return real.pop()


def split_rows(name):
    """{"reserved", "validation", "pool", "test": sorted row numbers of `source_table`}, the same for every run.

    Of labelled texts, the pool lacks those that occur in the test or validation part as well, the reserved part also those of
    the pool; case and spaces do not count.
    """
    return dict(_split(name, str(source_folder(name)), source_named(name)))


@lru_cache(maxsize=16)
def _split(name, folder, source):
    table = source_table(name)
    is_test = torch.tensor((table["split"] == source.test).to_numpy(dtype=bool))
    if is_test.all():                                 # such as COCO's validation split alone: nothing of it is scored
        is_test = torch.zeros_like(is_test)
    rows = (~is_test).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator(0, "source", name))]
    reserved = round(source.reserved * len(rows))
    held_out = min(MOST_HELD_OUT, round(HELD_OUT * (len(rows) - reserved)))
    ends = (reserved, reserved + held_out)
    parts = {"reserved": rows[:ends[0]], "validation": rows[ends[0]:ends[1]], "pool": rows[ends[1]:],
             "test": is_test.nonzero()[:, 0]}
    seen = set()
    for part in ("test", "validation", "pool", "reserved"):
        parts[part] = parts[part].sort().values
        keys = [text_key(row.image, row.texts) for row in table.iloc[parts[part].tolist()].itertuples()]
        parts[part] = parts[part][torch.tensor([key is None or key not in seen for key in keys], dtype=torch.bool)]
        seen |= set(keys)
    return parts


def text_key(image, texts):
    """What two labelled texts have in common that are one text; None for a photo."""
    return " ".join(texts[0].lower().split()) if image is None and texts else None


def run_rows(settings, public=False):
    """{client index: its private rows}, and under 0, with `public`, the public ones, of a run; row numbers of their sources.

    With `settings.dirichlet` the clients of a task deal what they have together anew, class by class: see `partition`.
    Raises ValueError where a source has too few samples that have what the roles need.
    """
    specs = SETUPS[settings.setup]
    names = {task_named(spec.task).source for spec in specs} | ({settings.public_domain} if public else set())
    places = tuple((str(source_folder(name)), source_named(name)) for name in sorted(names))
    return dict(_run_rows(settings, public, specs, places))


@lru_cache(maxsize=64)
def _run_rows(settings, public, specs, places):      # places: what the rows also depend on
    found, taken, pools = {}, {}, {}

    def take(source, needs, count, role, from_end=False):
        if source not in pools:
            rows = split_rows(source)["pool"]
            pools[source] = rows[torch.randperm(len(rows), generator=generator(settings.seed, "pool", source))]
        free = [row for row in with_needs(source, pools[source], needs).tolist() if row not in taken.setdefault(source, set())]
        if count > len(free):
            raise ValueError(f"{source}: got {len(free)} free samples with {' and '.join(NEEDS[need] for need in needs)} for "
                             f"{role}, expected at least {count}")
        chosen = free[-count:] if from_end else free[:count]
        taken[source].update(chosen)
        return torch.tensor(chosen)

    for index, spec in enumerate(specs, 1):
        task = task_named(spec.task)
        found[index] = take(task.source, needs_of(task), spec.train_size, f"client {index}")
    for name in {spec.task for spec in specs} if settings.dirichlet is not None else ():
        together = of_task(settings.setup, name)
        rows = torch.cat([found[index] for index in together])
        dealt, _ = _shared_out(settings, name, rows)
        found |= {index: rows[mine] for index, mine in zip(together, dealt, strict=True)}
    if public:
        found[0] = take(settings.public_domain, public_needs(settings.setup), settings.public_size, "the public data", True)
    return found


def of_task(setup, name):
    """Indices of the clients of a setup whose task has this name."""
    return [index for index, spec in enumerate(SETUPS[setup], 1) if spec.task == name]


def _shared_out(settings, name, rows):
    sizes = [SETUPS[settings.setup][index - 1].train_size for index in of_task(settings.setup, name)]
    task = task_named(name)
    return split_by_class(sample_classes(task, rows), sizes, settings.dirichlet, settings.seed, "partition", name,
                          num_classes=source_named(task.source).num_classes)


def sample_classes(task, rows):
    """(n,) one class from 0 a sample, by which non-IID clients differ: its own; of several labels the first, of a mask the one
    of most of its pixels, background aside, and 0 where there is none (our choice)."""
    table = source_table(task.source).iloc[rows.tolist()]
    check_labels(task, table)
    if task.dense:
        found = {path: largest_class(path) for path in table["mask"]}
        if wrong := [path for path, value in found.items() if value >= task.num_outputs]:
            raise ValueError(f"{wrong[0]}: got class {found[wrong[0]]}, expected 0 to {task.num_outputs - 1} or {VOID} (void)")
        return torch.tensor([max(value - 1, 0) for value in found.values()])
    if task.multilabel:
        return torch.tensor([label.index(1) if 1 in label else 0 for label in table["label"]])
    return torch.tensor(table["label"].tolist())


def own_scored_rows(index, settings, split, size):
    """The "validation" or "test" rows that client `index` is scored on: those of its task, see `scored_rows`; with
    `settings.dirichlet` dealt to the clients of the task by the shares of their private sets."""
    spec = SETUPS[settings.setup][index - 1]
    task, together = task_named(spec.task), of_task(settings.setup, spec.task)
    rows = scored_rows(task, split, size)
    if settings.dirichlet is None:
        return rows
    private = run_rows(settings.replace(dirichlet=None))
    _, shares = _shared_out(settings, spec.task, torch.cat([private[other] for other in together]))
    order = generator(settings.seed, "partition", spec.task, split)
    mine = deal(sample_classes(task, rows), shares, order)[together.index(index)]
    if not len(mine):
        raise ValueError(f"dirichlet: got {settings.dirichlet}, which leaves client {index} without a {split} sample; expected "
                         f"more {split} samples than {len(rows)}")
    return rows[mine]


def needs_of(task):
    """Columns of a table that a task needs."""
    return ("texts", "label") if task.modality == "text" else ("image", "mask") if task.dense else ("image", "label")


def public_needs(setup):
    """Columns that public data of a setup need: photos, texts, or both, as its clients read."""
    modalities = {task_named(spec.task).modality for spec in SETUPS[setup]}
    return tuple(column for column, modality in (("image", "image"), ("texts", "text")) if modality in modalities)


def with_needs(name, rows, needs):
    """Those of `rows` whose samples have all columns `needs`."""
    table = source_table(name).iloc[rows.tolist()]
    has = torch.ones(len(rows), dtype=torch.bool)
    for need in needs:
        has &= torch.tensor([value is not None and value != () for value in table[need]], dtype=torch.bool)
    return rows[has]


def photos_and_texts(name, rows, needs):
    """(images (n, 3, side, side) uint8 or None, the first text of each or None) of rows of a source, as `needs` says."""
    table = source_table(name).iloc[rows.tolist()]
    images = load_photos(table.assign(mask=None), source_named(name).size)[0] if "image" in needs else None
    return images, [texts[0] for texts in table["texts"]] if "texts" in needs else None


def task_samples(task, rows):
    """(images or texts, targets) of rows of the task's source.

    targets: (n,) classes; (n, labels) 0 or 1, float; (n, side, side) uint8 classes of pixels, VOID where there is none.
    """
    table = source_table(task.source).iloc[rows.tolist()]
    check_labels(task, table)
    if task.modality == "text":
        return [texts[0] for texts in table["texts"]], torch.tensor(table["label"].tolist())
    if task.dense:
        images, masks = load_photos(table, source_named(task.source).size)
        for mask, path in zip(masks, table["mask"], strict=True):
            if (worst := mask[mask != VOID].amax().item() if (mask != VOID).any() else 0) >= task.num_outputs:
                raise ValueError(f"{path}: got class {worst}, expected 0 to {task.num_outputs - 1} or {VOID} (void)")
        return images, masks
    images, _ = load_photos(table.assign(mask=None), source_named(task.source).size)
    return images, torch.tensor(table["label"].tolist(), dtype=torch.float if task.multilabel else torch.long)


def check_labels(task, table):
    """Raise ValueError naming the first sample whose label is not what the task needs."""
    number = source_named(task.source).num_classes
    for row in table.itertuples():
        several, where = isinstance(row.label, tuple), row.image or f"{task.source}, sample {row.Index}"
        if task.dense:
            continue
        if several != task.multilabel or (len(row.label) != number or not set(row.label) <= {0, 1} if several
                                          else not 0 <= row.label < number):
            expected = f"{number} numbers, 0 or 1" if task.multilabel else f"a class from 0 to {number - 1}"
            raise ValueError(f"{where}: got label {row.label}, expected {expected} for {task.name}")


def scored_rows(task, split, size):
    """The first `size` rows (in a fixed random order), or all there are, of a task's "validation" or "test" rows."""
    rows = with_needs(task.source, split_rows(task.source)[split], needs_of(task))
    if not len(rows):
        raise ValueError(f"{task.source}: got no {split} sample for {task.name}, expected some: see `test` in `sources.Source`")
    order = torch.randperm(len(rows), generator=generator(0, "scored", task.source, split))
    return rows[order[:size]].sort().values


def held_out_rows(setup, domain, size):
    """Rows of a public source that nobody trains on, at most `size`."""
    return with_needs(domain, split_rows(domain)["validation"], public_needs(setup))[:size]


def data_are_here(settings, public=False):
    """Whether the folders of all sources of a run are at hand; True where clients have scenes."""
    names = {task_named(spec.task).source for spec in SETUPS[settings.setup]} - {""}
    if names:                                         # the setup's own public data tell how alike representations are
        names |= {SETUP_SETTINGS[settings.setup]["public_domain"]} | ({settings.public_domain} if public else set())
    return all(source_folder(name).is_dir() for name in names)


def digest(name, rows=None):
    """Short hash of a source's samples, or of some of them: file names, labels and texts, not the pixels."""
    table = source_table(name) if rows is None else source_table(name).iloc[rows.tolist()]
    columns = (table["image"].map(lambda path: path and path.name), table["label"], table["texts"])
    return hashlib.sha256(repr(list(zip(*columns, strict=True))).encode()).hexdigest()[:10]
