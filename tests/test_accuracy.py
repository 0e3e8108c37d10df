"""Scores of classifiers equal scikit-learn's and what is worked out by hand, and are left where reports find them."""

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score, top_k_accuracy_score
from torch import Tensor

from jointsearch import Digits, Recipe
from jointsearch.data.load import Loaded
from jointsearch.loops.grid import Grid, run_grid
from jointsearch.metrics.accuracy import Accuracy, calibration_error
from jointsearch.networks.trained import load_network
from jointsearch.runs.track import read_metrics

CPU = torch.device("cpu")


def measured(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """Main and further scores of outputs that come in batches of 7."""
    metric = Accuracy(CPU)
    for some, of_some in zip(logits.split(7), labels.split(7), strict=True):
        metric.update(some, of_some)
    return metric.compute(), metric.further(classes)


@pytest.mark.parametrize("count", [2, 5, 6, 12])
def test_further_scores_are_those_of_scikit_learn(count: int) -> None:
    noise = torch.Generator().manual_seed(count)
    labels = torch.randint(count, (200,), generator=noise)
    logits = torch.randn(200, count, generator=noise) + torch.nn.functional.one_hot(labels, count)
    names = tuple(f"class {place}" for place in range(count))
    main, further = measured(logits, labels, names)
    truth, said = labels.numpy(), logits.argmax(1).numpy()
    assert main["accuracy"] == pytest.approx(100 * accuracy_score(truth, said))
    recalls = 100 * recall_score(truth, said, average=None)
    expected = {
        "balanced_accuracy": 100 * balanced_accuracy_score(truth, said),
        "macro_f1": 100 * f1_score(truth, said, average="macro"),
        "worst_class_accuracy": min(recalls),
        **{f"accuracy/{name}": recall for name, recall in zip(names, recalls, strict=True)},
    }
    if count > 5:
        expected["top5_accuracy"] = 100 * top_k_accuracy_score(truth, logits.numpy(), k=5, labels=range(count))
    error = further.pop("calibration_error")
    assert 0 < error < 100
    assert further == pytest.approx(expected)


def test_a_class_without_a_test_image_is_left_out_and_one_that_is_only_predicted_costs_f1() -> None:
    # Classes 0, 1, 2, 3: three images of 0 (two right, one taken for 2), one of 1 (right), none of 2 and 3.
    labels, said = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 2, 1])
    _, further = measured(torch.nn.functional.one_hot(said, 4) * 5.0, labels, ("a", "b", "c", "d"))
    assert {name for name in further if "/" in name} == {"accuracy/a", "accuracy/b"}
    assert further["balanced_accuracy"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert further["worst_class_accuracy"] == pytest.approx(100 * 2 / 3)
    # F1: of 0 it is 2 * 2 / (3 + 2), of 1 it is 1, of 2 it is 0; 3 has none.
    assert further["macro_f1"] == pytest.approx(100 * (0.8 + 1 + 0) / 3)


def test_calibration_error_is_worked_out_by_hand() -> None:
    # Of 15 bins .62 and .65 share (9/15, 10/15], .97 and 1.0 share the last, and .6 = 9/15 is alone in the one before.
    confidence = torch.tensor([0.62, 0.65, 0.97, 1.0, 0.6], dtype=torch.float64)
    right = torch.tensor([True, False, True, True, True])
    gaps = [abs(1 - 1.27), abs(2 - 1.97), abs(1 - 0.6)]
    assert calibration_error(right, confidence) == pytest.approx(100 * sum(gaps) / 5)
    sure_and_right = calibration_error(torch.tensor([True] * 3), torch.ones(3))
    assert sure_and_right == 0


def test_outputs_that_are_no_number_leave_plain_data() -> None:
    metric = Accuracy(CPU)
    metric.update(torch.tensor([[float("nan"), 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    told = json.loads(json.dumps(metric.details(("a", "b")), allow_nan=False))
    assert told["confidence"] == [0.0, 0.7311]
    json.dumps(metric.further(("a", "b")), allow_nan=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on digits."""
    folder = tmp_path_factory.mktemp("accuracy")
    recipe = Recipe(epochs=2, batch_size=64, evaluate_every=1)
    run_grid(Grid(("none",), Digits(reduced=200), (0,), "tiny_cnn", recipe), folder)
    return folder / "none" / "seed0"


def test_predictions_are_those_of_the_network_of_the_last_epoch_in_the_order_of_the_test_images(trained: Path) -> None:
    told = json.loads((trained / "predictions.json").read_text())
    test = Loaded(Digits(reduced=200)).splits(0).test
    assert list(told) == ["classes", "labels", "predicted", "confidence"]
    assert told["classes"] == [str(digit) for digit in range(10)]
    assert told["labels"] == test.labels.tolist()
    network, standard = load_network(trained), Digits().standard
    scaled = (test.images.float() / 255 - torch.tensor(standard.mean).view(-1, 1, 1)) / torch.tensor(standard.std).view(
        -1, 1, 1
    )
    with torch.no_grad():
        likeliest, predicted = network(scaled).softmax(1).max(1)
    assert told["predicted"] == predicted.tolist()
    assert told["confidence"] == pytest.approx(likeliest.tolist(), abs=2e-4)
    right = sum(one == other for one, other in zip(told["labels"], told["predicted"], strict=True))
    result = json.loads((trained / "result.json").read_text())
    assert result["test_accuracy_last"] == pytest.approx(100 * right / len(test))


def test_further_scores_stand_in_the_result_and_epochs_keep_their_few(trained: Path) -> None:
    result, rows = json.loads((trained / "result.json").read_text()), read_metrics(trained / "metrics.jsonl")
    means = {"balanced_accuracy", "macro_f1", "worst_class_accuracy", "calibration_error", "top5_accuracy"}
    assert result["test_scores_last"].keys() == means | {f"accuracy/{digit}" for digit in range(10)}
    assert result["metric"] == {"name": "accuracy", "unit": "%", "higher_is_better": True}
    *epochs, last = rows
    assert {key for row in epochs for key in row} <= {
        *("epoch", "step", "train_loss", "validation_loss", "validation_accuracy"),
    }
    further = {f"test_{name}_last" for name in means}
    assert {key for key in last if key.startswith("test_")} == {
        "test_accuracy_last",
        "test_accuracy_selected",
    } | further
