"""SentencePiece's unigram tokenizer: the division of a text into the pieces of the highest total score.

Written out, because the package ``tokenizers`` takes 270 MB for these 250,000 pieces and this takes a tenth.
"""

from dataclasses import dataclass, field

from chat.rag.vectors.encoders.packed_file import Pieces

SPACE = "\u2581"
MAX_CACHED_WORDS = 20_000
MAX_CACHED_CHARS = 32  # in scripts without spaces a whole sentence is one word, and hardly repeated
UNKNOWN_PENALTY = 10.0  # an unknown character scores this much less than the worst piece


@dataclass
class UnigramTokenizer:
    """Pieces by their text; a piece begins with SPACE where a word begins."""

    pieces: Pieces
    ids: dict[str, int] = field(init=False)
    scores: list[float] = field(init=False)
    unknown_score: float = field(init=False)
    max_chars: int = field(init=False)
    cache: dict[str, list[int]] = field(init=False, default_factory=dict)  # words are repeated much

    def __post_init__(self) -> None:
        self.ids = {text: number for number, text in enumerate(self.pieces.texts) if text}
        self.pieces.texts.clear()  # the keys above are the same strings
        self.scores = self.pieces.scores.tolist()
        self.unknown_score = min(self.scores) - UNKNOWN_PENALTY
        self.max_chars = max(map(len, self.ids))

    def encode(self, text: str) -> list[int]:
        """Return the ids of all pieces. No piece has a space inside, so that words are divided one by one."""
        ids: list[int] = []
        for word in text.translate(self.pieces.replacements).split():
            marked = SPACE + word
            division = self.cache.get(marked)
            if division is None:
                division = self._best_division(marked)
                if len(self.cache) >= MAX_CACHED_WORDS:
                    self.cache.clear()
                if len(marked) <= MAX_CACHED_CHARS:
                    self.cache[marked] = division
            ids += division
        return ids

    def _best_division(self, word: str) -> list[int]:
        """Return the pieces on the best path to the end (Viterbi)."""
        best = [(0.0, 0, 0)] + [(float("-inf"), 0, 0)] * len(word)  # score, id and start of the last piece
        for start in range(len(word)):
            score_before = best[start][0]
            for end in range(start + 1, min(len(word), start + self.max_chars) + 1):
                number = self.ids.get(word[start:end])
                if number is None:
                    if end > start + 1:
                        continue
                    number, score = self.pieces.unknown, score_before + self.unknown_score
                else:
                    score = score_before + self.scores[number]
                if score > best[end][0]:
                    best[end] = (score, number, start)
        ids, end = [], len(word)
        while end:
            _, number, start = best[end]
            ids.append(number)
            end = start
        return ids[::-1]
