#!/usr/bin/env bash
# Installs what the real-client tests need, once: a Python environment, the Node packages of the
# lock file, and Chromium; with `shaped` also what makes a path narrow. Repeating it costs a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stamp() { cat "$@" | sha256sum | cut -d' ' -f1; }

say() { printf '%s\n' "clients: $*" >&2; }

wanted=$(stamp requirements.txt)
if [[ "$(cat .venv/stamp 2>/dev/null)" != "$wanted" ]]; then
    say "installing the Python packages"
    python3 -m venv .venv || {
        say "python3 cannot make virtual environments: install it (Debian: apt-get install python3-venv)"
        exit 1
    }
    pip=(.venv/bin/pip --disable-pip-version-check --quiet)
    "${pip[@]}" install -r requirements.txt
    # The source archive carries the package's own tests, which the wheel leaves out.
    "${pip[@]}" download --no-deps --no-binary :all: -d .venv/sdist \
        "$(grep '^livekit==' requirements.txt)"
    echo "$wanted" > .venv/stamp
fi

# The agents framework wants another version of the client: an environment of its own.
wanted=$(stamp requirements-agents.txt)
if [[ "$(cat .venv-agents/stamp 2>/dev/null)" != "$wanted" ]]; then
    say "installing the agents framework"
    python3 -m venv .venv-agents
    .venv-agents/bin/pip --disable-pip-version-check --quiet install -r requirements-agents.txt
    echo "$wanted" > .venv-agents/stamp
fi

wanted=$(stamp package.json package-lock.json)
if [[ "$(cat node_modules/.stamp 2>/dev/null)" != "$wanted" ]]; then
    command -v npm > /dev/null || { say "node and npm (20 or newer) are needed"; exit 1; }
    say "installing the Node packages"
    npm ci --no-progress --loglevel=error
    echo "$wanted" > node_modules/.stamp
fi

if [[ -z "${CHROMIUM:-}" ]] && [[ ! -x /usr/bin/chromium ]]; then
    if [[ $(id -u) != 0 ]]; then
        say "Chromium is missing: install it (Debian: apt-get install chromium) or set CHROMIUM"
        exit 1
    fi
    say "installing Chromium"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null
fi

if [[ "${1:-}" == shaped && $(id -u) == 0 ]] && ! command -v nft > /dev/null; then
    say "installing nftables"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nftables > /dev/null
fi
