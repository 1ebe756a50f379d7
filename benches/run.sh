#!/usr/bin/env bash
# Builds the server as for a real machine (or takes another), runs every benchmark and writes one page of tables.
#
#   benches/run.sh                  all of it, about an hour
#   benches/run.sh --quick          one short run of each: does it work, and roughly what does it cost
#   benches/run.sh --only floor,instructions,scenarios
#   benches/run.sh --server target/pgo/sluice
#
# Parts: floor, micro, instructions, scenarios, goals, memory, curves. The page is target/benches.md unless
# BENCHES_PAGE names another file.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=floor,micro,instructions,scenarios,goals,memory,curves
binary= runs=5 seconds=10 grid_seconds=600 curves=() floor=() micro=()
while (($#)); do
    case $1 in
        --quick)
            runs=1 seconds=5 grid_seconds=30
            curves=(viewers idle --largest 200) floor=(--runs 1 --seconds 1) micro=(--quick)
            ;;
        --only) parts=$2 && shift ;;
        --server) binary=$2 && shift ;;
        *) echo "benches/run.sh: $1 is no argument; see the top of the file" >&2 && exit 2 ;;
    esac
    shift
done
page=${BENCHES_PAGE:-target/benches.md}
bin=target/release
server=(--server "${binary:-target/dist/sluice}")

wanted() { [[ ",$parts," == *",$1,"* ]]; }
section() { printf '\n## %s\n\n' "$1" | tee -a "$page"; }

[[ -n $binary ]] || cargo build --profile dist -p sluice
cargo build --release -p sluice-benches
mkdir -p "$(dirname "$page")"
{
    echo "# Benchmarks"
    echo
    echo "$(git rev-parse --short HEAD), $(nproc) cores, $(uname -sr), load average $(cut -d' ' -f1-3 /proc/loadavg)."
    echo "The server is ${server[1]}. benches/README.md explains every figure."
} | tee "$page"

if wanted floor; then
    section "Floor: what the machine charges"
    "$bin/floor" "${floor[@]}" | tee -a "$page"
fi
if wanted micro; then
    section "Micro-benchmarks: steps of the packet path"
    printf '| step | time | range |\n| --- | --- | --- |\n' | tee -a "$page"
    # Criterion prints a name, on its own line if it is long, and then `time: [low estimate high]`.
    cargo bench -q -p sluice-benches --bench hot_path -- "${micro[@]}" 2> >(grep -v "^Benchmarking" >&2) | awk '
        /time:/ {
            if ($1 != "time:") { name = $1; for (i = 2; $i != "time:"; i++) name = name " " $i }
            match($0, /\[.*\]/); split(substr($0, RSTART + 1, RLENGTH - 2), t, " ")
            printf "| %s | **%s %s** | %s %s .. %s %s |\n", name, t[3], t[4], t[1], t[2], t[5], t[6]
            next
        }
        NF && !/^( |Found )/ { name = $0 }' | tee -a "$page"
fi
if wanted instructions; then
    section "Instructions per packet"
    "$bin/instructions" | tee -a "$page"
fi
if wanted scenarios; then
    section "Scenarios"
    "$bin/scenario" "${server[@]}" --runs "$runs" --seconds "$seconds" --json "${page%.md}-scenarios.json" | tee -a "$page"
fi
if wanted goals; then
    section "Large rooms and many rooms"
    "$bin/scenario" audio-10x300 video-1x500 rooms-250x2 "${server[@]}" --runs "$runs" --seconds "$seconds" \
        --json "${page%.md}-large.json" | tee -a "$page"
    section "A room of a hundred, joined within five seconds"
    "$bin/scenario" grid-100 "${server[@]}" --runs 1 --seconds "$grid_seconds" --ramp 20 \
        --json "${page%.md}-grid.json" | tee -a "$page"
fi
if wanted memory; then
    section "Memory of subscriptions"
    "$bin/memory" "${server[@]}" --runs "$runs" --seconds 3 --json "${page%.md}-memory.json" | tee -a "$page"
fi
if wanted curves; then
    section "Curves"
    "$bin/curves" "${curves[@]}" "${server[@]}" --json "${page%.md}-curves.json" | tee -a "$page"
fi
echo "written to $page"
