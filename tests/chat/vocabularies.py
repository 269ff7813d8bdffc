"""Tokenizers for tests: the fake vocabulary, with a chat template or a small context where a test wants one."""

from pathlib import Path

from inference.config.tokenizer import Tokenizer
from inference.engine.backends.fake import CONTROL, FIRST_BYTE, FakeVocabulary
from inference.engine.config import BackendKind, EngineConfig

# Shortened from the published files; each in its own way of writing roles, system texts and ends of turns.
GEMMA_TEMPLATE = """{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}
{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}
{%- else -%}{%- set first_user_prefix = "" -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}{%- endif -%}
{%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}
{%- endif -%}{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
{{- message['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""
CHATML_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Refuses a system message, as Gemma 2 and the early Mistral files do.
REFUSING_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# Knows no system role at all and says nothing about it.
DROPPING_TEMPLATE = (
    "{{ bos_token }}{% for message in messages if message.role != 'system' %}<|{{ message.role }}|>"
    "{{ message.content }}<end_of_turn>{% endfor %}<|assistant|>"
)
TEMPLATES = {
    "gemma": GEMMA_TEMPLATE,
    "chatml": CHATML_TEMPLATE,
    "refusing": REFUSING_TEMPLATE,
    "dropping": DROPPING_TEMPLATE,
}


class TemplatedVocabulary(FakeVocabulary):
    """The fake vocabulary of a file that brings a template."""

    def __init__(self, template: str | None) -> None:
        super().__init__()
        self.chat_template = template


class BaseVocabulary(FakeVocabulary):
    """The fake vocabulary of a base model's file."""

    model_name = "fake-base"

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {**self.metadata, "general.name": self.model_name}


def fake_tokenizer(*, template: str | None = None, context_size: int = 8192, is_base: bool = False) -> Tokenizer:
    config = EngineConfig(model_path=Path("none.gguf"), backend=BackendKind.FAKE, context_size=context_size)
    return Tokenizer(BaseVocabulary() if is_base else TemplatedVocabulary(template), config)


def shown(ids: list[int] | tuple[int, ...]) -> str:
    """Token ids of the fake vocabulary as text, control tokens as ``⟨eos⟩``, which no plain text contains by chance."""
    names = [name.strip("<>") for name in CONTROL]
    parts = [f"⟨{names[i]}⟩".encode() if i < FIRST_BYTE else bytes([i - FIRST_BYTE]) for i in ids]
    return b"".join(parts).decode()


def control_ids(ids: list[int] | tuple[int, ...]) -> list[int]:
    return [token for token in ids if token < FIRST_BYTE]
