"""How many bytes of an image file are not headers: what is left of it at an image of any size."""

import struct

MARKERS_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}
WEBP_HEADER = 20 + 10  # RIFF and its chunk; VP8's frame header


def jpeg_payload(data: bytes) -> int:
    """The entropy-coded bytes: all but marker segments, which hold the quantization and Huffman tables too."""
    at, payload = 0, 0
    while at < len(data):
        marker = data[at + 1]
        at += 2 if marker in MARKERS_WITHOUT_LENGTH else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xDA:
            end = end_of_scan(data, at)
            payload += end - at
            at = end
    return payload


def end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker is that neither is stuffing nor restarts the decoder."""
    while True:
        at = data.index(0xFF, at)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2


def webp_payload(data: bytes) -> int:
    return len(data) - WEBP_HEADER


def avif_payload(data: bytes) -> int:
    """The content of the `mdat` boxes: AV1's own bytes."""
    at, payload = 0, 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        size = size or len(data) - at
        payload += size - 8 if kind == b"mdat" else 0
        at += size
    return payload
