"""A world: what the clients of a setup have for themselves, in public, and to be measured on; of scenes or of real data.

`world_of` makes it; either kind answers the same calls, in the images and texts themselves: what a client's network reads of
them is decided elsewhere.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch

from ..seeds import generator
from .captions import captions
from .partition import NUM_CLASSES, first_digits, like, split_by_class
from .real import splits
from .real.sources import source_folder, source_named, sources
from .scenes import CAPTIONED_DOMAIN, SCENE_DOMAINS, digit_scenes, held_out_pairs, public_pairs, public_scenes
from .tasks import targets, task_named

OWN_DOMAIN = "setup: settings: public_domain"         # what is the field `default_domain` here


class Pairs(NamedTuple):
    """Images with texts: `images` (n, 3, H, W), of scenes in [0, 1], of photos uint8; `captions`: n texts in the same order.
    None for what nobody reads or the data do not have."""

    images: torch.Tensor | None
    captions: list | None


@lru_cache(maxsize=16)
def public_data(domain, n, seed):
    """`n` public scenes of a domain, with captions where it is `CAPTIONED_DOMAIN`; no labels exist."""
    if domain != CAPTIONED_DOMAIN:
        return Pairs(public_scenes(domain, n, seed), None)
    scenes = public_pairs(n, seed)
    return Pairs(scenes.images, captions(scenes, generator(seed, "public captions")))


@lru_cache(maxsize=4)
def held_out_data(n):
    """`n` pairs of test handwriting with captions of their own: nobody trains on them."""
    scenes = held_out_pairs(n, 0)
    return Pairs(scenes.images, captions(scenes, generator(0, "held-out captions")))


@lru_cache(maxsize=64)
def scene_captions(split, layout, n, seed, *names):
    """Captions of `scenes.digit_scenes(split, layout, n, seed, *names)`, from a stream of their own."""
    return captions(digit_scenes(split, layout, n, seed, *names), generator(seed, "captions", split, layout, *names))


def world_of(tasks, sizes, *, seed, public_domain, public_size, validation_size, test_size, dirichlet=None,
             default_domain=None):
    """The world of clients with these tasks (names, see `tasks.task_named`) and numbers of private samples, client 1 first.

    public_domain, public_size: the public data, None where none are asked for.  validation_size, test_size: samples each client
    is scored on, 0 for none.  dirichlet: concentration of the clients' shares of each class, see `partition`; None: every
    client has all alike.
    default_domain: with real data, the public source that is the setup's own: its held-out samples tell how alike the clients'
    representations are, whatever the run's public data.  With scenes the held-out samples follow from what the clients read.
    Raises ValueError for an unknown task, a public domain without a size, and scenes beside real data.
    """
    if len(tasks) != len(sizes) or not tasks:
        raise ValueError(f"sizes: got {len(sizes)} for {len(tasks)} tasks, expected one for each of at least one client")
    if public_domain is not None and public_size is None:
        raise ValueError(f"public_size: got None with public_domain {public_domain!r}, expected a number of samples")
    real = set()
    for client, name in enumerate(tasks, 1):
        try:
            real.add(bool(task_named(name).source))
        except ValueError as error:
            raise ValueError(f"setup: client {client}: {error}") from error
    if len(real) == 2:
        raise ValueError("setup: got clients with scenes and clients with real data, expected either")
    return (RealWorld if real.pop() else SceneWorld)(tuple(tasks), tuple(sizes), seed, public_domain, public_size,
                                                     validation_size, test_size, dirichlet, default_domain)


@dataclass(frozen=True)
class World:
    """What the clients of a setup have, see `world_of` for the fields; clients count from 1.

    private(client) -> {"train", "validation" and, where there are any, "test": (`Pairs`, targets)}.  public() -> `Pairs`, None
    where there are none.  held_out(size) -> `Pairs` of at most so many samples that nobody trains on.
    classes(client) -> (n,) the class of each private train sample by which non-IID clients differ, of num_classes(client).
    used() -> hashes of the real data that a run trains on, as for JSON, None where there are none.  is_here() -> whether all
    that it reads is at hand.  wants_accelerator: whether runs are large enough for one.
    """

    tasks: tuple
    sizes: tuple
    seed: int
    public_domain: str | None
    public_size: int | None
    validation_size: int
    test_size: int
    dirichlet: float | None
    default_domain: str | None

    @property
    def needs_captions(self):
        """Whether any client reads texts."""
        return any(task_named(name).modality != "image" for name in self.tasks)

    def check(self):
        """Raise ValueError, before any work, where the clients cannot have the public or the default domain."""
        for field, name in (("public_domain", "public_domain"), ("default_domain", OWN_DOMAIN)):
            domain = getattr(self, field)
            if domain is not None and domain not in self.domains():
                raise ValueError(f"{name}: got {domain!r}, expected one of {tuple(self.domains())} for clients with {self.of}")
        if self.dirichlet is not None and (pairs := [name for name in self.tasks if task_named(name).modality == "both"]):
            raise ValueError(f"dirichlet: got {self.dirichlet} with {pairs[0]!r}, expected None: pairs have no classes")
        self._check_kind()

    def _scored_sizes(self):
        sizes = {"validation": self.validation_size, "test": self.test_size}
        return {split: size for split, size in sizes.items() if size}


class SceneWorld(World):
    """Clients with scenes.  A private set belongs to (seed, client); validation and test scenes are the same for all seeds and
    clients of a task.  With `dirichlet` the clients of a task split one pool of train scenes, and each is scored on as many of
    the task's scenes as can be had in the class proportions of its own."""

    of, wants_accelerator = "scenes", False

    def domains(self):
        """The public domains there are."""
        return SCENE_DOMAINS

    def _check_kind(self):
        texts = [client for client, name in enumerate(self.tasks, 1) if task_named(name).modality != "image"]
        if texts and self.public_domain not in (None, CAPTIONED_DOMAIN):
            raise ValueError(f"public_domain: got {self.public_domain!r}, expected {CAPTIONED_DOMAIN!r}: clients {texts} read "
                             "captions")

    def private(self, client):
        task, size, found = task_named(self.tasks[client - 1]), self.sizes[client - 1], {}
        for split, (scenes, rows) in self._own_scenes(client).items():
            drawn, texts = digit_scenes(*scenes), None
            if task.modality != "image":
                every = scene_captions(*scenes)
                texts = [every[row] for row in torch.arange(len(every))[rows].tolist()]
            found[split] = Pairs(drawn.images[rows], texts), targets(task.name, drawn)[rows]
        if task.of_public:
            found["train"] = public_data(CAPTIONED_DOMAIN, size, self.seed), torch.arange(size)
        return found

    def _own_scenes(self, client):
        """{split: (arguments of `digit_scenes`, rows of those that are the client's)}."""
        name = self.tasks[client - 1]
        layout = task_named(name).layout
        drawn = {"train": ("train", layout, self.sizes[client - 1], self.seed, "client", client)}
        drawn |= {split: (split, layout, size, 0) for split, size in self._scored_sizes().items()}
        if self.dirichlet is None:
            return {split: (scenes, slice(None)) for split, scenes in drawn.items()}
        together = splits.clients_of(self.tasks, name)
        sizes = [self.sizes[other - 1] for other in together]
        drawn["train"] = ("train", layout, sum(sizes), self.seed, "pool", name)
        digits = {split: first_digits(digit_scenes(*scenes)) for split, scenes in drawn.items()}
        rows, shares = split_by_class(digits["train"], sizes, self.dirichlet, self.seed, "partition", name)
        place = together.index(client)
        return {split: (scenes, rows[place] if split == "train" else like(digits[split], shares[:, place]))
                for split, scenes in drawn.items()}

    def public(self):
        return None if self.public_domain is None else public_data(self.public_domain, self.public_size, self.seed)

    def held_out(self, size):
        if self.needs_captions:
            return held_out_data(size)
        return Pairs(digit_scenes("test", "single", size, 0, "alignment").images, None)

    def classes(self, client):
        scenes, rows = self._own_scenes(client)["train"]
        return first_digits(digit_scenes(*scenes))[rows]

    def num_classes(self, client):
        return NUM_CLASSES

    def samples_read(self, client, held_out):
        return []

    def used(self):
        return None

    def is_here(self):
        return True


