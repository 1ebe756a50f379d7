#!/usr/bin/env bash
# Builds the server with a profile of itself at work (profile-guided optimisation): a tenth less CPU than
# the `dist` profile alone. Twice its time to build, and a minute of load on loopback in between.
#
#   deploy/pgo.sh                   the server is target/pgo/sluice
#   PORT=9000 deploy/pgo.sh         other ports for the load: 9000, UDP from 9001, TCP 9100
#
# Needs llvm-profdata of the compiler's LLVM: `rustup component add llvm-tools`, or the system's
# package llvm-<major>, or its path in LLVM_PROFDATA.
set -euo pipefail
cd "$(dirname "$0")/.."

PORT=${PORT:-7980}
work=target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

profdata() {
    local candidate
    for candidate in "${LLVM_PROFDATA:-}" "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" \
        "llvm-profdata-$llvm" "/usr/lib/llvm-$llvm/bin/llvm-profdata"; do
        if [[ -n $candidate ]] && command -v "$candidate"; then return; fi
    done
    echo "deploy/pgo.sh: no llvm-profdata for LLVM $llvm; see the top of this file" >&2
    return 1
}
merge=$(profdata)

# With a target named, build scripts and macros are left as they are.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --profile dist -p sluice --target "$host" \
        --target-dir "$work/build"
    cp "$work/build/$host/dist/sluice" "$2"
}

rm -rf "$work/profiles" && mkdir -p "$work/profiles"
profiles=$(realpath "$work/profiles")
build "-Cprofile-generate=$profiles" "$work/sluice-instrumented"

server=
trap '[[ -z $server ]] || kill -KILL "$server"' EXIT

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

# One load on a server of its own. What the load tester does is not what is to become faster.
train() {
    LLVM_PROFILE_FILE="$profiles/%p.profraw" "$work/sluice-instrumented" --dev --port "$PORT" \
        --udp-port "$((PORT + 1))-$((PORT + $(nproc)))" --rtc.tcp_port "$((PORT + 100))" --logging.level warn &
    server=$!
    for _ in {1..100}; do listens && break || sleep 0.1; done
    LLVM_PROFILE_FILE=/dev/null "$work/sluice-instrumented" load-test --url "ws://127.0.0.1:$PORT" \
        --ramp 40/s --duration 8s "$@"
    kill -TERM "$server"
    wait "$server"
    server=
}
train --video --publishers 1 --subscribers 150
train --audio --publishers 10 --subscribers 100 --simulate-speakers
train --publishers 10 --subscribers 10 --layout speaker --simulate-speakers
train --rooms 20 --publishers 2 --subscribers 0 --publishers-subscribe --data-rate 5 --storm 50
train --audio --publishers 1 --subscribers 200 --simulate-speakers

"$merge" merge -o "$work/server.profdata" "$profiles"/*.profraw
build "-Cprofile-use=$(realpath "$work/server.profdata")" "$work/sluice"
ls -l "$work/sluice"
