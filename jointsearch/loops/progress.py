"""How far searches and trainings are, for a person: a bar in a terminal, and elsewhere a line now and then."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

from jointsearch.distributed import is_first
from jointsearch.loops.plan import Plan
from jointsearch.protocols import PLAIN_STEP, Needs

LINE_SECONDS = 10.0  # between two lines where there is no terminal
BAR = "{desc} {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"


class Course:
    """Which of several searches or trainings is next, and how long the rest may take by those that were carried out."""

    def __init__(self, word: str, count: int) -> None:
        self.word, self.left, self.count = word, count, count
        self.seconds: list[float] = []
        self.began: float | None = None  # of the one that is under way; None for one that is read from its folder

    def next(self, finished: bool) -> str:
        """The place of the next one, as in "training 3 of 12, about 05:30 to the end"."""
        now = time.monotonic()
        if self.began is not None:
            self.seconds.append(now - self.began)
        self.began = None if finished else now
        told = f"{self.word} {self.count - self.left + 1} of {self.count}"
        if self.seconds:
            rest = self.left * sum(self.seconds) / len(self.seconds)
            told += f", about {tqdm.format_interval(rest)} to the end"
        self.left -= 1
        return told


class Shown:
    """The progress of one training while it is entered. A measurement counts as the plain steps that it costs."""

    def __init__(self, plan: Plan, needs: Needs, steps: int, epochs: tuple[int, int]) -> None:
        self.plan, self.needs, self.steps = plan, needs, steps
        self.epoch, self.until = epochs
        self.done, self.part = self._work(self.epoch), ""
        self.began = self.said = time.monotonic()
        self.before = self.done
        terminal, wanted = sys.stderr.isatty(), plan.show_progress and is_first()
        self.lines = wanted and not terminal
        self.bar = tqdm(
            total=self._work(self.until),
            initial=self.done,
            desc=plan.label,
            bar_format=BAR,
            smoothing=0,  # the mean speed so far: that of the last steps alone knows nothing of measurements
            miniters=0,
            disable=not (wanted and terminal),
            leave=plan.search is not None,
        )

    def __enter__(self) -> "Shown":
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.lines and kind is None:
            self._line(f"done in {tqdm.format_interval(time.monotonic() - self.began)}")

    def at(self, epoch: int, step: int) -> None:
        """So many epochs, and steps of the next one, are done."""
        measured = self._measures(epoch) if step else 0.0  # the first step of an epoch measures
        self.epoch, self.part = epoch, ""
        self._move(self._work(epoch) + step + measured)

    def at_part(self, part: int, parts: int) -> None:
        """The part of a measurement that begins now."""
        self.part = f", measuring op {part} of {parts}"
        self._move(self._work(self.epoch) + 1 + self._measures(self.epoch) * (part - 1) / parts)

    def _work(self, epoch: int) -> float:
        """Plain steps that the epochs before this one are worth."""
        return epoch * self.steps + sum(self._measures(one) for one in self.needs.epochs or () if one < epoch)

    def _measures(self, epoch: int) -> float:
        """Plain steps that the measurement of an epoch is worth."""
        return self.needs.cost / PLAIN_STEP if epoch in (self.needs.epochs or ()) else 0.0

    def _move(self, done: float) -> None:
        self.bar.set_postfix_str(self._where(), refresh=False)
        self.bar.update(done - self.done)
        self.done = done
        if self.lines and time.monotonic() - self.said >= LINE_SECONDS:
            self._show()

    def _where(self) -> str:
        return f"epoch {min(self.epoch + 1, self.until)} of {self.until}{self.part}"

    def _show(self) -> None:
        self.bar.set_postfix_str(self._where())
        if self.lines:
            now, made = time.monotonic(), self.done - self.before
            left = (self._work(self.until) - self.done) * (now - self.began) / made if made else None
            self._line(self._where() + ("" if left is None else f", about {tqdm.format_interval(left)} left"))

    def _line(self, text: str) -> None:
        self.said = time.monotonic()
        sys.stderr.write(f"{self.plan.label}: {text}\n")
        sys.stderr.flush()