class RealWorld(World):
    """Clients with photos and texts of `sources.sources()`: which samples are whose, see `splits`."""

    of, wants_accelerator = "real data", True

    def domains(self):
        """The sources there are."""
        return sources()

    def _check_kind(self):
        if self.default_domain is None:
            raise ValueError(f"{OWN_DOMAIN}: got none, expected the name of a source, as in Setup(..., settings="
                             "{'public_domain': 'coco'}): its held-out samples tell how alike representations of clients with "
                             "real data are")

    def private(self, client):
        task = task_named(self.tasks[client - 1])
        rows = {"train": self._own_public(client) if task.of_public else self._rows()[client]}
        rows |= {split: splits.own_scored_rows(client, split, size, self.tasks, self.sizes, self.seed, self.dirichlet)
                 for split, size in self._scored_sizes().items()}
        found = {split: splits.task_samples(task, mine) for split, mine in rows.items()}
        pairs = {"text": lambda texts: Pairs(None, texts), "image": lambda images: Pairs(images, None),
                 "both": lambda both: Pairs(*both)}[task.modality]
        return {split: (pairs(inputs), wanted) for split, (inputs, wanted) in found.items()}

    def _rows(self):
        return splits.private_rows(self.tasks, self.sizes, self.seed, self.dirichlet)

    def _public_rows(self):
        return splits.public_rows(self.tasks, self.sizes, self.seed, self.public_domain, self.public_size)

    def _own_public(self, client):
        """Rows of a client whose private samples are the public ones, of the setup's own source."""
        return splits.public_rows(self.tasks, self.sizes, self.seed, self.default_domain, self.sizes[client - 1])

    def _pairs(self, source, rows):
        return Pairs(*splits.photos_and_texts(source, rows, splits.public_needs(self.tasks)))

    def public(self):
        return None if self.public_domain is None else self._pairs(self.public_domain, self._public_rows())

    def held_out(self, size):
        return self._pairs(self.default_domain, splits.held_out_rows(self.tasks, self.default_domain, size))

    def classes(self, client):
        return splits.sample_classes(task_named(self.tasks[client - 1]), self._rows()[client])

    def num_classes(self, client):
        return source_named(task_named(self.tasks[client - 1]).source).num_classes

    def _sources(self):
        return sorted({task_named(name).source for name in self.tasks} | {self.public_domain} - {None})

    def used(self):
        """{"sources": {name: hash of its samples}, "clients": {client, "0" the public data: hash of its samples}}."""
        names, rows = {client: task_named(name).source for client, name in enumerate(self.tasks, 1)}, dict(self._rows())
        if self.public_domain is not None:
            names[0], rows[0] = self.public_domain, self._public_rows()
        return {"sources": {name: splits.digest(name) for name in self._sources()},
                "clients": {str(client): splits.digest(names[client], rows[client]) for client in sorted(rows)}}

    def samples_read(self, client, held_out):
        """[(source, row numbers, whether public)] of all that a client reads in a run; held_out: how many of those."""
        name = self.tasks[client - 1]
        own = self._own_public(client) if task_named(name).of_public else self._rows()[client]
        found = [(task_named(name).source, own.tolist(), False)]
        found += [(task_named(name).source, splits.own_scored_rows(client, split, size, self.tasks, self.sizes, self.seed,
                                                                   self.dirichlet).tolist(), False)
                  for split, size in self._scored_sizes().items()]
        found.append((self.default_domain, splits.held_out_rows(self.tasks, self.default_domain, held_out).tolist(), False))
        return found + ([] if self.public_domain is None else [(self.public_domain, self._public_rows().tolist(), True)])

    def is_here(self):
        return all(source_folder(name).is_dir() for name in {*self._sources(), self.default_domain} - {None})
