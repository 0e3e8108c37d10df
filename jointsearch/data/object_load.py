"""From the settings of a data set with objects to its three splits."""

import torch

from jointsearch.data.load import MAX_AUTO_BYTES, TEST_SEED
from jointsearch.data.object_datasets import ObjectSettings
from jointsearch.data.object_sets import ObjectSet
from jointsearch.data.objects import Picture
from jointsearch.data.sets import DataSplits
from jointsearch.data.splits import stratified_split
from search_spaces.errors import InputError


class LoadedObjects:
    """A data set with objects that is read once."""

    def __init__(self, settings: ObjectSettings, masks: bool) -> None:
        self.settings = settings
        self.found = settings.find_objects(masks)
        self._splits: dict[int, DataSplits] = {}
        self._decoded: dict[int, dict[int, Picture]] = {}  # by source and row

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes by number."""
        return self.found.classes

    def splits(self, seed: int) -> DataSplits:
        """The training, validation and test images; the seed chooses which of a reduced set are kept."""
        if seed not in self._splits:
            self._splits = {seed: self._divided(seed)}  # of one seed at a time: each has a digest of its own
        return self._splits[seed]

    def _divided(self, seed: int) -> DataSplits:
        parts = {split: self._set(split) for split in ("train", "validation", "test")}
        if "test" not in self.found.sources:
            parts["train"], parts["test"] = self._held_out(parts["train"])
        train, wanted = parts["train"], self.settings.reduced
        if wanted is not None:
            if wanted > len(train):
                raise InputError(f"dataset.reduced asks for {wanted} of {len(train)} training images; lower it")
            parts["train"] = train.subset(*stratified_split(torch.zeros(len(train)), (wanted,), seed))
        if self._fits_in_memory(parts):
            decoded = {split: self._decoded.setdefault(id(part.source), {}) for split, part in parts.items()}
            parts = {split: part.in_memory(decoded[split]) for split, part in parts.items()}
        return DataSplits(**parts)

    def _held_out(self, train: ObjectSet) -> tuple[ObjectSet, ObjectSet]:
        """Training and test images of a set that has no test images of its own; the same for every seed."""
        count = round(len(train) * getattr(self.settings, "test_share", 0.2))
        if not 0 < count < len(train):
            raise InputError(f"dataset.test_share holds out {count} of {len(train)} images; give more images")
        rest, held_out = stratified_split(torch.zeros(len(train)), (len(train) - count, count), TEST_SEED)
        return train.subset(rest), train.subset(held_out)

    def _set(self, split: str) -> ObjectSet:
        source = self.found.sources.get(split)
        rows = torch.arange(0 if source is None else len(source.annotations))
        workers = getattr(self.settings, "workers", 0)
        return ObjectSet(source or self.found.sources["train"], rows, self.classes, workers)

    def _fits_in_memory(self, parts: dict[str, ObjectSet]) -> bool:
        wanted = getattr(self.settings, "in_memory", "auto")
        if wanted != "auto":
            return wanted == "always"
        total = 0
        for part in parts.values():
            for row in part.rows.tolist():
                height, width = part.source.size(row)
                masks = part.source.annotations[row].outlines
                total += height * width * (3 + len(masks or ()))
                if total > MAX_AUTO_BYTES:
                    return False
        return True
