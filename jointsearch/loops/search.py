"""Search inside one training: some images train the weights, others validate, and no test image is looked at."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jointsearch.data.sets import DataSplits
from jointsearch.distributed import from_first
from jointsearch.loops.journal import Journal, carry_out
from jointsearch.loops.plan import NewStepSearcher, Plan
from jointsearch.loops.retrain import BestWeights, leave_network
from jointsearch.loops.training import Training
from jointsearch.protocols import Scores, State
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE, replace_file
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

SELECT = ("last", "best")

RowOf = Callable[[Policy | PolicySchedule | None], Plan]  # the training that counts as that of the policy found


class KeptFinding:
    """Keeps what the search finds in the selected epoch: the last, or the one with the best validation score.

    Best is chosen among the epochs in which everything learned that is searched; of equal ones it is the later.
    """

    def __init__(self, select_epoch: str) -> None:
        self.select_epoch = select_epoch
        self.epoch = 0
        self.score: float | None = None
        self.policy, self.genotype = "", ""  # as JSON
        self.facts: dict[str, Any] = {}

    def consider(self, training: Training, scores: Scores | None) -> Mapping[str, float | str]:
        """Keep what is found if this epoch is selected. Returns the facts that are numbers or words."""
        found = training.searcher.found()
        said = {name: fact for name, fact in found.facts.items() if isinstance(fact, bool | int | float | str)}
        learned = self.epoch > training.searcher.needs.everything_from  # which counts from 0
        if self.select_epoch == "best" and learned and scores is not None and scores.worse_than(self.score):
            return said
        self.epoch, self.score = training.progress.epoch, None if scores is None else scores.decisive
        self.facts = dict(found.facts)
        self.policy = self.text(training, found.policy)
        self.genotype = "" if found.genotype is None else found.genotype.to_json()
        return said

    def text(self, training: Training, policy: Policy | PolicySchedule | None) -> str:
        """The policy found in an epoch, as JSON."""
        return "" if policy is None else policy.to_json()

    def write(self, folder: Path) -> None:
        """Leave it in a folder."""
        for name, content in ((POLICY_FILE, self.policy), (GENOTYPE_FILE, self.genotype)):
            if content:
                replace_file(folder / name, content.encode())

    def state(self) -> State:
        """What a checkpoint has to hold."""
        return dict(vars(self))

    def restore(self, state: State) -> None:
        """Continue from a state."""
        vars(self).update(state)


class KeptNetwork(KeptFinding):
    """Keeps the weights of the best epoch as well, for a search whose network is a result."""

    def __init__(self, select_epoch: str, row: RowOf) -> None:
        super().__init__(select_epoch)
        self.row, self.best = row, BestWeights()

    def consider(self, training: Training, scores: Scores | None) -> Mapping[str, float | str]:
        """Keep what is found, and the weights if this epoch is better."""
        self.best.consider(training, scores)
        return super().consider(training, scores)

    def leave(self, training: Training, splits: DataSplits) -> dict[str, float]:
        """Leave the network as if it had been retrained. Returns its score on test images."""
        plan = self.row(training.searcher.found().policy)
        result = leave_network(training, splits, self.best, plan)
        score = result.get(f"test_{training.metric()['name']}_last")
        images = {"images_trained": result["images_trained"]}
        return images if score is None else images | {"own_test_score": score}

    def text(self, training: Training, policy: Policy | PolicySchedule | None) -> str:
        """Only in the last epoch: the policies of all epochs are long, and before it some are missing."""
        return super().text(training, policy) if training.progress.epoch == training.plan.recipe.epochs else ""

    def state(self) -> State:
        """What a checkpoint has to hold."""
        mine = {name: value for name, value in vars(self).items() if name not in ("row", "best")}
        return mine | {"best": self.best.state()}

    def restore(self, state: State) -> None:
        """Continue from a state."""
        super().restore({name: value for name, value in state.items() if name != "best"})
        self.best.restore(state["best"])


def search(
    plan: Plan,
    splits: DataSplits,
    new_searcher: NewStepSearcher,
    select_epoch: str = SELECT[0],
    row: RowOf | None = None,
) -> dict[str, Any]:
    """Search, or continue, or return the result that is there already; policy.json and genotype.json hold the finding.

    The training part of `splits` trains the weights, the validation part gives the rewards, the test part is not read.
    Only where the network is a result, too, do the test images score it, once: it is left in the folder of the training
    that `row` makes of the policy found.
    """

    def find(journal: Journal) -> dict[str, Any]:
        kept = KeptFinding(select_epoch) if row is None else KeptNetwork(select_epoch, row)
        training = Training(plan, splits, new_searcher, kept, journal)
        training.advance(plan.recipe.epochs)
        from_first(lambda: kept.write(plan.folder))
        own = kept.leave(training, splits) if isinstance(kept, KeptNetwork) else {}
        return {
            "epochs": training.progress.epoch,
            "steps": training.total_steps(),
            "seconds": round(journal.seconds(), 1),
            "forward_equivalents": training.progress.forward_equivalents,
            "skipped_steps": training.progress.skipped,
            "select_epoch": select_epoch,
            "selected_epoch": kept.epoch,
            "metric": training.metric(),
            **own,
            **kept.facts,
        }

    return carry_out(plan, splits, find)
