"""Where else the figures of a command go: Weights & Biases and TensorBoard. The only door to both packages.

    with Board.of(Wandb("offline"), False, folder, config) as board:
        board.log(folder / "none" / "seed0", step=10, metrics={"train_loss": 0.3})  # none/seed0/train_loss

A command has one board, and so one W&B run. Each of its searches and trainings has its own steps there.
"""

import importlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from jointsearch.distributed import is_first
from jointsearch.runs.provenance import birth_certificate
from jointsearch.runs.run_folder import replace_file
from jointsearch.runs.wandb_runs import SETTINGS
from jointsearch.settings import check_fields, choice, setting
from search_spaces.errors import InputError

IDENTITY_FILE = "wandb_id.txt"  # in a run folder, so that a run that continues stays one W&B run
SWEEP_ID, AGENTS_RUN_ID = "WANDB_SWEEP_ID", "WANDB_RUN_ID"  # set by `wandb agent`
PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class Disabled:
    """Nothing is sent to Weights & Biases."""


@dataclass(frozen=True)
class Wandb:
    """A run of Weights & Biases. Offline runs lie in the run folder, and `wandb sync` sends them later."""

    mode: str = choice("offline", "offline", "online", help="offline: into the run folder; online: to the server")
    project: str = setting("jointsearch", help="of Weights & Biases")
    entity: str | None = setting(None, help="a user or team; null: your own")
    group: str | None = setting(None, help="name under which several runs are shown together")
    tags: tuple[str, ...] = setting((), help="words to find the run by")

    def __post_init__(self) -> None:
        check_fields(self)


WandbSettings = Disabled | Wandb


class Sink(Protocol):
    """A place that figures are sent to."""

    def log(self, part: str, step: int, metrics: Mapping[str, Any]) -> None:
        """The figures of a search or training after some steps."""

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Figures of the whole command."""

    def keep(self, kind: str, files: Mapping[str, Path]) -> None:
        """Files to keep together under their names, as the policies of all seeds."""

    def show(self, name: str, file: Path) -> None:
        """A picture or a page to look at."""

    def finish(self, exit_code: int) -> None:
        """Nothing more comes."""


class Board:
    """All that a command tells of itself, to every place that was asked for; without one it does nothing."""

    def __init__(self, folder: Path, *openers: Any) -> None:
        self.folder, self._openers = folder, openers
        self._sinks: list[Sink] | None = None  # None: not opened yet

    @staticmethod
    def of(wandb: WandbSettings, tensorboard: bool, folder: Path, config: Mapping[str, Any]) -> "Board":
        """The board that settings ask for. `config` is what a reader needs to know of the command.

        Of several processes the first tells for all.
        """
        if not is_first():
            return Board(folder)
        whole = {**config, "birth": birth_certificate()}
        openers: list[Any] = []
        if isinstance(wandb, Wandb):
            openers.append(lambda: WandbRun(wandb, folder, whole))
        if tensorboard:
            openers.append(lambda: TensorBoard(folder, whole))
        return Board(folder, *openers)

    @property
    def is_wanted(self) -> bool:
        """Whether there is any place to tell."""
        return bool(self._openers)

    def open(self) -> None:
        """Open every place, once; called when nothing was found wrong and before anything else is written."""
        if self._sinks is None:
            self._sinks = [opener() for opener in self._openers]

    def log(self, part: Path, step: int, metrics: Mapping[str, Any]) -> None:
        """Figures of the search or training in a folder below that of the run."""
        for sink in self._opened():
            sink.log(part.relative_to(self.folder).as_posix(), step, metrics)

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Figures of the whole command."""
        for sink in self._opened():
            sink.summarize(figures)

    def keep(self, kind: str, files: Mapping[str, Path]) -> None:
        """Files to keep, as the policies that were found."""
        for sink in self._opened() if files else ():
            sink.keep(kind, files)

    def show(self, name: str, file: Path) -> None:
        """A picture or a page."""
        for sink in self._opened():
            sink.show(name, file)

    def _opened(self) -> list[Sink]:
        self.open()
        return self._sinks or []

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._sinks or ():
            sink.finish(0 if kind is None else getattr(error, "exit_code", 1))


