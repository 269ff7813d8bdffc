"""Log-probabilities of tokens and the text that they belong to."""

from chat.streaming.events import WireLine
from inference.enums import FinishReason


class LogprobQueue:
    """Keeps the log-probabilities of tokens without text until a later token brings the text of all of them.

    The tokens of a stop string never get a text: they are no part of the answer.
    """

    def __init__(self) -> None:
        self._waiting: list[WireLine] = []

    def push(self, line: WireLine) -> list[WireLine]:
        """Return the log-probabilities that belong to the text of a line, its own last."""
        if "logprobs" in line:
            self._waiting.append(line["logprobs"])
        # At the end of max_tokens the text may lack bytes of its last character, whose tokens count nevertheless.
        is_cut = line["done"] and line.get("finish_reason") == FinishReason.LENGTH
        if not (line["token"] or "thought" in line or is_cut):
            return []
        complete, self._waiting = self._waiting, []
        return complete
