"""Real data for clients: which samples of a source are whose, and the tensors they become.

One rule for every source.  Its test split, or a part that is set apart, is for scores only.  The rest, in one random order of
the source's own: first what is held out for validation, then the pool; a text that occurs twice has one role, see `split_rows`.
In a run the pool is shuffled by the run's seed; clients of that source take their private sets from its beginning, one after
the other, and public samples come from its end.  So no sample has two roles, and a client's set does not depend on the method.

`tasks`: the names of the clients' tasks, client 1 first, a tuple; `sizes`: how many private samples each has, a tuple.
"""

import hashlib
from functools import lru_cache

import torch

from ...seeds import generator
from ...tasks import VOID
from ..partition import deal, split_by_class
from ..tasks import task_named
from .photos import largest_class, load_photos
from .sources import source_folder, source_named, source_table

HELD_OUT, LEAST_HELD_OUT, MOST_HELD_OUT = 0.1, 140, 1000               # for validation (our choice); never more than a fifth
NEEDS = {"image": "photos", "label": "labels", "mask": "masks", "texts": "texts"}


def split_rows(name):
    """{"validation", "pool", "test": sorted row numbers of `source_table`}, the same for every run.

    Of labelled texts, the pool lacks those that occur in the test or validation part as well; case and spaces do not count.
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
    apart = 0 if is_test.any() else round(source.test_share * len(rows))
    test, rows = (is_test.nonzero()[:, 0], rows) if not apart else (rows[:apart], rows[apart:])
    held_out = min(MOST_HELD_OUT, max(round(HELD_OUT * len(rows)), min(LEAST_HELD_OUT, len(rows) // 5)))
    parts = {"validation": rows[:held_out], "pool": rows[held_out:], "test": test}
    seen = set()
    for part in ("test", "validation", "pool"):
        parts[part] = parts[part].sort().values
        keys = [text_key(row.image, row.texts) for row in table.iloc[parts[part].tolist()].itertuples()]
        parts[part] = parts[part][torch.tensor([key is None or key not in seen for key in keys], dtype=torch.bool)]
        seen |= set(keys)
    return parts


def text_key(image, texts):
    """What two labelled texts have in common that are one text; None for a photo."""
    return " ".join(texts[0].lower().split()) if image is None and texts else None


def private_rows(tasks, sizes, seed, dirichlet=None):
    """{client: its private rows}, row numbers of the clients' sources; none of one whose private samples are the public ones.

    dirichlet: concentration with which the clients of a task deal what they have together anew, class by class, see
    `partition`; None: not at all.  Raises ValueError where a source has too few samples that have what a client needs.
    """
    found = dict(_private_rows(tasks, sizes, seed, _places(tasks)))
    for name in set(tasks) if dirichlet is not None else ():
        found |= _dealt(name, tasks, sizes, seed, dirichlet, _places(tasks))[0]
    return found


def _places(tasks):
    """What rows depend on beside their arguments."""
    names = sorted({task_named(name).source for name in tasks})
    return tuple((str(source_folder(name)), source_named(name)) for name in names)


@lru_cache(maxsize=64)
def _private_rows(tasks, sizes, seed, places):
    found, taken = {}, {}
    for client, (name, size) in enumerate(zip(tasks, sizes, strict=True), 1):
        task = task_named(name)
        if task.of_public:
            continue
        used = taken.setdefault(task.source, set())
        found[client] = _free_rows(task.source, needs_of(task), seed, used, size, f"client {client}")[:size]
        used.update(found[client].tolist())
    return found


def _free_rows(source, needs, seed, taken, size, role):
    """The rows of the shuffled pool that have `needs` and are not `taken`; ValueError where they are fewer than `size`."""
    pool = split_rows(source)["pool"]
    pool = with_needs(source, pool[torch.randperm(len(pool), generator=generator(seed, "pool", source))], needs).tolist()
    free = [row for row in pool if row not in taken]
    if size > len(free):
        raise ValueError(f"{source}: got {len(free)} free samples with {' and '.join(NEEDS[need] for need in needs)} for "
                         f"{role}, expected at least {size}")
    return torch.tensor(free, dtype=torch.long)


@lru_cache(maxsize=64)
def _dealt(name, tasks, sizes, seed, dirichlet, places):
    """({client: its rows} of the clients of task `name`, their shares (classes, clients))."""
    clients, task = clients_of(tasks, name), task_named(name)
    together = torch.cat([_private_rows(tasks, sizes, seed, places)[client] for client in clients])
    dealt, shares = split_by_class(sample_classes(task, together), [sizes[client - 1] for client in clients], dirichlet, seed,
                                   "partition", name, num_classes=source_named(task.source).num_classes)
    return {client: together[mine] for client, mine in zip(clients, dealt, strict=True)}, shares


def clients_of(tasks, name):
    """The clients whose task has this name, from 1."""
    return [client for client, other in enumerate(tasks, 1) if other == name]


def public_rows(tasks, sizes, seed, source, size):
    """The `size` public rows of a run, of a source that may be the clients' as well; ValueError where it has too few."""
    private = private_rows(tasks, sizes, seed)
    for name in {task_named(name).source for name in tasks} - {source}:
        if source_folder(name) == source_folder(source):
            raise ValueError(f"public_domain: got {source!r}, whose folder {source_folder(source)} is that of the clients' "
                             f"{name!r}; expected {name!r} or another source: samples would have two roles")
    taken = {row for client, name in enumerate(tasks, 1) if task_named(name).source == source
             for row in private.get(client, torch.empty(0)).tolist()}
    free = _free_rows(source, public_needs(tasks), seed, taken, size, "the public data")
    return free[len(free) - size:]


