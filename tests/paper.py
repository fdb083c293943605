"""Options of the paper's network; without a preset they would be the additive one's."""

from typing import Any

from attrec.config import ModelConfig, Options, TrainConfig


def paper_model(**options: Any) -> ModelConfig:
    """Return the options of the model, of preset paper-sparse where nothing else is said."""
    return Options.of("paper-sparse", **options).model


def paper_training(**options: Any) -> TrainConfig:
    """Return the options of the training, of preset paper-sparse where nothing else is said."""
    return Options.of("paper-sparse", **options).train
