"""Computes the constants of formats/encodings.md and prints crates/gq-codec/src/tables.rs.

Usage: python scripts/make_codebooks.py > crates/gq-codec/src/tables.rs

Float64 only; the printed tables are normative, this script shows where they come from.
"""

import math
from statistics import NormalDist

SCALAR_SHIFT = {1: 0, 2: 5, 3: 5, 4: 5, 5: 5, 6: 11, 7: 10, 8: 5}
LARGEST_BYTE_LEVEL = 127


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def tail(x):
    return 0.5 * math.erfc(x / math.sqrt(2))


def cells(levels):
    """First moment and mass of each positive cell of a symmetric nearest-level code of N(0, 1)."""
    edges = [0.0] + [(a + b) / 2 for a, b in zip(levels, levels[1:])]
    d = [density(e) for e in edges] + [0.0]
    q = [tail(e) for e in edges] + [0.0]
    return [(d[i] - d[i + 1], q[i] - q[i + 1]) for i in range(len(levels))]


def lloyd_max(count):
    """Positive half of the Lloyd-Max levels of N(0, 1) with 2 * count levels, from the Panter-Dite start."""
    start = NormalDist(0, math.sqrt(3))
    levels = [start.inv_cdf(0.5 + (i + 0.5) / (2 * count)) for i in range(count)]
    for _ in range(100_000):
        new = [moment / mass for moment, mass in cells(levels)]
        change = max(abs(a - b) for a, b in zip(new, levels))
        levels = new
        if change < 1e-14:
            break
    return levels


def distortion(integers, zero=False):
    """Least mean squared error over all scales, and that scale. `zero`: the code also has level 0."""
    scale = (4.0 if zero else 2.5) / integers[-1]
    for _ in range(100_000):
        values = [i * scale for i in integers]
        if zero:
            edges = [scale * 0.5] + [(a + b) / 2 for a, b in zip(values, values[1:])]
            d = [density(e) for e in edges] + [0.0]
            q = [tail(e) for e in edges] + [0.0]
            parts = [(d[i] - d[i + 1], q[i] - q[i + 1]) for i in range(len(values))]
        else:
            parts = cells(values)
        product = 2 * sum(v * moment for v, (moment, _) in zip(values, parts))
        energy = 2 * sum(v * v * mass for v, (_, mass) in zip(values, parts))
        new = scale * product / energy
        done = abs(new - scale) < 1e-15 * scale
        scale = new
        if done:
            break
    return 1 - 2 * product + energy, scale


def byte_levels(levels):
    """Integers up to 127 whose code has the least distortion: best common step, then coordinate descent."""
    best = None
    for largest in range(40, LARGEST_BYTE_LEVEL + 1):
        integers = [round(level / levels[-1] * largest) for level in levels]
        if integers[0] >= 1 and all(a < b for a, b in zip(integers, integers[1:])):
            candidate = (distortion(integers)[0], integers)
            best = min(best, candidate) if best else candidate
    improved = True
    while improved:
        improved = False
        for i in range(len(levels)):
            for step in (-1, 1):
                integers = list(best[1])
                integers[i] += step
                ordered = all(a < b for a, b in zip(integers, integers[1:]))
                if integers[0] < 1 or integers[-1] > LARGEST_BYTE_LEVEL or not ordered:
                    continue
                value = distortion(integers)[0]
                if value < best[0] - 1e-15:
                    best, improved = (value, integers), True
    return best[1]


def scalar_books():
    for bits in range(1, 9):
        shift = SCALAR_SHIFT[bits]
        if bits == 8:
            integers = list(range(1, 128))
            real = distortion_of_real(lloyd_max(128))
            d, scale = distortion(integers, zero=True)
            yield bits, shift, [], real, d, scale * 2**shift
            continue
        levels = lloyd_max(2 ** (bits - 1))
        if bits == 1:
            integers = [1]
        elif bits <= 5:
            integers = byte_levels(levels)
        else:
            integers = [round(level * 2**shift) for level in levels]
        d, scale = distortion(integers)
        yield bits, shift, integers, distortion_of_real(levels), d, scale * 2**shift


def distortion_of_real(levels):
    product = 2 * sum(v * moment for v, (moment, _) in zip(levels, cells(levels)))
    energy = 2 * sum(v * v * mass for v, (_, mass) in zip(levels, cells(levels)))
    return 1 - 2 * product + energy