def scored_rows(name, split, size):
    """The first `size` rows (in a fixed random order), or all there are, of a task's "validation" or "test" rows."""
    task = task_named(name)
    rows = with_needs(task.source, split_rows(task.source)[split], needs_of(task))
    if not len(rows):
        raise ValueError(f"{task.source}: got no {split} sample for {name}, expected some: see `test` in `sources.Source`")
    order = torch.randperm(len(rows), generator=generator(0, "scored", task.source, split))
    return rows[order[:size]].sort().values


def own_scored_rows(client, split, size, tasks, sizes, seed, dirichlet=None):
    """The `scored_rows` of a client's task; with `dirichlet` dealt to the clients of the task by the shares of their private
    sets.  Raises ValueError where that leaves the client without any."""
    name = tasks[client - 1]
    rows, clients = scored_rows(name, split, size), clients_of(tasks, name)
    if dirichlet is None:
        return rows
    _, shares = _dealt(name, tasks, sizes, seed, dirichlet, _places(tasks))
    order = generator(seed, "partition", name, split)
    mine = deal(sample_classes(task_named(name), rows), shares, order)[clients.index(client)]
    if not len(mine):
        raise ValueError(f"dirichlet: got {dirichlet}, which leaves client {client} without a {split} sample; expected more "
                         f"{split} samples than {len(rows)}")
    return rows[mine]


def held_out_rows(tasks, source, size):
    """Rows of a public source that nobody trains on, at most `size`."""
    return with_needs(source, split_rows(source)["validation"], public_needs(tasks))[:size]


def needs_of(task):
    """Columns of a table that a task needs."""
    if task.modality == "both":
        return "image", "texts"
    return ("texts", "label") if task.modality == "text" else ("image", "mask") if task.dense else ("image", "label")


def public_needs(tasks):
    """Columns that public data need: photos, texts, or both, as the clients read."""
    modalities = {task_named(name).modality for name in tasks}
    return tuple(column for column, modality in (("image", "image"), ("texts", "text")) if {modality, "both"} & modalities)


def with_needs(name, rows, needs):
    """Those of `rows` whose samples have all columns `needs`."""
    table = source_table(name).iloc[rows.tolist()]
    has = torch.ones(len(rows), dtype=torch.bool)
    for need in needs:
        has &= torch.tensor([value is not None and value != () for value in table[need]], dtype=torch.bool)
    return rows[has]


def sample_classes(task, rows):
    """(n,) one class from 0 a sample, by which non-IID clients differ: its own; of several labels the first, of a mask the one
    of most of its pixels, background aside, and 0 where there is none (our choice)."""
    table = source_table(task.source).iloc[rows.tolist()]
    check_labels(task, table)
    if task.dense:
        found, most = [largest_class(path) for path in table["mask"]], source_named(task.source).num_classes
        if wrong := [pair for pair in zip(table["mask"], found, strict=True) if pair[1] > most]:
            raise ValueError(f"{wrong[0][0]}: got class {wrong[0][1]}, expected 0 to {most} or {VOID} (void)")
        return torch.tensor([max(value - 1, 0) for value in found])
    if task.multilabel:
        return torch.tensor([label.index(1) if 1 in label else 0 for label in table["label"]])
    return torch.tensor(table["label"].tolist())


def photos_and_texts(name, rows, needs):
    """(images (n, 3, side, side) uint8 or None, the first text of each or None) of rows of a source, as `needs` says."""
    table = source_table(name).iloc[rows.tolist()]
    images = load_photos(table.assign(mask=None), source_named(name).size)[0] if "image" in needs else None
    return images, [texts[0] for texts in table["texts"]] if "texts" in needs else None


def task_samples(task, rows):
    """(images, texts, or both, targets) of rows of the task's source.

    targets: (n,) numbers of pairs; (n,) classes; (n, labels) 0 or 1, float; (n, side, side) uint8 classes of pixels, VOID where
    there is none.
    """
    table = source_table(task.source).iloc[rows.tolist()]
    if task.modality == "both":
        return photos_and_texts(task.source, rows, needs_of(task)), torch.arange(len(rows))
    check_labels(task, table)
    if task.modality == "text":
        return [texts[0] for texts in table["texts"]], torch.tensor(table["label"].tolist())
    if task.dense:
        images, masks = load_photos(table, source_named(task.source).size)
        most = source_named(task.source).num_classes
        for mask, path in zip(masks, table["mask"], strict=True):
            if (worst := mask[mask != VOID].amax().item() if (mask != VOID).any() else 0) > most:
                raise ValueError(f"{path}: got class {worst}, expected 0 to {most} or {VOID} (void)")
        return images, masks if task.made_of is None else task.made_of(masks)
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


def digest(name, rows=None):
    """Short hash of a source's samples, or of some of them: file names, labels and texts, not the pixels."""
    return _digest(name, str(source_folder(name)), source_named(name), None if rows is None else tuple(rows.tolist()))


@lru_cache(maxsize=4096)
def _digest(name, folder, source, rows):
    table = source_table(name) if rows is None else source_table(name).iloc[list(rows)]
    columns = (table["image"].map(lambda path: path and path.name), table["label"], table["texts"])
    return hashlib.sha256(repr(list(zip(*columns, strict=True))).encode()).hexdigest()[:10]
