"""LangChain's standard integration tests of a chat model, for ChatOpenAI with a service at CHAT_URL.

Runs in an environment of its own and imports nothing of this project.
"""

import os
from typing import Any

import pytest
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
            "timeout": 120,
            "stream_usage": True,
        }

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest) -> BaseChatModel:
        """Make the model of a case, for structured output with a penalty.

        Without it a small model repeats a line of a string until its tokens are used up. With a window it counts the
        tokens of the prompt, as in llama-server, and the form of a call consists of these.
        """
        is_structured = "structured" in request.node.name
        penalty = {"frequency_penalty": 0.3, "extra_body": {"repeat_last_n": 64}} if is_structured else {}
        more = getattr(request, "param", None) or {}
        return self.chat_model_class(**self.standard_chat_model_params | self.chat_model_params | penalty | more)

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True
