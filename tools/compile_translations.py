"""Compile the .po files of the pages into the .mo files beside them, which gettext reads. Needs no gettext installed.

python -m tools.compile_translations
"""

import ast
import re
import struct
import sys
from pathlib import Path

LOCALE = Path(__file__).resolve().parents[1] / "chat" / "pages" / "locale"
ENTRY = re.compile(r'^msgid ((?:"[^\n]*"\n)+)msgstr ((?:"[^\n]*"\n?)+)', re.MULTILINE)
QUOTED = re.compile(r'^"[^\n]*"', re.MULTILINE)
MAGIC = 0x950412DE
HEADER_BYTES = 28


def entries(text: str) -> dict[str, str]:
    """Return the translations of a .po file by their originals; the header has the empty one."""
    return {_joined(original): _joined(translated) for original, translated in ENTRY.findall(text)}


def compiled(translations: dict[str, str]) -> bytes:
    """Return the bytes of a .mo file: two tables of (length, offset), sorted by original, then the texts."""
    pairs = sorted((original.encode(), translated.encode()) for original, translated in translations.items())
    columns = [[pair[side] for pair in pairs] for side in (0, 1)]
    texts_at = HEADER_BYTES + 16 * len(pairs)
    tables, texts = b"", b""
    for column in columns:
        for text in column:
            tables += struct.pack("<II", len(text), texts_at + len(texts))
            texts += text + b"\0"
    header = struct.pack(
        "<7I", MAGIC, 0, len(pairs), HEADER_BYTES, HEADER_BYTES + 8 * len(pairs), 0, HEADER_BYTES + 16 * len(pairs)
    )
    return header + tables + texts


def main() -> int:
    for source in sorted(LOCALE.rglob("*.po")):
        translations = entries(source.read_text(encoding="utf-8"))
        source.with_suffix(".mo").write_bytes(compiled(translations))
        print(f"{source.relative_to(LOCALE)}: {len(translations) - 1} texts")
    return 0


def _joined(quoted: str) -> str:
    return "".join(ast.literal_eval(line) for line in QUOTED.findall(quoted))


if __name__ == "__main__":
    sys.exit(main())
