"""Time of a file's memories that carry none: the ``--date`` option, a date in the file's name, or its modification."""

from datetime import UTC, datetime
from pathlib import Path

from chat.rag.ingest.dates import moment_in_name

IN_DATA, IN_OPTION, IN_NAME, IN_FILE = "its data", "--date", "its name", "its modification time"


class RecordingTime:
    """Default time of one file; records which origins were used, for the report."""

    def __init__(self, path: Path, option: datetime | None) -> None:
        """Raises OSError."""
        self.used: set[str] = set()
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        candidates = ((option, IN_OPTION), (moment_in_name(path.stem), IN_NAME), (modified, IN_FILE))
        self.moment, self.origin = next((moment, origin) for moment, origin in candidates if moment is not None)

    @property
    def survives_touch(self) -> bool:
        """Tell whether the time stays the same when the file is copied or touched."""
        return self.origin != IN_FILE

    def or_default(self, moment: datetime | None) -> datetime:
        self.used.add(IN_DATA if moment else self.origin)
        return moment or self.moment