NO_BOARD = Board(Path())


class WandbRun:
    """The run of a command in Weights & Biases."""

    def __init__(self, settings: Wandb, folder: Path, config: Mapping[str, Any]) -> None:
        self._wandb = wandb = _package("wandb", f"wandb={settings.mode}", "wandb=disabled")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / IDENTITY_FILE
        in_sweep = SWEEP_ID in os.environ
        known = path.read_text() if path.is_file() else secrets.token_hex(8)
        identity = os.environ.get(AGENTS_RUN_ID, known) if in_sweep else known
        try:
            self._run = wandb.init(
                mode=settings.mode,
                project=settings.project,
                entity=settings.entity,
                group=settings.group,
                tags=settings.tags,
                dir=str(folder.absolute()),
                id=identity,
                resume="allow" if settings.mode == "online" else None,
                config={SETTINGS: dict(config)},
                name=folder.name,
            )
        except Exception as error:  # its own kinds, the system's, and those of the process that it starts
            reason = " ".join(str(error).split())
            raise InputError(
                f"wandb={settings.mode} could not start ({reason}); run `wandb login`, or use wandb=offline or disabled"
            ) from None
        if in_sweep:
            self._run.mark_preempting()  # a run that is killed goes back into the queue, and another agent resumes it
        replace_file(path, identity.encode())
        self._known: set[str] = set()

    def log(self, part: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Each part has an axis of its own."""
        axis = f"{part}/step"
        if part not in self._known:
            self._known.add(part)
            self._run.define_metric(axis, hidden=True)
            self._run.define_metric(f"{part}/*", step_metric=axis)
        self._run.log({axis: step, **{f"{part}/{name}": value for name, value in metrics.items()}})

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """What the table of runs shows."""
        self._run.summary.update(dict(figures))

    def keep(self, kind: str, files: Mapping[str, Path]) -> None:
        """An artifact of the run."""
        artifact = self._wandb.Artifact(f"{kind}-{self._run.id}", type=kind)
        for name, file in files.items():
            artifact.add_file(str(file), name)
        self._run.log_artifact(artifact)

    def show(self, name: str, file: Path) -> None:
        """Media of the run."""
        is_picture = file.suffix in PICTURES
        self._run.log({name: self._wandb.Image(str(file)) if is_picture else self._wandb.Html(str(file))})

    def finish(self, exit_code: int) -> None:
        """W&B shows whether the command went through."""
        self._run.finish(exit_code=exit_code)


class TensorBoard:
    """Event files in the folder tensorboard of the run: `tensorboard --logdir RUN`. It shows no pages and no files."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        _package("tensorboard", "tensorboard=true", "tensorboard=false")
        # Imported here: it needs the package that was just looked for, and takes a second.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("config", _as_code(config))

    def log(self, part: str, step: int, metrics: Mapping[str, Any]) -> None:
        """The numbers among them."""
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{part}/{name}", value, step)

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """As text."""
        self._writer.add_text("summary", _as_code(figures))

    def keep(self, kind: str, files: Mapping[str, Path]) -> None:
        """They are in the run folder."""

    def show(self, name: str, file: Path) -> None:
        """Pictures only."""
        if file.suffix in PICTURES:
            # Imported here: needed only where a picture is shown.
            import numpy
            from PIL import Image

            with Image.open(file) as picture:
                self._writer.add_image(name, numpy.asarray(picture.convert("RGB")), dataformats="HWC")

    def finish(self, exit_code: int) -> None:
        """Write what is left."""
        self._writer.close()


def _package(name: str, wanted_by: str, instead: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{wanted_by} needs the package {name} ({error}); install it or use {instead}") from None


def _as_code(data: Mapping[str, Any]) -> str:
    """Plain data as an indented block of Markdown."""
    return "\n".join(f"    {line}" for line in json.dumps(data, indent=2, default=str).splitlines())
