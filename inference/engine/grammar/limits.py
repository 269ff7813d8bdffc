"""Bounds of grammars: the size of their source, and the work of compiling and of one mask."""

from llguidance import LLParserLimits

MAX_SOURCE_BYTES = 65_536
MAX_DEPTH = 64  # of a JSON Schema; the compiler itself refuses 128

# Units of work. The slowest schema of MAX_SOURCE_BYTES that was tried (1,500 properties) compiles in 0.3 s, the slowest
# expression (a million repetitions) in 0.2 s; with the compiler's own bound of 1,000,000 that took 1.6 s.
PARSER_LIMITS = LLParserLimits(initial_lexer_fuel=200_000, max_grammar_size=100_000, verbose_errors=False)
