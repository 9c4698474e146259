#!/usr/bin/env python3
"""Check that the second reader agrees with the committed container files.

    python3 scripts/check_container_golden.py

Every file of testdata/golden/container must be valid and hold what the JSON file next to it lists; every file of
testdata/malformed/container must be refused by the rule in its name; the worked example of formats/container.md must
be the bytes of its file. Exit code 1 on any difference. Needs the package zstandard.
"""
import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from gq_reader.container import TEXTS, Container, Refused  # noqa: E402

ROOT = Path(__file__).parent.parent


def listing(data: bytes) -> dict:
    container = Container(data)
    container.verify()
    texts = []
    for text in container.texts:
        name = TEXTS.get(text.kind)
        digest = hashlib.sha256(container.decode(text).encode()).hexdigest() if name else None
        texts.append({**dataclasses.asdict(text), "name": name, "sha256": digest})
    return {
        "file_bytes": len(data),
        "payload_sha256": container.payload_sha256,
        "file_sha256": container.file_sha256,
        "tensors": [dataclasses.asdict(tensor) for tensor in container.tensors],
        "texts": texts,
    }


def refusal(data: bytes) -> str:
    try:
        Container(data).verify()
    except Refused as refused:
        return refused.code
    return "valid"


def example_differs(spec: str, data: bytes) -> str | None:
    """The first line of the worked example that is not in the file, or None."""
    at, shown = 0, set()
    for line in spec.split("## Worked example")[1].splitlines():
        match = re.match(r"([0-9a-f]{3}|   )  ((?:[0-9a-f]{2}(?: |$))+)", line)
        if match:
            at = int(match[1], 16) if match[1].strip() else at
            part = bytes.fromhex(match[2])
            if data[at : at + len(part)] != part:
                return line
            shown.update(range(at, at + len(part)))
            at += len(part)
    hidden = [i for i, byte in enumerate(data) if byte and i not in shown]
    return f"byte {hidden[0]} is not shown" if hidden or not shown else None


def main() -> None:
    failures = []
    golden = sorted((ROOT / "testdata/golden/container").glob("*.gq"))
    malformed = sorted((ROOT / "testdata/malformed/container").glob("*.gq"))
    for file in golden:
        try:
            actual = listing(file.read_bytes())
        except Refused as refused:
            failures.append(f"{file.name}: {refused}")
            continue
        if actual != json.loads(file.with_suffix(".json").read_text()):
            failures.append(f"{file.name}: holds something else than its JSON file lists")
    for file in malformed:
        code, expected = refusal(file.read_bytes()), file.stem.split("--")[0]
        if code != expected:
            failures.append(f"{file.name}: {code}, expected {expected}")
    smallest = (ROOT / "testdata/golden/container/v1-smallest.gq").read_bytes()
    line = example_differs((ROOT / "formats/container.md").read_text(), smallest)
    if line is not None:
        failures.append(f"formats/container.md: the worked example differs from its file: {line}")
    if not golden or not malformed:
        failures.append("no files found")
    for failure in failures:
        print(failure, file=sys.stderr)
    if failures:
        raise SystemExit(1)
    print(f"containers: {len(golden)} golden files read as listed, {len(malformed)} malformed ones refused by their rule")


if __name__ == "__main__":
    main()
