# SPDX-License-Identifier: Apache-2.0
"""PNG of every kind, written and read with zlib alone, so that no library is shared with the program."""
import struct
import zlib

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_row(samples, depth):
    if depth == 16:
        return b"".join(struct.pack(">H", s) for s in samples)
    if depth == 8:
        return bytes(samples)
    out, per = bytearray(), 8 // depth
    for i in range(0, len(samples), per):
        byte = 0
        for k in range(per):
            byte = byte << depth | (samples[i + k] if i + k < len(samples) else 0)
        out.append(byte)
    return bytes(out)


def write(width, height, kind, depth, sample, palette=None, transparent=None, interlaced=False,
          text=()):
    """sample(x, y) gives a list of CHANNELS[kind] numbers below 2**depth."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = b""
    for x0, y0, dx, dy in passes:
        for y in range(y0, height, dy):
            row = [s for x in range(x0, width, dx) for s in sample(x, y)]
            if row:
                raw += b"\0" + pack_row(row, depth)
    out = b"\x89PNG\r\n\x1a\n"
    out += chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced)))
    for key, value in text:
        out += chunk(b"tEXt", key.encode() + b"\0" + value.encode("latin-1"))
    if palette:
        out += chunk(b"PLTE", bytes(c for colour in palette for c in colour))
    if transparent is not None:
        out += chunk(b"tRNS", bytes(transparent))
    return out + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def chunks(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    at = 8
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + n]
        assert struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0] == zlib.crc32(kind + body)
        yield kind, body
        at += 12 + n


def paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def unfilter(raw, stride, height, bpp):
    last, rows, at = bytearray(stride), [], 0
    for _ in range(height):
        how, row = raw[at], bytearray(raw[at + 1:at + 1 + stride])
        at += 1 + stride
        for i in range(stride):
            a = row[i - bpp] if i >= bpp else 0
            b, c = last[i], last[i - bpp] if i >= bpp else 0
            row[i] = row[i] + (0, a, b, (a + b) // 2, paeth(a, b, c))[how] & 255
        rows.append(row)
        last = row
    assert at == len(raw)
    return rows


def read(path):
    """(width, height, rows of (r, g, b), {text}) of an 8 bit RGB file that is not interlaced."""
    texts, data, head = {}, b"", None
    with open(path, "rb") as f:
        for kind, body in chunks(f.read()):
            if kind == b"IHDR":
                head = struct.unpack(">IIBBBBB", body)
            elif kind == b"IDAT":
                data += body
            elif kind == b"tEXt":
                key, value = body.split(b"\0", 1)
                texts[key.decode()] = value.decode("latin-1")
    width, height, depth, colour, _, _, interlaced = head
    assert (depth, colour, interlaced) == (8, RGB, 0), head
    rows = unfilter(zlib.decompress(data), width * 3, height, 3)
    return width, height, [[tuple(r[3 * x:3 * x + 3]) for x in range(width)] for r in rows], texts
