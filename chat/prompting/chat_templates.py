"""The chat format in use: the template of the model file, else Gemma's turns or a plain transcript.

``/health`` shows why a template is not used.
"""

import logging
from datetime import date, datetime
from functools import lru_cache

from django.conf import settings

from chat.enums import Effort
from chat.prompting.chat_format import ChatFormat, GemmaFormat, TranscriptFormat
from chat.prompting.jinja_sandbox import TemplateUnusable
from chat.prompting.template_format import TemplateFormat
from inference.config.tokenizer import Tokenizer, get_tokenizer
from inference.errors import ModelUnavailable

log = logging.getLogger(__name__)

# Each effort of today and of yesterday.
MAX_FORMATS = 2 * (len(Effort) + 1)


def choose_format(tokenizer: Tokenizer, setting: str, effort: Effort | None = None) -> ChatFormat:
    """Choose by the setting GEMMA_CHAT_FORMAT; with ``auto`` an unusable template is logged and not used."""
    template = tokenizer.chat_template
    problem = ""
    if setting == "template" or (setting == "auto" and template):
        try:
            return TemplateFormat(tokenizer, template or "", effort)
        except TemplateUnusable as error:
            if setting == "template":
                raise ModelUnavailable(f"GEMMA_CHAT_FORMAT=template cannot be used: {error}") from error
            problem = str(error)
            log.warning("chat template of the model file not used error=%s", error)
    marks = ("<start_of_turn>", "<end_of_turn>")
    has_gemma_turns = all(len(tokenizer.encode(mark, special=True)) == 1 for mark in marks)
    is_gemma = setting == "gemma" or (setting == "auto" and tokenizer.is_instruct and has_gemma_turns)
    chat_format = GemmaFormat(tokenizer) if is_gemma else TranscriptFormat(tokenizer)
    chat_format.problem = problem
    return chat_format


def get_format(effort: Effort | None = None) -> ChatFormat:
    """Return the format in use for an effort, built once per tokenizer and day: templates may write the date.

    Raises ModelUnavailable.
    """
    tokenizer = get_tokenizer()
    dated = "strftime_now" in (tokenizer.chat_template or "")
    day = datetime.now().astimezone().date() if dated else None
    return _format_of_day(tokenizer, settings.GEMMA_CHAT_FORMAT, day, effort)


@lru_cache(maxsize=MAX_FORMATS)
def _format_of_day(tokenizer: Tokenizer, setting: str, day: date | None, effort: Effort | None) -> ChatFormat:
    return choose_format(tokenizer, setting, effort)
