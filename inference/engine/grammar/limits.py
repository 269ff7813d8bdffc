"""Bounds of grammars: the size of their source, and the work of compiling and of one mask."""

from llguidance import LLParserLimits

MAX_SOURCE_BYTES = 65_536
MAX_DEPTH = 64  # of a JSON Schema; the compiler itself refuses 128

# Units of work: about 50,000 of lexer fuel are 1 ms. The largest schema of MAX_SOURCE_BYTES that was found compiles in
# 0.25 s; the masks keep the compiler's own bounds.
PARSER_LIMITS = LLParserLimits(initial_lexer_fuel=500_000, max_grammar_size=100_000, verbose_errors=False)
