"""The configuration every runner of this installation is started with."""

from inference.config.tokenizer import get_tokenizer
from inference.engine.config import EngineConfig


def engine_config() -> EngineConfig:
    """From the settings, its context capped by what the model file was trained for; raises ModelUnavailable."""
    return get_tokenizer().config
