#!/usr/bin/env bash
# Real-client tests against the `sluice` binary (SLUICE_BIN, default target/release/sluice).
#
#     tests/clients/run.sh                       everything
#     tests/clients/run.sh pairings [pytest arguments]
#     tests/clients/run.sh acceptance [rtc-node] [python]
#     tests/clients/run.sh turms [pytest arguments]
#     tests/clients/run.sh server_api [pytest arguments]
#     tests/clients/run.sh shaped [pytest arguments]   Chromium behind a narrow path; as root
#     tests/clients/run.sh soak [--minutes N] [--participants N]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh "${1:-all}" || exit 1
python=.venv/bin/python
export PYTHONDONTWRITEBYTECODE=1 CLIENT_TEST_LOGS="${CLIENT_TEST_LOGS:-/tmp/sluice-client-tests}"

pairings() { "$python" -m pytest -c pytest.ini --rootdir . pairings "$@"; }
acceptance() { "$python" acceptance/suites.py "$@"; }
turms() { "$python" -m pytest -c pytest.ini --rootdir . turms "$@"; }
server_api() { "$python" -m pytest -c pytest.ini --rootdir . server_api "$@"; }
# In a network namespace of its own, from which the tests make others for their clients.
shaped() { unshare --net "$python" -m pytest -c pytest.ini --rootdir . shaped "$@"; }
soak() { "$python" soak/soak.py "$@"; }

case "${1:-all}" in
    pairings | acceptance | turms | server_api | shaped | soak) "$@" ;;
    all)
        status=0
        pairings || status=1
        acceptance || status=1
        turms || status=1
        server_api || status=1
        exit $status
        ;;
    *)
        sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 2
        ;;
esac
