"""The configuration with which every runner of this installation starts."""

from inference.config.tokenizer import get_tokenizer
from inference.engine.config import EngineConfig


def engine_config() -> EngineConfig:
    """The settings' configuration, its context capped by the model's trained context. Raises ModelUnavailable."""
    return get_tokenizer().config