def polar_levels(level, bits, steps=200_000):
    """Lloyd-Max angles on [0, pi/2] for the density sin(2 psi)^(2^(level-1) - 1)."""
    k = 2 ** (level - 1)
    width = math.pi / 2 / steps
    psi = [(i + 0.5) * width for i in range(steps)]
    weight = [math.sin(2 * p) ** (k - 1) for p in psi]
    mass, moment = [0.0], [0.0]
    for p, w in zip(psi, weight):
        mass.append(mass[-1] + w)
        moment.append(moment[-1] + w * p)

    def at(table, angle):
        position = min(max(angle / width, 0.0), steps)
        i = min(int(position), steps - 1)
        return table[i] + (position - i) * (table[i + 1] - table[i])

    count = 2**bits
    mean, spread = math.pi / 4, {2: 0.341834, 3: 0.247578, 4: 0.176325}[level]
    angles = [mean + spread * math.sqrt(3) * ((2 * i + 1) / count - 1) for i in range(count)]
    for _ in range(10_000):
        edges = [0.0] + [(a + b) / 2 for a, b in zip(angles, angles[1:])] + [math.pi / 2]
        new = [
            (at(moment, b) - at(moment, a)) / (at(mass, b) - at(mass, a)) for a, b in zip(edges, edges[1:])
        ]
        # The density is symmetric about pi/4; so are the angles.
        new = [(a + math.pi / 2 - b) / 2 for a, b in zip(new, reversed(new))]
        change = max(abs(a - b) for a, b in zip(new, angles))
        angles = new
        if change < 1e-12:
            break
    return angles


def polar_tables():
    for level, choices in ((1, (4, 5)), (2, (2, 3)), (3, (2, 3)), (4, (2, 3))):
        for bits in choices:
            if level == 1:
                count = 2**bits
                angles = [(i + 0.5) * 2 * math.pi / count for i in range(count)]
                edges = [i * 2 * math.pi / count for i in range(1, count // 4)]
            else:
                angles = polar_levels(level, bits)
                edges = [(a + b) / 2 for a, b in zip(angles, angles[1:])]
            yield level, bits, angles, edges


def wrapped(items, indent):
    lines, line = [], " " * indent
    for item in items:
        if len(line) + len(item) + 2 > 108:
            lines.append(line.rstrip())
            line = " " * indent
        line += item + ", "
    return "\n".join(lines + [line.rstrip()])


def f32_bits(value):
    import struct

    return struct.unpack("<I", struct.pack("<f", value))[0]


def direction(angle):
    return f"[0x{f32_bits(math.cos(angle)):08X}, 0x{f32_bits(math.sin(angle)):08X}]"


def main():
    print("//! Constants of `formats/encodings.md`, printed by `scripts/make_codebooks.py`.")
    print("#![cfg_attr(rustfmt, rustfmt::skip)]\n")
    print("/// One scalar codebook as printed: see `Codebook`.")
    print("#[derive(Debug)]\npub(crate) struct ScalarTable {")
    print("    pub magnitudes: &'static [u16],")
    print("    pub shift: u32,")
    print("    pub gaussian_scale: f64,")
    print("    pub distortion: f64,")
    print("    pub real_distortion: f64,")
    print("}\n")
    print("/// Codebooks of 1 to 8 bits.")
    print("pub(crate) const SCALAR: [ScalarTable; 8] = [")
    for bits, shift, integers, real, d, scale in scalar_books():
        print(f"    // {bits} bits: {100 * (d / real - 1):+.3f} % over the real-valued optimum")
        print("    ScalarTable {")
        print(f"        magnitudes: &[\n{wrapped(map(str, integers), 12)}\n        ],")
        print(f"        shift: {shift},")
        print(f"        gaussian_scale: {scale:.12},")
        print(f"        distortion: {d:.12},")
        print(f"        real_distortion: {real:.12},")
        print("    },")
    print("];\n")
    print("/// Angles of one polar level: `[cos, sin]` as f32 bits.")
    print("#[derive(Debug)]\npub(crate) struct PolarTable {")
    print("    pub level: u8,")
    print("    pub bits: u8,")
    print("    pub directions: &'static [[u32; 2]],")
    print("    pub edges: &'static [[u32; 2]],")
    print("}\n")
    print("/// Level 1: all directions of the circle, edges inside the first quadrant; other levels: of [0, pi/2].")
    tables = list(polar_tables())
    print(f"pub(crate) const POLAR: [PolarTable; {len(tables)}] = [")
    for level, bits, angles, edges in tables:
        print(f"    PolarTable {{\n        level: {level},\n        bits: {bits},")
        print(f"        directions: &[\n{wrapped(map(direction, angles), 12)}\n        ],")
        print(f"        edges: &[\n{wrapped(map(direction, edges), 12)}\n        ],")
        print("    },")
    print("];")


if __name__ == "__main__":
    main()
