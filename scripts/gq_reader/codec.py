"""Decodes rows as formats/encodings.md says. Written from that document, not from the Rust code.

    decode("tq4", rows, cols, payload, seed) -> float32 array [rows, cols], in the rotated basis
    decode("tt4", rows, cols, payload, height=rows of one expert) for matrices that are stacked
    rotate("hadamard", seed, x) and unrotate(...) on the last axis of a float32 array

Numbers are read out of the document's own tables, so that a wrong table is found by the golden files.
"""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

F32, F64 = np.float32, np.float64
DOCUMENT = Path(__file__).resolve().parents[2] / "formats" / "encodings.md"

# Random streams -----------------------------------------------------------------------------------------

SIGNS, HAAR, SKETCH = 1, 2, 3
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(seed, purpose, cols, count):
    """The first `count` outputs of a stream, uint64."""
    with np.errstate(over="ignore"):
        label = np.uint64(purpose << 56 | cols)
        state = mix(mix(np.array([(seed + GOLDEN) & MASK], np.uint64)) ^ label)
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        return mix(state + steps)


# Wichura 1988, algorithm AS 241, PPND16: numerators and denominators, highest power first.
CENTER = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)
MIDDLE = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)
FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)


def horner(coefficients, x):
    s = np.zeros_like(x)
    for c in coefficients:
        s = s * x + c
    return s


def ln(x):
    m, e = np.frexp(x)  # 0.5 <= m < 1
    m, e = m * 2, e - 1
    large = m > 1.4142135623730951
    m, e = np.where(large, m * 0.5, m), np.where(large, e + 1, e)
    t = (m - 1) / (m + 1)
    z = t * t
    s = horner([1.0 / k for k in range(21, 0, -2)], z)
    return e * 0.6931471805599453 + (2 * t) * s


def gaussians(seed, purpose, cols, count):
    u = ((words(seed, purpose, cols, count) >> np.uint64(11)).astype(F64) + 0.5) * 2.0**-53
    q = u - 0.5
    r = 0.180625 - q * q
    center = q * horner(CENTER[0], r) / horner(CENTER[1], r)
    r = np.sqrt(-ln(np.where(q < 0, u, 1 - u)))
    middle = horner(MIDDLE[0], r - 1.6) / horner(MIDDLE[1], r - 1.6)
    far = horner(FAR[0], r - 5) / horner(FAR[1], r - 5)
    tail = np.where(r <= 5, middle, far)
    return np.where(np.abs(q) <= 0.425, center, np.where(q < 0, -tail, tail))


# Reductions and dense matrices --------------------------------------------------------------------------


