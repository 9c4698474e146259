#!/usr/bin/env python3
"""Check that gq and huggingface_hub share one cache, both ways, against a Hub on loopback.

    pip install huggingface_hub
    python scripts/check_hub_cache.py

Builds and starts the loopback example of gq-hub; no network is used. Prints what was checked; exit code 1 when
something differs.
"""
import filecmp
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ["config.json", "empty.txt", "model.safetensors", "sub/dir/with space#1.json"]


def build() -> Path:
    subprocess.run(["cargo", "build", "-q", "-p", "gq-hub", "--example", "loopback"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug/examples/loopback"


class Server:
    def __init__(self, program: Path):
        self.process = subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = self.process.stdout.readline().strip()

    def served(self) -> int:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def check(what: str, good: bool) -> None:
    print(f"{'ok' if good else 'FAILED'}: {what}")
    if not good:
        sys.exit(1)


def files_below(folder: Path) -> dict[str, str]:
    """Relative path to link target, or to size for files, of everything but locks; file lists by content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if ".locks" in path.parts or path.name == "CACHEDIR.TAG" or path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink():
            what = os.readlink(path)
        elif path.parent.name == "trees":  # JSON, however it is spaced
            what = json.dumps(json.loads(path.read_text()), sort_keys=True)
        else:
            what = str(path.stat().st_size)
        found[str(path.relative_to(folder))] = what
    return found


def main() -> None:
    program = build()
    server = Server(program)
    os.environ.update(HF_ENDPOINT=server.endpoint, HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1",
                      HF_HUB_DISABLE_PROGRESS_BARS="1")
    os.environ.pop("HF_HUB_OFFLINE", None)
    from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
    print(f"huggingface_hub {__import__('huggingface_hub').__version__}")

    def pull(cache: Path) -> str:
        done = subprocess.run([program, "pull", server.endpoint, cache], check=True, text=True, stdout=subprocess.PIPE)
        return done.stdout.strip()

    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = Path(scratch) / "ours", Path(scratch) / "theirs"
        folder = pull(ours)
        whole = server.served()
        check("Python finds our snapshot offline",
              snapshot_download("org/tiny", cache_dir=ours, local_files_only=True) == folder)
        check("Python finds each of our files offline",
              all(hf_hub_download("org/tiny", f, cache_dir=ours, local_files_only=True) == f"{folder}/{f}" for f in FILES))
        check("Python online fetches nothing that we have",
              snapshot_download("org/tiny", cache_dir=ours) == folder and server.served() == whole)
        report = scan_cache_dir(ours)
        repo = next(iter(report.repos))
        revision = next(iter(repo.revisions))
        check("Python's cache scan is clean and complete", not report.warnings and repo.repo_id == "org/tiny"
              and len(revision.files) == len(FILES) and revision.refs == {"main"})

        before = server.served()
        folder = snapshot_download("org/tiny", cache_dir=theirs)
        after = server.served()
        check("Python fetched the same number of bytes", after - before == whole)
        check("gq finds Python's snapshot and fetches nothing", pull(theirs) == folder and server.served() == after)
        for path in sorted(files_below(ours).items() ^ files_below(theirs).items()):
            print("differs:", path)
        check("both caches have the same names, links and sizes", files_below(ours) == files_below(theirs))
        check("and the same bytes", all(filecmp.cmp(ours / p, theirs / p, shallow=False)
                                        for p in files_below(ours) if "trees/" not in p))

        mixed = Path(scratch) / "mixed"
        hf_hub_download("org/tiny", "model.safetensors", cache_dir=mixed)
        before = server.served()
        pull(mixed)
        check("gq completes what Python began", server.served() - before == whole - 3_000_001)
        check("and Python agrees that it is complete",
              files_below(mixed / "models--org--tiny") == files_below(ours / "models--org--tiny"))
    server.process.stdin.close()


if __name__ == "__main__":
    main()
