"""Size limits of one stored memory, for HTTP and imports alike."""

MAX_TEXT_CHARS = 100_000  # of one segment or note
MAX_SEGMENTS = 10_000  # of one transcript over HTTP: many hours of speech
MAX_JOB_ID_CHARS = 200
MAX_TITLE_CHARS = 300
MAX_METADATA_CHARS = 20_000  # as JSON; every search hit carries it
MAX_METADATA_DEPTH = 8