def lanes8(products):
    """Sum over the last axis in eight lanes, in the type given."""
    n = products.shape[-1]
    padded = np.zeros(products.shape[:-1] + (-(-n // 8) * 8,), products.dtype)
    padded[..., :n] = products
    lanes = np.zeros(products.shape[:-1] + (8,), products.dtype)
    for i in range(0, padded.shape[-1], 8):
        lanes = lanes + padded[..., i : i + 8]
    l0, l1, l2, l3, l4, l5, l6, l7 = np.moveaxis(lanes, -1, 0)
    return ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))


@lru_cache(maxsize=None)
def orthogonal(seed, purpose, cols):
    m = gaussians(seed, purpose, cols, cols * cols).reshape(cols, cols)
    for i in range(cols):
        m[i] = m[i] * (1.0 / np.sqrt(lanes8(m[i] * m[i])))
        v = lanes8(m[i + 1 :] * m[i])
        m[i + 1 :] = m[i + 1 :] - v[:, None] * m[i]
    return m.astype(F32)


def transposed_product(matrix, y):
    """Sum of y[i] * row i, in order."""
    out = np.zeros(matrix.shape[1], F32)
    for factor, row in zip(y, matrix):
        out = out + factor * row
    return out


# Rotations ----------------------------------------------------------------------------------------------


def primes(m):
    factors, p = [], 2
    while m > 1:
        while m % p == 0:
            factors.append(p)
            m //= p
        p += 1
    return factors


@lru_cache(maxsize=None)
def hartley(p):
    def cas(t):
        q, r = divmod(8 * t, p)
        w = r if q % 2 == 0 else p - r
        a = 0.7853981633974483 * (w / p)
        z = a * a
        s = c = 1.0
        for k in range(8, 0, -1):
            s = 1.0 - z / ((2.0 * k) * (2.0 * k + 1.0)) * s
            c = 1.0 - z / ((2.0 * k) * (2.0 * k - 1.0)) * c
        s = a * s
        cos, sin = [(c, s), (s, c), (-s, c), (-c, s), (-c, -s), (-s, -c), (s, -c), (c, -s)][q]
        return cos + sin

    entries = np.array([cas(t) / float(np.sqrt(F64(p))) for t in range(p)]).astype(F32)
    return entries[np.outer(np.arange(p), np.arange(p)) % p]


def hadamard_parts(seed, cols):
    k = (cols & -cols).bit_length() - 1
    c = 2.0 ** -(k // 2) if k % 2 == 0 else 2.0 ** -((k - 1) // 2) * 0.7071067811865476
    stream = words(seed, SIGNS, cols, -(-cols // 64))
    bits = (stream[np.arange(cols) // 64] >> (np.arange(cols) % 64).astype(np.uint64)) & np.uint64(1)
    return np.where(bits == 1, F32(-c), F32(c)), 1 << k, primes(cols >> k)


def walsh_hadamard(x, block):
    h = 1
    while h < block:
        pairs = x.reshape(-1, 2, h)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        h *= 2
    return x


def mix_blocks(x, p, inner):
    matrix, source = hartley(p), x.reshape(-1, p, inner)
    out = np.zeros_like(source)
    for j in range(p):
        out = out + matrix[None, :, j, None] * source[:, None, j, :]
    return out.reshape(-1)


def rotate(kind, seed, x):
    """R applied to one float32 row."""
    cols = len(x)
    if kind == "none":
        return x
    if kind == "haar":
        return lanes8(orthogonal(seed, HAAR, cols) * x)
    signs, block, factors = hadamard_parts(seed, cols)
    x = walsh_hadamard(x * signs, block)
    inner = cols
    for p in factors:
        inner //= p
        x = mix_blocks(x, p, inner)
    return x


def unrotate(kind, seed, x):
    """The inverse of R applied to one float32 row."""
    cols = len(x)
    if kind == "none":
        return x
    if kind == "haar":
        return transposed_product(orthogonal(seed, HAAR, cols), x)
    signs, block, factors = hadamard_parts(seed, cols)
    inner = block
    for p in reversed(factors):
        x = mix_blocks(x, p, inner)
        inner *= p
    return walsh_hadamard(x, block) * signs


# Tables of the document ---------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def scalar_tables():
    """bits -> (shift, magnitudes)."""
    section = DOCUMENT.read_text().split("## Scalar codes")[1]
    rows = re.findall(r"^\| (\d) \| (\d+) \| ([\d ]+|uniform[^|]*) \|", section, re.M)
    return {int(b): (int(shift), [int(v) for v in re.findall(r"\d+", m)]) for b, shift, m in rows}


@lru_cache(maxsize=None)
def polar_tables():
    """(level, bits) -> float32 directions [2^bits, 2]."""
    section = DOCUMENT.read_text().split("## Polar codes")[1]
    tables = re.findall(r"^- level (\d), (\d) bits\n  - directions: (.*)$", section, re.M)
    as_float = lambda text: np.array([int(text, 16)], np.uint32).view(F32)[0]
    return {
        (int(level), int(bits)): np.array([[as_float(v) for v in pair.split("/")] for pair in pairs.split()], F32)
        for level, bits, pairs in tables
    }


@lru_cache(maxsize=None)
def trellis_tables():
    """Magnitudes of the upper half of the codebook, and (log2 of states, bits) -> multiplier."""
    section = DOCUMENT.read_text().split("## Trellis codes")[1].split("\n## ")[0]
    book = [int(v) for v in re.search(r"```\n([\d\s]+)```", section)[1].split()]
    rows = re.findall(r"^\| (\d) \| (10|12|14) \| `0x([0-9A-F]+)` \|", section, re.M)
    return np.array(book), {(int(states), int(bits)): int(m, 16) for bits, states, m in rows}


# Encodings ----------------------------------------------------------------------------------------------

PLANES = {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}


def unpack(bits, row, cols):
    """Codes of one row from its planes."""
    codes, start, low = np.zeros(cols, np.int64), 0, 0
    for width in PLANES[bits]:
        size = cols * width // 8
        plane = row[start : start + size].reshape(cols // 32, 4 * width).astype(np.int64)
        j = np.arange(32)
        part = plane[:, j % (4 * width)] >> (width * (j // (4 * width)))[None, :] & ((1 << width) - 1)
        codes |= part.reshape(-1) << low
        start, low = start + size, low + width
    return codes


def levels(bits, codes):
    if bits == 8:
        return codes.astype(np.uint8).view(np.int8).astype(F32)
    magnitudes = np.array(scalar_tables()[bits][1])[codes & ((1 << (bits - 1)) - 1)]
    return np.where(codes >> (bits - 1) == 1, -magnitudes, magnitudes).astype(F32)


def scalar_row(bits, codes, scales, cols):
    unit = F32(2.0 ** -scalar_tables()[bits][0])
    step = np.repeat(scales.astype(F32) * unit, cols // len(scales))
    return step * levels(bits, unpack(bits, codes, cols))


def product_row(bits, orthogonal_sketch, codes, scales, cols, seed):
    low = cols * (bits - 1) // 8
    out = scalar_row(bits - 1, codes[:low], scales[:1], cols)
    sign = np.where(unpack(1, codes[low:], cols) == 1, F32(-1), F32(1))
    if orthogonal_sketch:
        sketch, e = orthogonal(seed, SKETCH, cols), 0.6366197723675814
        for j in range(2, cols, 2):
            e = e * (j / (j + 1))
        factor = F32(1 / (cols * e))
    else:
        sketch = gaussians(seed, SKETCH, cols, cols * cols).astype(F32).reshape(cols, cols)
        factor = F32(np.sqrt(F64(1.5707963267948966)) / cols)
    return out + (factor * scales[1].astype(F32)) * transposed_product(sketch, sign)


def polar_row(level_bits, codes, scales, cols):
    planes, start = [], 0
    for level, bits in enumerate(level_bits, 1):
        count = cols >> level
        size = -(-count * bits // 8)
        stream = np.unpackbits(codes[start : start + size], bitorder="little")[: count * bits]
        planes.append(stream.reshape(count, bits) @ (1 << np.arange(bits)))
        start += size
    radii = scales.astype(F32)
    for level in (4, 3, 2, 1):
        directions = polar_tables()[level, level_bits[level - 1]][planes[level - 1]]
        radii = (radii[:, None] * directions).reshape(-1)
    return radii


def trellis_matrix(bits, log_states, codes, rows, cols):
    """Levels [rows, cols] of one matrix."""
    book, multipliers = trellis_tables()
    levels = np.concatenate([-book[::-1], book])
    out, at = np.zeros((rows, cols), F32), 0
    for first in range(0, rows, 256):
        count = min(256, rows - first)
        size = -(-count // 8) * bits
        for col in range(cols):
            stream = np.unpackbits(codes[at : at + size]).astype(np.int64)  # most significant bit first
            at += size
            for row in range(count):
                ends = np.arange((row + 1) * bits - log_states, (row + 1) * bits) % len(stream)
                state = int(stream[ends] @ (1 << np.arange(log_states)[::-1]))
                mixed = state * multipliers[log_states, bits] % (1 << log_states)
                out[first + row, col] = levels[mixed >> (log_states - 8)]
    return out


GRID = re.compile(r"grid(\d)(m|w|-row)?(-f16|-bf16)?")
FLOATS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def grid_scale_bytes(spacing, cols):
    return {None: cols // 16, "m": cols // 8, "w": cols // 4, "-row": 4}[spacing]


def grid(match, rows, cols, payload):
    """Values of a grid, rounded to the source's dtype."""
    bits, spacing, rounding = int(match[1]), match[2], match[3]
    code_bytes = rows * cols * bits // 8
    codes = np.stack([unpack(bits, row, cols) for row in payload[:code_bytes].reshape(rows, -1)])
    steps = payload[code_bytes:].view("<f4" if spacing in ("w", "-row") else "<f2").astype(F32)
    if spacing in ("m", "w"):
        steps = np.repeat(steps.reshape(rows, -1, 2), 32, axis=1)
        values = steps[:, :, 0] * codes.astype(F32) + steps[:, :, 1]
    else:
        signed = np.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes)
        steps = steps.reshape(rows, -1)
        values = np.repeat(steps, cols // steps.shape[1], axis=1) * signed.astype(F32)
    if rounding == "-f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(F32)
    if rounding == "-bf16":
        word = values.view(np.uint32).astype(np.uint64)
        word = (word + 0x7FFF + (word >> 16 & 1)) & 0xFFFF0000
        return np.where(np.isnan(values), values, word.astype(np.uint32).view(F32))
    return values


def mxfp4(rows, cols, payload):
    codes = np.stack([unpack(4, row, cols) for row in payload[: rows * cols // 2].reshape(rows, -1)])
    exponents = payload[rows * cols // 2 :].reshape(rows, -1).astype(np.int32)
    scales = np.where(exponents == 255, F32(np.nan), np.ldexp(F32(1), exponents - 127).astype(F32))
    levels = np.array(FLOATS, F32)[codes & 7] * np.where(codes >= 8, F32(-1), F32(1))
    return np.repeat(scales, 32, axis=1) * levels


def exact(name, payload):
    if name == "bf16":
        return (payload.view("<u2").astype(np.uint32) << 16).view(F32)
    if name == "f8_e5m2":
        return (payload.astype(np.uint16) << 8).view(np.float16).astype(F32)
    if name == "f8_e4m3":
        exponent, mantissa = (payload >> 3 & 15).astype(np.int32), (payload & 7).astype(F32)
        size = np.where(exponent == 0, mantissa * F32(2.0**-9), (1 + mantissa / 8) * np.exp2((exponent - 7).astype(F32)))
        size = np.where(payload & 0x7F == 0x7F, F32(np.nan), size)
        return np.where(payload >> 7 == 1, -size, size).astype(F32)
    with np.errstate(over="ignore", invalid="ignore"):
        return payload.view({"f16": "<f2", "f32": "<f4", "f64": "<f8"}[name]).astype(F32)


SIZES = {"f32": 4, "f16": 2, "bf16": 2, "f8_e4m3": 1, "f8_e5m2": 1, "f64": 8}


def row_bytes(name, cols):
    """Bytes of a code row and of a scale row."""
    if name in SIZES:
        return cols * SIZES[name], 0
    if match := re.fullmatch(r"tq(\d)(?:-g(\d+))?", name):
        return cols * int(match[1]) // 8, 2 * (cols // int(match[2]) if match[2] else 1)
    if match := re.fullmatch(r"tqpo?(\d)", name):
        return cols * int(match[1]) // 8, 4
    if match := GRID.fullmatch(name):
        return cols * int(match[1]) // 8, grid_scale_bytes(match[2], cols)
    if name == "mxfp4":
        return cols // 2, cols // 32
    bits = [int(b) for b in re.fullmatch(r"polar(\d{4})", name)[1]]
    return sum(-(-(cols >> level) * b // 8) for level, b in enumerate(bits, 1)), 2 * (cols // 16)


def trellis(bits, log_states, rows, cols, payload, height):
    """Stacked matrices of `height` rows: the codes of each, then the scales of all."""
    one = -(-height // 8) * bits * cols
    count = rows // height
    if len(payload) != count * one + 2 * rows:
        raise ValueError(f"tt{bits} [{rows}, {cols}]: {len(payload)} bytes, not {count * one + 2 * rows}")
    parts = [trellis_matrix(bits, log_states, payload[i * one : (i + 1) * one], height, cols) for i in range(count)]
    step = payload[count * one :].view("<f2").astype(F32) * F32(2.0**-5)
    return step[:, None] * np.concatenate(parts)


def decode(name, rows, cols, payload, seed=0, height=None):
    """A stored matrix as float32 [rows, cols], in the basis it is stored in."""
    payload = np.frombuffer(payload, np.uint8)
    if match := re.fullmatch(r"tt(\d)(?:-s(\d\d))?", name):
        return trellis(int(match[1]), int(match[2] or 10), rows, cols, payload, height or rows)
    code_bytes, scale_bytes = row_bytes(name, cols)
    if len(payload) != rows * (code_bytes + scale_bytes):
        raise ValueError(f"{name} [{rows}, {cols}]: {len(payload)} bytes, not {rows * (code_bytes + scale_bytes)}")
    if name in SIZES:
        return exact(name, payload).reshape(rows, cols)
    if match := GRID.fullmatch(name):
        return grid(match, rows, cols, payload)
    if name == "mxfp4":
        return mxfp4(rows, cols, payload)
    codes = payload[: rows * code_bytes].reshape(rows, code_bytes)
    scales = payload[rows * code_bytes :].view("<f2").reshape(rows, scale_bytes // 2)
    if name.startswith("polar"):
        bits = [int(b) for b in name[5:]]
        return np.stack([polar_row(bits, c, s, cols) for c, s in zip(codes, scales)])
    if name.startswith("tqp"):
        bits, dense = int(name[-1]), name.startswith("tqpo")
        return np.stack([product_row(bits, dense, c, s, cols, seed) for c, s in zip(codes, scales)])
    return np.stack([scalar_row(int(name[2]), c, s, cols) for c, s in zip(codes, scales)])
