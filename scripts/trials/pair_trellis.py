#!/usr/bin/env python3
"""Two weights per state (V = 2): what a bitshift trellis that reads 2 K bits and looks up a pair of levels would lose.

    python3 scripts/trials/pair_trellis.py [--columns 192]

Prints the relative error on N(0, 1) of columns of 256 elements, for 2^10 and 2^12 states (and 2^14 at 4 bits) and three
codebooks of pairs: hashed (two bytes of a product choose two Gaussian quantiles, best of the multipliers tried), random
normal, and one trained on other columns by Lloyd's iteration (centroids of what each state was chosen for), which is about
the best that any table of that size can do. Paths are free at both ends, which flatters them by 1 to 2 % against the codes
of the format (`gq-codec/src/trellis.rs` has their errors, tail-biting).
Not a part of the format: the record of a choice. Needs numpy.
"""
import argparse
from statistics import NormalDist

import numpy as np

ROWS = 256
ONE = {(10, 2): 0.072514, (10, 3): 0.018611, (10, 4): 0.004865, (12, 2): 0.070781, (12, 3): 0.018001, (12, 4): 0.004679}


def search(book: np.ndarray, bits: int, x: np.ndarray) -> np.ndarray:
    """States `[columns, ROWS / 2]` of the best paths for `x` `[columns, ROWS / 2, 2]` (Viterbi)."""
    states, columns, steps = len(book), len(x), x.shape[1]
    groups, tops = states >> (2 * bits), 1 << (2 * bits)
    cost = np.zeros((columns, states), np.float32)
    came = np.zeros((steps, columns, groups), np.uint16)
    for step in range(steps):
        # State = (old state << 2 K | new bits): the predecessors of a group differ in their upper 2 K bits.
        before = cost.reshape(columns, tops, groups)
        came[step] = before.argmin(1)
        best = np.take_along_axis(before, came[step][:, None].astype(np.int64), 1)[:, 0]
        error = np.square(x[:, step, 0:1] - book[:, 0]) + np.square(x[:, step, 1:2] - book[:, 1])
        cost = np.repeat(best, tops, axis=1) + error
    state = cost.argmin(1)
    path = np.zeros((columns, steps), np.int64)
    for step in reversed(range(steps)):
        path[:, step] = state
        group = state >> (2 * bits)
        state = came[step][np.arange(columns), group].astype(np.int64) * groups + group
    return path


def error(book: np.ndarray, bits: int, x: np.ndarray) -> float:
    """Relative error at the least-squares scale."""
    chosen = book[search(book, bits, x)]
    return 1 - float((x * chosen).sum()) ** 2 / float((x * x).sum()) / float((chosen * chosen).sum())


def hashed(log_states: int, multiplier: int) -> np.ndarray:
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)
    mixed = (np.arange(1 << log_states, dtype=np.uint64) * np.uint64(multiplier)) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(15)
    mixed = (mixed * np.uint64(0x2C1B3C6D)) & np.uint64(0xFFFFFFFF)
    byte = lambda at: quantiles[((mixed >> np.uint64(at)) & np.uint64(255)).astype(np.int64)]
    return np.stack([byte(24), byte(12)], 1)


def trained(book: np.ndarray, bits: int, x: np.ndarray, rounds: int) -> np.ndarray:
    flat = x.reshape(-1, 2)
    for _ in range(rounds):
        path = search(book, bits, x).reshape(-1)
        count = np.bincount(path, minlength=len(book))
        sums = np.stack([np.bincount(path, flat[:, i], len(book)) for i in range(2)], 1)
        # A state that was seldom chosen keeps part of what it was.
        book = ((sums + 2 * book) / (count + 2)[:, None]).astype(np.float32)
    return book


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=192)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    normal = lambda columns: random.standard_normal((columns, ROWS // 2, 2)).astype(np.float32)
    few, train, fresh = normal(24), normal(4 * options.columns), normal(options.columns)
    print("states bits  hashed    random    trained   V=1 of the format  bits lost (trained)")
    for log_states, bits in [(10, 2), (12, 2), (10, 3), (12, 3), (10, 4), (12, 4), (14, 4)]:
        books = (hashed(log_states, int(m) | 1) for m in random.integers(1 << 31, size=24))
        best = min(books, key=lambda book: error(book, bits, few))
        gaussian = random.standard_normal((1 << log_states, 2)).astype(np.float32)
        learned = trained(best, bits, train, 12)
        results = [error(book, bits, fresh) for book in (best, gaussian, learned)]
        one = ONE.get((log_states, bits))
        lost = f"{one:.5f}            {0.5 * np.log2(results[2] / one):.3f}" if one else "-"
        print(f"2^{log_states}   {bits}    " + "   ".join(f"{result:.5f}" for result in results) + f"   {lost}", flush=True)


if __name__ == "__main__":
    main()
