"""The images that a page shows, from the data set, or as the run folder keeps them since they were first shown.

A run keeps the name of a folder of photos and not its place. So whoever makes its page with the data at hand leaves the
few images that it shows in pictures.safetensors, and a later `report run=` needs no data.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from jointsearch.report.page_run import Part, Run, load_data, training_images
from jointsearch.runs.run_folder import replace_file
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

PICTURES_FILE = "pictures.safetensors"
TRAINING, TEST, ROWS, DETECTED = "training", "test", "test_rows", "detected/"
LARGEST = 224  # pixels of a side: larger images are shown, and kept, smaller
LARGEST_DRAWN = 400  # of a picture with boxes and words in it


class Pictures:
    """The images of a run's page. Without `dataset` kept ones are taken, then those of a data set that is found."""

    def __init__(self, run: Run, dataset: Any = None) -> None:
        self.run, self.dataset = run, dataset
        self.path = run.folder / PICTURES_FILE
        self.captions: dict[str, str] = {}
        self.kept: dict[str, Tensor] = self._read()
        self.before = dict(self.kept)

    def training(self) -> Tensor | None:
        """Some of the images (M, C, H, W) that trained the weights; None if they are not found again.

        InputError for a data set that was given and is not that of the run.
        """
        if self.dataset is not None or TRAINING not in self.kept:
            try:
                self.kept[TRAINING] = limited(training_images(self.run.first, self.loaded))
            except InputError:
                if self.dataset is not None:
                    raise
        return self.kept.get(TRAINING)

    def test(self, part: Part, rows: Sequence[int], labels: Sequence[int]) -> Tensor | None:
        """The test images at these places, as (M, C, H, W); `labels` are those of all test images, to know them by.

        None if they are not found again.
        """
        wanted = torch.tensor(rows)
        if self.dataset is not None or not self._has(wanted):
            try:
                images = self.loaded.splits(part.seed).test
            except InputError:
                return None
            if images.labels.tolist() != list(labels):
                return None
            self.kept[TEST], self.kept[ROWS] = limited(next(iter(images.batches(wanted, len(rows)))).images), wanted
        place = {row: number for number, row in enumerate(self.kept[ROWS].tolist())}
        return self.kept[TEST][[place[row] for row in rows]]

    def detected(
        self, of: bytes, draw: Callable[[Any], Iterable[tuple[str, Tensor]]]
    ) -> list[tuple[str, Tensor]] | None:
        """Pictures (M, 3, H, W) of detections with captions; `of` are the detections, `draw` draws on test images.

        None if the images are not found again.
        """
        prefix = f"{DETECTED}{hashlib.sha256(of).hexdigest()[:16]}/"
        names = sorted(name for name in self.kept if name.startswith(prefix))
        if self.dataset is not None or not names:
            try:
                drawn = list(draw(self.loaded.splits(self.run.first.seed).test))
            except InputError:
                return None
            names = [f"{prefix}{place}" for place in range(len(drawn))]
            self.kept |= {
                name: limited(picture, LARGEST_DRAWN) for name, (_, picture) in zip(names, drawn, strict=True)
            }
            self.captions |= {name: said for name, (said, _) in zip(names, drawn, strict=True)}
        return [(self.captions.get(name, ""), self.kept[name]) for name in names]

    def keep(self) -> None:
        """Leave the images in the run folder, where they are not there yet."""
        alike = self.kept.keys() == self.before.keys()
        if alike and all(torch.equal(self.kept[name], self.before[name]) for name in self.kept):
            return
        tensors = {name: image.cpu().contiguous().clone() for name, image in self.kept.items()}
        told = {"digest": str(self.run.first.setting("data", "digest")), **self.captions}
        replace_file(self.path, safetensors.torch.save(tensors, told))

    @cached_property
    def loaded(self) -> Any:
        """The data set, read once."""
        return load_data(self.run.first, self.dataset)

    def _has(self, rows: Tensor) -> bool:
        return TEST in self.kept and ROWS in self.kept and set(rows.tolist()) <= set(self.kept[ROWS].tolist())

    def _read(self) -> dict[str, Tensor]:
        """What is kept; nothing where it is of other data, as in a folder whose run was replaced."""
        if not self.path.is_file():
            return {}
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                told = file.metadata() or {}
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = all(map(_is_whole, kept.items()))
        except (safetensors.SafetensorError, RuntimeError, ValueError):
            whole = False
        if not whole or len(kept.get(TEST, ())) != len(kept.get(ROWS, ())):
            raise InputError(f"{shown_path(self.path)} is damaged; remove it, and give dataset= for new pictures")
        if told.get("digest") not in {str(part.setting("data", "digest")) for part in self.run.parts}:
            return {}
        self.captions = {name: said for name, said in told.items() if name.startswith(DETECTED)}
        return kept


def limited(images: Tensor, largest: int = LARGEST) -> Tensor:
    """Images (M, C, H, W) uint8, made smaller where a side is longer than what is shown."""
    longest = max(images.shape[-2:])
    if longest <= largest:
        return images
    size = [max(1, round(side * largest / longest)) for side in images.shape[-2:]]
    return interpolate(images, size, mode="bilinear", antialias=True)


def _is_whole(entry: tuple[str, Tensor]) -> bool:
    name, tensor = entry
    if name == ROWS:
        return tensor.dtype == torch.int64 and tensor.dim() == 1
    known = name in (TRAINING, TEST) or name.startswith(DETECTED)
    return known and tensor.dtype == torch.uint8 and tensor.dim() == 4 and tensor.numel() > 0
