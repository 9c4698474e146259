"""The text behind testdata/demo: Jane Austen's six novels, from the Debian package r-cran-janeaustenr.

    python3 scripts/demo_text.py OUT_DIR [--deb FILE]      # writes train.txt, eval.txt and dialogues.txt to look at

The novels are in the public domain; the package (MIT licence, version 1.0.0-1) carries them as R character vectors,
one line of text each. `apt-get download` fetches it by name; its sha256 is checked. Standard library only.
"""
import argparse
import hashlib
import io
import re
import struct
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

PACKAGE, VERSION = "r-cran-janeaustenr", "1.0.0-1"
SHA256 = "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"
DATA = "./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
EVAL_CHAPTER, EVAL_CHARS = 9, 9_600  # of every novel, the ninth chapter is held out; its beginning goes to eval.txt


@dataclass
class Text:
    """Chapters to train on, the held-out beginnings of chapters, and remark-and-answer pairs from the training ones."""

    train: list[str]
    held_out: list[str]
    dialogues: list[tuple[str, str]]


def fetch(deb: Path | None) -> bytes:
    """The bytes of the package, from `deb` or from Debian's archive."""
    if deb is None:
        folder = Path(tempfile.mkdtemp())
        subprocess.run(["apt-get", "download", "-qq", f"{PACKAGE}={VERSION}"], cwd=folder, check=True)
        deb = next(folder.glob("*.deb"))
    data = deb.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{deb.name}: sha256 differs from {PACKAGE} {VERSION}")
    return data


def unpack(deb: bytes) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(deb)
        file.flush()
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", file.name], check=True, stdout=subprocess.PIPE).stdout
    return tarfile.open(fileobj=io.BytesIO(tar)).extractfile(DATA).read()


def novels(database: bytes) -> list[list[str]]:
    """The lines of each novel. The file is a row of [u32 length, zlib(R serialization of a character vector)]."""
    found, at = [], 0
    while at < len(database):
        stream = zlib.decompressobj()
        raw = stream.decompress(database[at + 4:])
        at = len(database) - len(stream.unused_data)
        position = raw.index(b"\0\0\0\x10") + 4  # STRSXP: a count, then CHARSXPs of [flags, length, bytes]
        count, = struct.unpack_from(">I", raw, position)
        position += 4
        lines = []
        for _ in range(count):
            length, = struct.unpack_from(">i", raw, position + 4)
            lines.append(raw[position + 8:position + 8 + max(length, 0)].decode())
            position += 8 + max(length, 0)
        found.append(lines)
    return sorted(found, key=lambda lines: lines[0])


def chapters(lines: list[str]) -> list[str]:
    """Chapters as paragraphs of one line each, straight quotes, without title page and chapter headings."""
    text = "\n".join(line.strip() for line in lines)
    for fancy, plain in (("\u201c", '"'), ("\u201d", '"'), ("\u2018", "'"), ("\u2019", "'"), ("_", "")):
        text = text.replace(fancy, plain)
    parts = re.split(r"(?m)^chapter\s+[ivxlc\d]+\.?\s*$", text, flags=re.IGNORECASE)[1:]
    cleaned = []
    for part in parts:
        part = re.split(r"(?m)^(?:volume\s+[ivx]+|end of.*|finis|the end)\.?$", part, flags=re.IGNORECASE)[0]
        paragraphs = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", part)]
        cleaned.append("\n".join(p for p in paragraphs if p and not re.match(r"[\[(](At this|End of)", p)) + "\n")
    return [c for c in cleaned if len(c) > 1000]


def dialogues(chapter: str) -> list[tuple[str, str]]:
    """Pairs of paragraphs in which one person speaks and the next answers, without their quotation marks."""
    said = [re.fullmatch(r'"([^"]{8,240})"', p) for p in chapter.splitlines()]
    return [(a[1], b[1]) for a, b in zip(said, said[1:]) if a and b]


def load(deb: Path | None = None) -> Text:
    train, held_out, pairs = [], [], []
    for lines in novels(unpack(fetch(deb))):
        parts = chapters(lines)
        chapter = parts.pop(EVAL_CHAPTER - 1)
        held_out.append(chapter[:chapter.rindex("\n", 0, EVAL_CHARS) + 1])
        train += parts
        for part in parts:
            pairs += dialogues(part)
    return Text(train, held_out, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--deb", type=Path, help="the package file, when it is already there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    text = load(options.deb)
    (options.out / "train.txt").write_text("\n".join(text.train))
    (options.out / "eval.txt").write_text("\n".join(text.held_out))
    (options.out / "dialogues.txt").write_text("".join(f"- {q}\n+ {a}\n" for q, a in text.dialogues))
    print(f"{len(text.train)} chapters, {sum(map(len, text.train))} characters; {len(text.dialogues)} dialogues; "
          f"{sum(map(len, text.held_out))} held out")


if __name__ == "__main__":
    main()
