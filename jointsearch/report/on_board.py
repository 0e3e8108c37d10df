"""What a finished command puts on its board: figures of the whole run, what was found, its page and its pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jointsearch.report.comparison import Comparison, compare
from jointsearch.report.contact_sheet import photo_images, write_contact_sheet
from jointsearch.report.genotype_drawing import write_genotype_drawing
from jointsearch.report.page_run import Part, Run, read_run, seconds, training_images
from jointsearch.report.trainings_found import FOUND
from jointsearch.report.verdict import verdict_sentence
from jointsearch.runs.boards import Board
from jointsearch.runs.run_folder import GENOTYPE_FILE, OWN_NETWORK, POLICY_FILE
from jointsearch.runs.wandb_runs import SEARCHES, TRAININGS
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import load_policy_or_schedule

SUMMARY_FILES = ("report.html", "summary.md", "summary.json")
ROWS = 8  # of a policy, in its picture


def put_on_board(board: Board, folder: Path | str, dataset: Any = None) -> None:
    """Tell a board of a finished run; `dataset` holds the images that its pictures show policies on."""
    if not board.is_wanted:
        return
    run = read_run(folder)
    board.summarize(summary_of(run))
    for kind, name in (("policy", POLICY_FILE), ("genotype", GENOTYPE_FILE)):
        files = {f"{part.name}/{name}": part.folder / name for part in run.searches}
        board.keep(kind, {shown: file for shown, file in files.items() if file.is_file()})
    files = {name: run.folder / name for name in SUMMARY_FILES}
    board.keep("report", {name: file for name, file in files.items() if file.is_file()})
    board.show("report", files["report.html"])
    with TemporaryDirectory() as place:
        for title, picture in _pictures(run, dataset, Path(place)):
            board.show(f"pictures/{title}", picture)


def summary_of(run: Run) -> dict[str, Any]:
    """The figures of a run by name: of each row, of the finding beside each control, of the cost; and all trainings."""
    told: dict[str, Any] = {
        "cost/search_seconds": seconds(run.searches),
        "cost/search_forward_equivalents": sum(part.figure("forward_equivalents") or 0 for part in run.searches),
        "cost/training_seconds": seconds(run.trained),
        "cost/training_images": sum(part.figure("images_trained") or 0 for part in run.trained),
        TRAININGS: [_told(part) for part in run.trainings],
        SEARCHES: [_told(part) for part in run.searches],
    }
    if any(part.result is not None for part in run.trainings):
        told |= _scores(run.folder)
    return told


def _told(part: Part) -> dict[str, Any]:
    return {"row": part.group, "seed": part.seed, "settings": part.settings, "result": part.result}


def _scores(folder: Path) -> dict[str, Any]:
    """Mean and spread of each row; the finding beside every other row, or all rows beside the one without a method."""
    comparison = compare([folder])
    told: dict[str, Any] = {"verdict": verdict_sentence(comparison)}
    for row in comparison.rows:
        told |= {f"{row.policy}/mean": row.mean, f"{row.policy}/seeds": len(row.values)}
        told |= {} if row.spread is None else {f"{row.policy}/spread": row.spread}
    rows = [row.policy for row in comparison.rows]
    if FOUND not in rows:
        return told | _beside(comparison, rows)
    network = told.get(f"{OWN_NETWORK}/mean")  # of a search whose own network is its result
    told["score"] = told[f"{FOUND}/mean"] if network is None else network  # what a sweep looks at
    for other in rows:
        told |= _beside(compare([folder], baseline=other), [FOUND])
    return told


def _beside(comparison: Comparison, rows: Sequence[str]) -> dict[str, Any]:
    """The paired differences of some rows to the baseline."""
    told: dict[str, Any] = {}
    for row, difference in comparison.differences.items():
        name = f"{row}/minus_{comparison.baseline}"
        if row in rows:
            told |= {name: difference.mean, f"{name}_verdict": difference.verdict}
            told |= {} if difference.half_width is None else {f"{name}_half_width": difference.half_width}
    return told


def _pictures(run: Run, dataset: Any, place: Path) -> Iterator[tuple[str, Path]]:
    """Every policy that was found, on images, and all cells."""
    images = None
    for part in run.searches:
        policy, genotype = _policy(part), part.folder / GENOTYPE_FILE
        if policy is not None:
            images = _images(run, dataset) if images is None else images
            file = place / f"policy{part.seed}.png"
            write_contact_sheet(policy, images, file, rows=ROWS)
            yield f"policy of seed {part.seed}", file
        if genotype.is_file():
            file = place / f"cells{part.seed}.png"
            write_genotype_drawing(Genotype.load(genotype), file)
            yield f"cells of seed {part.seed}", file


def _policy(part: Part) -> Policy | None:
    path = part.folder / POLICY_FILE
    if not part.finds_policy or not path.is_file():
        return None
    found = load_policy_or_schedule(path)
    policy = found if isinstance(found, Policy) else found.spans[-1][1]
    return policy if policy.stages else None


def _images(run: Run, dataset: Any) -> Any:
    try:
        return training_images(run.first, dataset)
    except InputError:  # the images are not found again
        return photo_images()
