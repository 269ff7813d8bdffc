"""Decompression of request bodies, within the size that a body may have."""

import zlib

from chat.api.middleware.json_errors import body_too_large
from chat.errors import InvalidEncoding, UnsupportedMediaType, quoted

GZIP_NAMES = ("gzip", "x-gzip")
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to name the gzip format


def decompressed(raw: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the body behind a Content-Encoding. Raises UnsupportedMediaType, InvalidEncoding, BodyTooLarge."""
    name = encoding.strip().lower()
    if name in ("", "identity") or not raw:
        return raw
    if name not in GZIP_NAMES:
        raise UnsupportedMediaType(f"the Content-Encoding must be gzip or identity, not {quoted(encoding)}")
    body = b""
    try:
        # A gzip file may have several members. At most one byte more than allowed is decompressed: a few kilobytes may
        # hold gigabytes.
        while raw:
            member = zlib.decompressobj(GZIP_WINDOW)
            body += member.decompress(raw, max_bytes + 1 - len(body))
            if len(body) > max_bytes:
                raise body_too_large(max_bytes)
            if not member.eof:
                raise InvalidEncoding("the body is cut off: its gzip data has no end")
            raw = member.unused_data
    except zlib.error as error:
        raise InvalidEncoding("the body is not gzip, although its Content-Encoding says so") from error
    return body
