"""LangChain's standard integration tests of a chat model, for ChatOpenAI with a service at CHAT_URL.

Runs in an environment of its own and imports nothing of this project.
"""

import os
from typing import Any

from langchain_core.language_models import BaseChatModel  # type: ignore[import-not-found]
from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]
from langchain_tests.integration_tests import ChatModelIntegrationTests  # type: ignore[import-not-found]


class TestService(ChatModelIntegrationTests):  # type: ignore[misc]  # its package is not in this environment
    """The model's name is that of the service."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI  # type: ignore[no-any-return]

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "base_url": f"{os.environ['CHAT_URL']}/v1",
            "api_key": "none",
            "model": "default",
            "temperature": 0,
            "max_tokens": 400,
            # Without it a small model repeats a line of a string until its tokens are used up.
            "frequency_penalty": 0.3,
            "timeout": 120,
            "stream_usage": True,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True
