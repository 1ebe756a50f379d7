#!/usr/bin/env bash
# Builds the fuzz targets with coverage instrumentation on the stable compiler and runs each one.
#
#   fuzz/run.sh [seconds] [target...]     default: 30 seconds, every target
#
# 0 seconds only replays the checked-in corpus. New inputs go to a scratch directory that is deleted
# at the end (KEEP=1 keeps it and prints where it is); crashing inputs are saved in fuzz/artifacts.
# FUZZ_FEATURES names the features to build with (default: all); see README.md.
set -euo pipefail

seconds=${1:-30}
shift || true
here=$(cd "$(dirname "$0")" && pwd)
triple=x86_64-unknown-linux-gnu
target_dir=${FUZZ_TARGET_DIR:-$here/target}

if [ ! -w "$here" ]; then
    echo "fuzz: $here is not writable" >&2
    exit 2
fi
case $seconds in
    '' | *[!0-9]*)
        echo "usage: fuzz/run.sh [seconds] [target...]" >&2
        exit 2
        ;;
esac

# The same instrumentation as cargo-fuzz, which only the nightly compiler accepts as `-Z sanitizer`.
# Sections of counters must survive the linker's garbage collection.
flags="--cfg fuzzing -Ccodegen-units=1 -Cforce-frame-pointers \
-Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares \
-Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Clink-arg=-Wl,-z,nostart-stop-gc"

features=(--all-features)
if [ -n "${FUZZ_FEATURES+set}" ]; then
    features=(--features "$FUZZ_FEATURES")
fi
targets=("$@")
select=(--bins)
if [ ${#targets[@]} -gt 0 ]; then
    select=()
    for target in "${targets[@]}"; do
        select+=(--bin "$target")
    done
fi

# `--target` keeps the flags away from build scripts and procedural macros.
RUSTFLAGS=$flags cargo build --release --quiet --manifest-path "$here/Cargo.toml" \
    --target "$triple" --target-dir "$target_dir" "${features[@]}" "${select[@]}"

binaries=$target_dir/$triple/release
if [ ${#targets[@]} -eq 0 ]; then
    for source in "$here"/fuzz_targets/*.rs; do
        target=$(basename "$source" .rs)
        # With FUZZ_FEATURES, targets of other features may not have been built.
        if [ -x "$binaries/$target" ] || [ -z "${FUZZ_FEATURES+set}" ]; then
            targets+=("$target")
        fi
    done
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/sluice-fuzz.XXXXXX")
if [ -n "${KEEP:-}" ]; then
    echo "fuzz: new inputs and logs stay in $scratch"
else
    trap 'rm -rf "$scratch"' EXIT
fi
mkdir -p "$here/artifacts"

# Runs one target; prints one line, and the end of the log if it failed.
run_target() {
    local target=$1 new=$scratch/$1 log=$scratch/$1.log seeds=$here/corpus/$1 status=0
    mkdir -p "$new"
    if [ ! -d "$seeds" ]; then
        echo "FAIL $target: no corpus in fuzz/corpus/$target"
        return 1
    fi
    local limit=(-max_total_time="$seconds")
    if [ "$seconds" -eq 0 ]; then
        limit=(-runs=0)
    fi
    # libFuzzer writes new inputs to the first directory and only reads the second.
    "$binaries/$target" "$new" "$seeds" "${limit[@]}" -max_len=4096 -timeout=10 \
        -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$here/artifacts/$target-" \
        >"$log" 2>&1 || status=$?

    local counters runs cov
    counters=$(sed -n 's/.*(\([0-9]*\) inline 8-bit counters).*/\1/p' "$log" | head -n 1)
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    cov=$(sed -n 's/^#.*cov: \([0-9]*\) ft: \([0-9]*\).*/cov \1 ft \2/p' "$log" | tail -n 1)
    if [ "$status" -ne 0 ]; then
        echo "FAIL $target: exit $status after ${runs:-?} runs, ${cov:-no coverage}"
        grep -A 3 -m 1 -E 'panicked at|ERROR: libFuzzer' "$log" | sed 's/^/    /'
        tail -n 12 "$log" | sed 's/^/    /'
        ls -t "$here/artifacts" | grep "^$target-" | head -n 1 |
            sed "s|^|    input: fuzz/artifacts/|"
        return 1
    fi
    if [ -z "$counters" ] || [ -z "$cov" ]; then
        echo "FAIL $target: no coverage feedback, the instrumentation is missing"
        return 1
    fi
    echo "ok   $target: ${runs:-0} runs, $cov of $counters counters, $(ls "$new" | wc -l) new inputs"
}

# Two at a time.
failed=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge 2 ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    run_target "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
if [ "$failed" -ne 0 ]; then
    echo "fuzz: FAILED" >&2
    exit 1
fi
