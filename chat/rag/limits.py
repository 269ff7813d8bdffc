"""How much one memory may hold, wherever it comes from."""

MAX_TEXT_CHARS = 100_000  # of one segment or note; a book is no utterance
MAX_SEGMENTS = 10_000  # of one transcript over HTTP: many hours of talk
MAX_JOB_ID_CHARS = 200
MAX_TITLE_CHARS = 300
MAX_METADATA_CHARS = 20_000  # as JSON; every hit of a search brings it along
MAX_METADATA_DEPTH = 8
