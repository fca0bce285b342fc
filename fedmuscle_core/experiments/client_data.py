"""A client's private, validation and test data, of scenes or real, as its backbone reads them."""

from ..networks.text import TEXT_LENGTH, load_tokenizer, token_ids
from ..world.pairs import Pairs, scene_captions
from ..world.partition import first_digits, like, split_by_class
from ..world.real.splits import own_scored_rows, run_rows, task_samples
from ..world.scenes import digit_scenes
from ..world.tasks import targets, task_named
from .setups import SETUPS


def private_sets(index, spec, settings):
    """{split: (inputs, targets)} of client `index`: train, validation and, where the settings have any, test samples.

    With `settings.dirichlet` the clients of a task split one pool of train scenes, see `partition`; the validation and test
    scenes of each are those of the task, as many as can be had in the class proportions of its own.
    """
    task = task_named(spec.task)
    if task.source:
        return real_sets(index, spec, settings)
    drawn = {"validation": ("validation", settings.validation_size, 0), "test": ("test", settings.test_size, 0)}
    drawn = {split: pool for split, pool in drawn.items() if pool[1]}
    if settings.dirichlet is None:
        drawn["train"] = ("train", spec.train_size, settings.seed, "client", index)
        return {split: private_data(task, spec.backbone, *pool) for split, pool in drawn.items()}
    together = [other for other, twin in enumerate(SETUPS[settings.setup], 1) if twin.task == spec.task]
    sizes = [SETUPS[settings.setup][other - 1].train_size for other in together]
    drawn["train"] = ("train", sum(sizes), settings.seed, "pool", spec.task)
    digits = {split: first_digits(digit_scenes(split, task.layout, *pool[1:])) for split, pool in drawn.items()}
    rows, shares = split_by_class(digits["train"], sizes, settings.dirichlet, settings.seed, "partition", spec.task)
    place = together.index(index)
    chosen = {split: rows[place] if split == "train" else like(digits[split], shares[:, place]) for split in drawn}
    whole = {split: private_data(task, spec.backbone, *pool) for split, pool in drawn.items()}
    return {split: (inputs[chosen[split]], wanted[chosen[split]]) for split, (inputs, wanted) in whole.items()}


def real_sets(index, spec, settings):
    """As `private_sets`, of a client with real data: see `real_data.run_rows`."""
    task = task_named(spec.task)
    sizes = {"validation": settings.validation_size, "test": settings.test_size}
    rows = {"train": run_rows(settings)[index]}
    rows |= {split: own_scored_rows(index, settings, split, size) for split, size in sizes.items() if size}
    found = {}
    for split, chosen in rows.items():
        inputs, wanted = task_samples(task, chosen)
        found[split] = read(task, spec.backbone, Pairs(inputs, inputs)), wanted
    return found


def private_data(task, backbone, split, size, seed, *stream):
    """(inputs, targets) of `size` labelled scenes of one split, inputs as the client's backbone reads them."""
    scenes = digit_scenes(split, task.layout, size, seed, *stream)
    texts = scene_captions(split, task.layout, size, seed, *stream) if task.modality == "text" else None
    return read(task, backbone, Pairs(scenes.images, texts)), targets(task.name, scenes)


def read(task, backbone, pairs):
    """What a client sees of image-caption `Pairs`: the images (n, 3, H, W), or the captions' token ids (n, L); real texts are
    cut off after TEXT_LENGTH tokens."""
    if task.modality == "image":
        return pairs.images
    limits = {"max_length": TEXT_LENGTH, "cut": True} if task.source else {}
    return token_ids(load_tokenizer(backbone), pairs.captions, **limits)
