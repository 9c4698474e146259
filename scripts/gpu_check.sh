#!/usr/bin/env bash
# What has to be run on a machine with an NVIDIA GPU and its driver: every kernel compared with the interpreter, the backend
# against the CPU, faults of memory, speed. Needs cargo; nothing of CUDA but the driver. Ends with 1 where something differs.
#
#   scripts/gpu_check.sh [FILE.gq]        speed is measured on FILE.gq, or on the demo model
#
# NOT YET RUN ON ANY GPU. Without one it says so and ends with 4, as `gq` does.
set -uo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
failed=()
check() {
    local what="$1"
    shift
    "$@" || failed+=("$what")
}

step "build"
cargo build --release --locked -p gq || exit 1
gq=target/release/gq
"$gq" inspect --machine
if ! "$gq" inspect --machine --json | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["gpus"])'; then
    echo "no GPU that the driver knows: nothing was checked"
    exit 4
fi
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv || true

step "every launch of every kernel's tests, here and on the interpreter: equal or not"
log=$(mktemp)
GQ_BESIDE=1 cargo test --locked -p gq-cuda --test it -- --nocapture --test-threads 1 \
    attention:: elements:: exact:: experts:: heads:: norm:: product:: rotate:: rows:: top:: trellis:: 2>&1 | tee "$log" |
    grep -v '^card: .*: equal$'
test "${PIPESTATUS[0]}" = 0 || failed+=("kernels")
printf '\nkernel: launches that were equal, that were not\n'
sed -n 's/^card: \([a-z0-9_]*\) .*: \(equal\|NOT EQUAL\).*/\1 \2/p' "$log" |
    awk '{ if ($2 == "equal") same[$1]++; else other[$1]++; all[$1] } END { for (k in all) print k ": " same[k]+0 ", " other[k]+0 }' |
    sort
rm -f "$log"

step "the driver's path"
check "driver" cargo test --locked -p gq-cuda --test it -- --nocapture driver::

step "the backend against the CPU, on the machine's own driver"
export GQ_REAL_DRIVER=1
check "backend" cargo test --locked -p gq-model --test it -- --nocapture --test-threads 1 cuda::

step "memory errors and races, by compute-sanitizer"
if command -v compute-sanitizer > /dev/null; then
    binary=$(cargo test --locked -p gq-model --test it --no-run --message-format json 2> /dev/null |
        python3 -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and "test" in made["target"]["kind"]: print(made["executable"])' | tail -1)
    for tool in memcheck racecheck synccheck; do
        (cd crates/gq-model && compute-sanitizer --tool "$tool" --error-exitcode 9 "$binary" cuda::llama --nocapture) ||
            failed+=("$tool")
    done
else
    echo "compute-sanitizer is not installed: its verdict is missing"
fi
unset GQ_REAL_DRIVER

step "speed"
file=${1:-}
if [ -z "$file" ]; then
    dir=$(mktemp -d)
    file=$dir/demo.gq
    "$gq" convert testdata/demo -o "$file" --bits 4 -q || exit 1
    echo "the demo model: launches and copies are all of its time; give a file of some GB"
fi
"$gq" bench "$file" --device cuda --kv f16 || failed+=("bench")
if command -v ncu > /dev/null; then
    ncu --set basic --launch-skip 400 --launch-count 40 "$gq" bench "$file" --device cuda --kv f16 --pp 8 --tg 16 \
        --repetitions 1 || failed+=("ncu")
else
    echo "ncu is not installed: counters are missing"
fi
echo "not measured here yet: the share of the card's bandwidth of single kernels, and cuBLAS f16 on the same shapes"

if [ "${#failed[@]}" != 0 ]; then
    printf '\nFAILED: %s\n' "${failed[*]}"
    exit 1
fi
printf '\nall equal\n'
