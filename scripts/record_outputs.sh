#!/usr/bin/env bash
# Prints `sha256  name` of the payloads that conversions and exports store, to compare two builds of gq.
# Usage: scripts/record_outputs.sh GQ > old.txt, with another build > new.txt, then diff old.txt new.txt.
#
# For each file two lines: the digest of its tensors' payload (`NAME payload`), equal between builds whenever the
# weights are, and the digest of the whole file (`NAME file`), which provenance and report are part of.
# Works offline on testdata/ and takes less than a minute with an optimized build; a debug build has the same bytes.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 GQ" >&2; exit 2; }
gq=$(realpath -- "$1")
data=$(realpath -- "$(dirname -- "$0")/../testdata")
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd "$work"

# Commands and options of the build at hand: `calibrate` and `--measurements`, before that `tune` and `--tune`.
if "$gq" help calibrate >help.txt 2>&1; then
    calibrate=calibrate measurements=--measurements
else
    calibrate=tune measurements=--tune
fi

# Digest of what a .gq file stores for its tensors, and of the whole file.
record() {
    printf '%s  %s payload\n' "$("$gq" inspect --json "$1" | sed -n 's/.*"payload_sha256": *"\([0-9a-f]*\)".*/\1/p' | head -n 1)" "$1"
    file "$1"
}

# Digest of a whole file.
file() {
    printf '%s  %s file\n' "$(sha256sum <"$1" | cut -d ' ' -f 1)" "$1"
}

# Without calibration: every tiny checkpoint, and the demo in several encodings.
for checkpoint in "$data"/tiny/*/; do
    name=tiny-$(basename "$checkpoint")
    "$gq" -q convert "$checkpoint" -o "$name-tq4.gq" --bits 4 >log.txt
    record "$name-tq4.gq"
    "$gq" -q convert "$checkpoint" -o "$name-budget.gq" --calibration none >log.txt
    record "$name-budget.gq"
done
for encoding in tq4 tq3-g64 tt3 exact; do
    "$gq" -q convert "$data/demo" -o "demo-$encoding.gq" -e "$encoding" >log.txt
    record "demo-$encoding.gq"
done

# Calibrated: the checkpoints that have a tokenizer.
fast=(--calibration-ctx 128 --calibration-tokens 4096 --gradient-tokens 512 --trial-tokens 512)
for checkpoint in "$data/demo" "$data"/tiny/*/; do
    [ -e "$checkpoint/tokenizer.json" ] || continue
    name=$(basename "$checkpoint")
    "$gq" -q "$calibrate" "$checkpoint" -o measured "${fast[@]}" --calibration "$data/demo/eval.txt" >log.txt
    for saved in measured/*.safetensors; do
        file "$saved"
    done
    for budget in "--size 1.6MB" "--bpw 3" "--bits 3"; do
        output="$name-calibrated${budget// /-}.gq"
        # shellcheck disable=SC2086
        "$gq" -q convert "$checkpoint" -o "$output" "$measurements" measured $budget >log.txt
        record "$output"
    done
    "$gq" -q convert "$checkpoint" -o "$name-one-step.gq" "${fast[@]}" >log.txt
    record "$name-one-step.gq"
    rm -r measured
done

# What others read.
"$gq" -q export "$data/demo" --gguf -o demo-f16.gguf --no-measure >log.txt
file demo-f16.gguf
"$gq" -q export demo-tq4.gq --gguf -o demo-tq4.gguf --no-measure >log.txt
file demo-tq4.gguf
"$gq" -q export demo-tq4.gq --safetensors -o exported --no-measure >log.txt
file exported/model.safetensors
