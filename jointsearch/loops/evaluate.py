"""Loss and accuracy of a network on images as they are."""

import torch

from jointsearch.data.sets import AnySet
from jointsearch.data.standard import Standard, normalize
from jointsearch.loops.recipe import Trainer

EVALUATION_BATCH = 500


@torch.no_grad()
def evaluate(trainer: Trainer, images: AnySet, standard: Standard) -> dict[str, float]:
    """Mean loss and accuracy in percent; the network is left in evaluation mode."""
    network = trainer.network().eval()
    evaluator = trainer.task.create_evaluator()
    for batch in images.batches(torch.arange(len(images)), EVALUATION_BATCH):
        inputs = normalize(batch.images, standard).contiguous(memory_format=torch.channels_last)
        with trainer.recipe.autocast(trainer.device):
            output = network(inputs)
        evaluator.update(output, batch.labels)
    scores = evaluator.compute()
    return {"loss": scores["loss"], "accuracy": scores["top1"]}
