#!/usr/bin/env python3
"""Reads, checks and lists `.gq` files: a second reader, written from formats/container.md alone.

    python3 scripts/gq_reader/container.py FILE

prints what the file holds and verifies it; exit code 1 and the broken rule's code if it is not valid.
Needs the package zstandard.
"""
import hashlib
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import zstandard

MAGIC = b"\x89GQ\r\n\x1a\n\x00"
HEADER = struct.Struct("<8sHHIQQQII32s32s144s")
ENTRY = struct.Struct("<QQQ4Q32sHBBBBH")
TEXT = struct.Struct("<HB5sQQQ")
SOURCE_DTYPES = dict(
    enumerate(["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL"], 1)
)
ROTATIONS = {0: "none", 1: "hadamard", 2: "haar"}
PROVENANCE = 0x8001
TEXTS = {
    1: "config", 2: "tokenizer", 3: "tokenizer_config", 4: "chat_template", 5: "generation_config",
    6: "special_tokens_map", 7: "licence", PROVENANCE: "provenance", 0x8002: "report",
}  # fmt: skip
EXACT = {1: ("f32", 4), 2: ("f16", 2), 3: ("bf16", 2), 4: ("f8_e4m3", 1), 5: ("f8_e5m2", 1), 6: ("f64", 8)}
GROUPS = {0: ("", None), 1: ("-g32", 32), 2: ("-g64", 64), 3: ("-g128", 128)}
# Name, bits there are, bytes of scales and minima per 32 elements (0: one f32 per row).
GRIDS = {0: ("", (4, 5, 6, 8), 2), 1: ("m", (4, 5), 4), 2: ("w", (4, 5), 8), 3: ("-row", (4, 5, 6, 8), 0)}
POLAR = {0x300: ("polar4222", (4, 2, 2, 2)), 0x301: ("polar4322", (4, 3, 2, 2)), 0x302: ("polar5333", (5, 3, 3, 3))}


class Refused(Exception):
    """A file that breaks a rule; `code` is the rule's."""

    def __init__(self, code: str, detail: str = ""):
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code


def require(holds: bool, code: str, detail: str = "") -> None:
    if not holds:
        raise Refused(code, detail)


def align(offset: int) -> int:
    return (offset + 255) // 256 * 256


def encoding_name(code: int) -> str | None:
    """The registry's name of an encoding."""
    kind, variant, bits = code >> 8, code >> 4 & 15, code & 15
    if code in EXACT:
        return EXACT[code][0]
    if kind == 1 and variant in GROUPS and 1 <= bits <= 8:
        return f"tq{bits}{GROUPS[variant][0]}"
    if kind == 2 and variant in (0, 1) and 2 <= bits <= 5:
        return f"tqp{'o' * variant}{bits}"
    if kind == 4 and variant in (0, 1, 2) and 2 <= bits <= 6:
        return f"tt{bits}" + ("", "-s12", "-s14")[variant]
    if kind == 5 and code >> 6 & 3 < 3:
        spacing, rounding = GRIDS[code >> 4 & 3], ("", "-f16", "-bf16")[code >> 6 & 3]
        return f"grid{bits}{spacing[0]}{rounding}" if bits in spacing[1] else None
    if code == 0x601:
        return "mxfp4"
    return POLAR[code][0] if code in POLAR else None


def payload_bytes(code: int, shape: list[int], rows: int, cols: int) -> int | None:
    """Bytes of a payload; None when the encoding does not support the width."""
    if code >> 8 == 4 and cols % 32 == 0:
        height = shape[-2] if len(shape) > 1 else 1
        return rows // height * (-(-height // 8) * cols * (code & 15)) + 2 * rows
    row = row_bytes(code, cols)
    return None if row is None else rows * row


