"""Parser of tables (.csv, .tsv): a column with the text, and columns named like the fields of JSON rows."""

import csv
import io
from collections.abc import Iterator

from chat.rag.ingest.json_files import TEXT_FIELDS, parse_rows
from chat.rag.ingest.parsed_file import FileUnreadable, NothingToImport, ParsedFile, line

DELIMITERS = ",;\t|"
OTHER_NAMES = {
    "transcript": "text", "utterance": "text", "sentence": "text", "message": "text", "content": "text",
    "speaker_name": "speaker", "name": "speaker", "author": "speaker", "from": "speaker",
    "begin": "start", "start_time": "start", "timestamp_start": "start", "finish": "end", "end_time": "end",
    "start_(s)": "start", "end_(s)": "end", "who": "speaker", "participant": "speaker",
    "sprecher": "speaker", "sprecherin": "speaker", "beginn": "start", "anfang": "start", "ende": "end",
    "inhalt": "text", "hablante": "speaker", "orador": "speaker", "inicio": "start", "fin": "end", "texto": "text",
    "locuteur": "speaker", "intervenant": "speaker", "début": "start", "texte": "text",
    "話者": "speaker", "発言者": "speaker", "開始": "start", "終了": "end", "発言": "text", "内容": "text",
    "说话人": "speaker", "发言人": "speaker", "开始时间": "start", "结束时间": "end", "文本": "text",
    "المتحدث": "speaker", "النص": "text", "البداية": "start", "النهاية": "end",
}  # fmt: skip


def parse_table(text: str) -> ParsedFile:
    """Parse one segment or note per row. Raises FileUnreadable."""
    first = text.lstrip("\ufeff\r\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    # Some editors write a field of any length, which is checked with all others.
    csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise FileUnreadable(f"is not a table: {error}") from error
    if not rows:
        raise NothingToImport("holds nothing to import")
    names = [_name(cell) for cell in rows[0][1]]
    if not set(names).intersection(TEXT_FIELDS):
        columns = ", ".join(cell.strip()[:40] for cell in rows[0][1][:10])
        raise FileUnreadable(f'has no column "text" ({columns})')
    return parse_rows(_entries(names, rows[1:]))


def _name(cell: str) -> str:
    name = "_".join(cell.strip().casefold().split())
    return OTHER_NAMES.get(name, name)


def _entries(names: list[str], rows: list[tuple[int, list[str]]]) -> Iterator[tuple[str, object]]:
    for number, row in rows:
        cells = zip(names, map(str.strip, row), strict=False)
        yield line(number), {name: cell for name, cell in cells if name and cell}