def row_bytes(code: int, cols: int) -> int | None:
    """Bytes of a row of codes and its scales; None when the encoding does not support the width."""
    if code in EXACT:
        return cols * EXACT[code][1]
    if cols % 32:
        return None
    if code >> 8 == 1:
        group = GROUPS[code >> 4 & 15][1] or cols
        return None if cols % group else cols * (code & 15) // 8 + 2 * cols // group
    if code >> 8 == 2:
        return cols * (code & 15) // 8 + 4
    if code >> 8 == 4:
        return None
    if code >> 8 == 5:
        scales = GRIDS[code >> 4 & 3][2]
        return cols * (code & 15) // 8 + (scales * cols // 32 if scales else 4)
    if code == 0x601:
        return cols // 2 + cols // 32
    angles = [(cols >> level, bits) for level, bits in enumerate(POLAR[code][1], 1)]
    return sum((count * bits + 7) // 8 for count, bits in angles) + 2 * ((cols + 15) // 16)


@dataclass
class Tensor:
    name: str
    shape: list[int]
    encoding: str
    rotation: dict
    source_dtype: str
    offset: int
    bytes: int
    sha256: str

    @property
    def rows_cols(self) -> tuple[int, int]:
        rows = 1
        for dimension in self.shape[:-1]:
            rows *= dimension
        return rows, self.shape[-1] if self.shape else 1


@dataclass
class Text:
    kind: int
    coding: str
    offset: int
    stored_bytes: int
    plain_bytes: int


class Container:
    """A valid file; `data` is anything that can be sliced like bytes, such as an mmap."""

    def __init__(self, data):
        self.data = data
        require(len(data) >= HEADER.size, "too-short")
        (magic, major, self.minor, features, file_bytes, table_offset, table_bytes, tensor_count, text_count,
         payload_sha256, file_sha256, reserved) = HEADER.unpack(data[: HEADER.size])  # fmt: skip
        require(magic == MAGIC, "magic")
        require(major == 1, "version", str(major))
        require(features == 0, "features", hex(features))
        require(not any(reserved), "header-reserved")
        require(file_bytes == len(data), "file-bytes", f"{len(data)}, header says {file_bytes}")
        require(tensor_count <= 1 << 20, "tensor-count", str(tensor_count))
        require(text_count <= 64, "text-count", str(text_count))
        require(table_offset % 256 == 0 and 256 <= table_offset <= len(data), "table-offset", str(table_offset))
        require(table_bytes <= len(data) - table_offset, "table-bytes", str(table_bytes))
        require(tensor_count <= table_bytes // ENTRY.size, "table-room", str(tensor_count))
        self.payload_sha256, self.file_sha256 = payload_sha256.hex(), file_sha256.hex()
        self.tensors: list[Tensor] = []
        self.texts: list[Text] = []
        self._read_tensors(data[table_offset : table_offset + table_bytes], tensor_count, table_offset)
        self._read_texts(table_offset + table_bytes, text_count)
        unsigned = data[:80] + bytes(32) + data[112:256]
        digest = hashlib.sha256(unsigned + data[table_offset:]).hexdigest()
        require(digest == self.file_sha256, "file-digest", digest)

    def _read_tensors(self, table: bytes, count: int, table_offset: int) -> None:
        at, begin, signed = 0, 256, []
        for _ in range(count):
            tensor, length = read_entry(table[at : at + ENTRY.size + 1024])
            require(tensor.offset == begin, "payload-offset", f"{tensor.offset}, not {begin}")
            end = begin + tensor.bytes
            require(end <= table_offset, "payload-past-table", f"{end}, not {table_offset}")
            begin = align(end)
            signed.append((tensor.name.encode(), bytes(8) + table[at + 8 : at + length]))
            self.tensors.append(tensor)
            at += length
        require(at == len(table), "table-leftover", str(len(table) - at))
        require(begin == table_offset, "gap", f"{begin} to {table_offset}")
        require(len({tensor.name for tensor in self.tensors}) == count, "duplicate-name")
        for tensor in self.tensors:
            end = tensor.offset + tensor.bytes
            require(not any(self.data[end : align(end)]), "padding", tensor.name)
        digest = hashlib.sha256(b"".join(entry for _, entry in sorted(signed))).hexdigest()
        require(digest == self.payload_sha256, "payload-digest", digest)

    def _read_texts(self, at: int, count: int) -> None:
        begin, before = at + count * TEXT.size, 0
        require(begin <= len(self.data), "text-table")
        for i in range(count):
            fields = TEXT.unpack(self.data[at + i * TEXT.size : at + (i + 1) * TEXT.size])
            kind, coding, reserved, offset, stored_bytes, plain_bytes = fields
            require(i == 0 or kind > before, "text-order", str(kind))
            require(kind in TEXTS or kind >= 0x8000, "text-kind", str(kind))
            require(not any(reserved), "text-reserved")
            require(coding in (0, 1), "text-coding", str(coding))
            require(offset == begin, "text-offset", f"{offset}, not {begin}")
            require(stored_bytes <= len(self.data) - begin, "text-stored-bytes", str(stored_bytes))
            require(plain_bytes <= 1 << 28, "text-plain-bytes", str(plain_bytes))
            text = Text(kind, ("plain", "zstd")[coding], offset, stored_bytes, plain_bytes)
            check_stored(text, self.data[begin : begin + stored_bytes])
            self.texts.append(text)
            begin, before = begin + stored_bytes, kind
        require(begin == len(self.data), "text-leftover", str(len(self.data) - begin))

    def payload(self, tensor: Tensor) -> bytes:
        return self.data[tensor.offset : tensor.offset + tensor.bytes]

    def decode(self, text: Text) -> str:
        stored = self.data[text.offset : text.offset + text.stored_bytes]
        if text.coding == "zstd":
            try:
                stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=text.plain_bytes)
            except zstandard.ZstdError as error:
                raise Refused("text-corrupt", str(error)) from error
            require(len(stored) == text.plain_bytes, "text-corrupt")
        try:
            return stored.decode()
        except UnicodeDecodeError as error:
            raise Refused("text-utf8", str(error)) from error

    def text(self, name: str) -> str | None:
        return next((self.decode(text) for text in self.texts if TEXTS.get(text.kind) == name), None)

    def verify(self) -> None:
        """Recomputes the payloads' digests and decodes the texts of known kinds."""
        for tensor in self.tensors:
            digest = hashlib.sha256(self.payload(tensor)).hexdigest()
            require(digest == tensor.sha256, "payload-sha256", repr(tensor.name))
        for text in self.texts:
            if text.kind in TEXTS:
                self.decode(text)
        provenance = self.text("provenance")
        require(provenance is None or is_provenance(provenance), "text-json")


def read_entry(window: bytes) -> tuple[Tensor, int]:
    """The entry at the beginning of `window`, and its length."""
    require(len(window) >= ENTRY.size, "entry-truncated")
    fields = ENTRY.unpack(window[: ENTRY.size])
    offset, length, seed, *dimensions = fields[:7]
    sha256, code, rotation, dtype, rank, reserved, name_bytes = fields[7:]
    require(1 <= name_bytes <= 1024, "name-length", str(name_bytes))
    end = ENTRY.size + name_bytes
    require(end <= len(window), "entry-truncated")
    try:
        name = window[ENTRY.size : end].decode()
    except UnicodeDecodeError as error:
        raise Refused("name-utf8", str(error)) from error
    require(reserved == 0, "entry-reserved", repr(name))
    require(rank <= 4, "rank", repr(name))
    require(not any(dimensions[rank:]), "unused-dimension", repr(name))
    encoding = encoding_name(code)
    require(encoding is not None, "encoding", f"{name!r}: {code:#06x}")
    require(rotation in ROTATIONS, "rotation", f"{name!r}: {rotation}")
    require(rotation == 0 or (code not in EXACT and code >> 8 not in (5, 6)), "rotated-exact", repr(name))
    require(seed == 0 or (code not in EXACT and code >> 8 not in (5, 6)), "seed", f"{name!r}: {seed}")
    require(dtype in SOURCE_DTYPES, "source-dtype", f"{name!r}: {dtype}")
    shape = dimensions[:rank]
    require(all(1 <= dimension <= 1 << 28 for dimension in shape), "dimension", f"{name!r}: {shape}")
    basis = {"kind": ROTATIONS[rotation], "seed": seed}
    tensor = Tensor(name, shape, encoding, basis, SOURCE_DTYPES[dtype], offset, length, sha256.hex())
    rows, cols = tensor.rows_cols
    require(rows < 1 << 64, "shape-overflow", f"{name!r}: {shape}")
    size = payload_bytes(code, shape, rows, cols)
    require(size is not None, "width", f"{name!r}: {cols}")
    require(size < 1 << 64, "shape-overflow", f"{name!r}: {shape}")
    require(length == size, "payload-bytes", f"{name!r}: {length}, not {size}")
    return tensor, end


def check_stored(text: Text, stored: bytes) -> None:
    if text.coding == "plain":
        require(text.plain_bytes == text.stored_bytes, "text-plain-differs")
        return
    require(text.plain_bytes <= 64 * text.stored_bytes, "text-ratio")
    content, length = zstd_frame(stored)
    require(length == len(stored), "text-frame")
    require(content == text.plain_bytes, "text-frame-content", f"{content}, not {text.plain_bytes}")


def zstd_frame(stored: bytes) -> tuple[int, int]:
    """Content size and length of the zstd frame at the beginning of `stored` (RFC 8878, section 3.1.1)."""
    require(stored[:4] == struct.pack("<I", 0xFD2FB528) and len(stored) > 5, "text-frame")
    descriptor = stored[4]
    single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    require(descriptor & 8 == 0, "text-frame")
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    size = (single, 2, 4, 8)[descriptor >> 6]
    require(size > 0 and at + size <= len(stored), "text-frame")
    content = int.from_bytes(stored[at : at + size], "little") + (256 if size == 2 else 0)
    at, last = at + size, False
    while not last:
        require(at + 3 <= len(stored), "text-frame")
        block = int.from_bytes(stored[at : at + 3], "little")
        last, kind, length = block & 1, block >> 1 & 3, block >> 3
        require(kind != 3, "text-frame")
        at += 3 + (1 if kind == 1 else length)
    at += 4 * checksum
    require(at <= len(stored), "text-frame")
    return content, at


def is_provenance(text: str) -> bool:
    digest = lambda value: isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdefABCDEF")
    try:
        value = json.loads(text)
        source, files = value["source"], value["source"]["files"]
        return (
            all(isinstance(value[name], str) for name in ("tool", "version"))
            and all(source[name] is None or isinstance(source[name], str) for name in ("repo", "revision"))
            and all(isinstance(f["name"], str) and isinstance(f["bytes"], int) and digest(f["sha256"]) for f in files)
            and "recipe" in value
            and (value["calibration_sha256"] is None or digest(value["calibration_sha256"]))
            and isinstance(value["seed"], int)
        )
    except (ValueError, KeyError, TypeError):
        return False


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    try:
        container = Container(Path(sys.argv[1]).read_bytes())
        for tensor in container.tensors:
            shape = "x".join(map(str, tensor.shape))
            print(f"{tensor.offset:12} {tensor.bytes:12} {tensor.encoding:10} {shape:20} {json.dumps(tensor.name)}")
        for text in container.texts:
            name = TEXTS.get(text.kind, f"kind {text.kind}")
            print(f"{text.offset:12} {text.stored_bytes:12} {text.coding:10} {text.plain_bytes:<20} {name}")
        container.verify()
    except Refused as refused:
        raise SystemExit(f"{json.dumps(sys.argv[1])}: {refused}") from refused
    print(f"payload sha256 {container.payload_sha256}\nfile sha256    {container.file_sha256}\nvalid")


if __name__ == "__main__":
    main()
