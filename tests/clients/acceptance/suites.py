"""Runs the test suites that LiveKit ships inside its own client packages against the server, and
compares the outcome with `expected_failures.txt`.

    python acceptance/suites.py [rtc-node] [python]
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CLIENTS))

from harness.server import KEY, SECRET, Server, Setup  # noqa: E402

LOGS = pathlib.Path(os.environ.get("CLIENT_TEST_LOGS", "/tmp/sluice-client-tests"))
WORK = LOGS / "acceptance"
# Fewest tests of a suite that must pass, whatever the list says.
THRESHOLDS = {"rtc-node": 24, "python": 12}
SUITE_SECONDS = 600
# The suites' own time limits (10 s for a test of which eight run at once) assume a machine with cores
# to spare: beside a load of 13 on two cores eight or two of rtc-node's tests ran out of time, other
# ones in each run, while the server used 2 s of 60 and dropped nothing; three of them passed alone. So many
# failures are looked at once more alone; more than that is no accident of timing.
MAX_CONFIRMATIONS = 3
# The files of the Python package's tests that talk to a server; the others test the package alone.
PYTHON_FILES = [
    "test_basic.py",
    "test_dc.py",
    "test_audio.py",
    "test_video.py",
    "test_change_video_quality.py",
    "test_e2ee_shared_key.py",
    "test_e2ee_per_participant.py",
]


@dataclasses.dataclass
class Outcome:
    suite: str
    name: str
    passed: bool
    detail: str = ""


def environment(server):
    return os.environ | {
        "LIVEKIT_URL": server.url,
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
    }


def run(command, log_name, **options):
    """Runs a command with its output in a log; returns the path. A time limit is not an error:
    what was reported by then counts, and what was not is missing."""
    path = LOGS / f"{log_name}.log"
    with open(path, "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options
        )
        try:
            process.wait(SUITE_SECONDS)
        except subprocess.TimeoutExpired:
            log.write(f"\nended after {SUITE_SECONDS} s\n".encode())
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return path


def rtc_node(server, only=None):
    """The end-to-end tests of the Node SDK (vitest); all of them, or the one with a name."""
    directory = WORK / "rtc-node"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    modules = CLIENTS / "node_modules"
    shutil.copytree(modules / "@livekit/rtc-node/src", directory / "src")
    (directory / "node_modules").symlink_to(modules)
    (directory / "package.json").write_text('{"type": "module", "private": true}\n')
    # 8 at once is how the suite's authors run it; it is sensitive to fewer and to more.
    (directory / "vite.config.js").write_text(
        "export default { test: { maxConcurrency: 8, testTimeout: 60000 } };\n"
    )
    result = directory / "result.json"
    log = run(
        ["node", str(modules / "vitest/vitest.mjs"), "run", "src/tests",
         "--reporter=default", "--reporter=json", f"--outputFile.json={result}",
         *(["-t", f"^{re.escape(only)}$"] if only else [])],
        "acceptance-rtc-node" + ("-alone" if only else ""),
        cwd=directory,
        env=environment(server),
    )
    if not result.exists():
        raise SystemExit(f"rtc-node: no result, see {log}\n{log.read_text(errors='replace')[-3000:]}")
    outcomes = []
    for file in json.loads(result.read_text())["testResults"]:
        if not file["assertionResults"]:
            outcomes.append(Outcome("rtc-node", pathlib.Path(file["name"]).name, False, file["message"]))
        for test in file["assertionResults"]:
            if test["status"] in ("pending", "skipped", "todo"):
                continue
            detail = "\n".join(test["failureMessages"])
            outcomes.append(Outcome("rtc-node", test["fullName"], test["status"] == "passed", detail))
    return outcomes


def python(server, only=None):
    """The tests of the Python package that need a server (pytest), a process per file: the native
    library keeps state between tests of one process. All of them, or the one with a name."""
    directory = WORK / "python"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    archive = next((CLIENTS / ".venv/sdist").glob("livekit-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    tests = next(directory.glob("livekit-*/tests"))
    shutil.copy(CLIENTS / "acceptance/utils.py", tests / "utils.py")
    (tests / "pytest.ini").write_text("[pytest]\n")
    outcomes = []
    for name in [only.split("::")[0] + ".py"] if only else PYTHON_FILES:
        result = tests / f"{name}.xml"
        log = run(
            [sys.executable, "-m", "pytest", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider",
             "-q", f"--junitxml={result}",
             name if not only else f"{name}::{only.split('::', 1)[1]}"],
            f"acceptance-python-{name}" + ("-alone" if only else ""),
            cwd=tests,
            env=environment(server),
        )
        if not result.exists():
            outcomes.append(Outcome("python", name, False, f"no result, see {log}"))
            continue
        for case in ElementTree.parse(result).iter("testcase"):
            if case.find("skipped") is not None:
                continue
            bad = [child for child in case if child.tag in ("failure", "error")]
            detail = "\n".join(child.text or child.get("message", "") for child in bad)
            test = f"{name.removesuffix('.py')}::{case.get('name')}"
            outcomes.append(Outcome("python", test, not bad, detail))
    return outcomes


SUITES = {"rtc-node": rtc_node, "python": python}


def expected_failures():
    expected = {}
    for line in (CLIENTS / "expected_failures.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            suite, name, reason = (part.strip() for part in line.split(" :: ", 2))
            expected[suite, name] = reason
    return expected


def confirm(outcomes):
    """Runs unexpected failures once more, each alone on a new server, and says so. Returns what is
    wrong with those servers."""
    known = expected_failures()
    failures = [o for o in outcomes if not o.passed and (o.suite, o.name) not in known]
    problems = []
    if len(failures) > MAX_CONFIRMATIONS:
        return problems
    for outcome in failures:
        print(f"failed beside others: {outcome.suite} :: {outcome.name}\n{indent(outcome.detail)}")
        server = Server(Setup(workers=2), LOGS)
        try:
            alone = [o for o in SUITES[outcome.suite](server, outcome.name) if o.name == outcome.name]
        finally:
            problems += [server.stop(), *server.complaints()]
        outcome.passed = bool(alone) and all(o.passed for o in alone)
        print(f"{'passed' if outcome.passed else 'failed'} alone: {outcome.suite} :: {outcome.name}")
    return problems


def judge(outcomes, suites):
    """Prints what matters and returns how many tests were as expected and how many were not."""
    expected = expected_failures()
    wrong = []
    for outcome in outcomes:
        known = expected.pop((outcome.suite, outcome.name), None)
        if not outcome.passed and known is None:
            wrong.append(f"FAILED {outcome.suite} :: {outcome.name}\n{indent(outcome.detail)}")
        elif not outcome.passed:
            print(f"expected failure: {outcome.suite} :: {outcome.name}: {known}")
        elif known is not None:
            wrong.append(
                f"PASSED but listed as an expected failure: {outcome.suite} :: {outcome.name}: "
                "remove it from expected_failures.txt"
            )
    for suite, name in expected:
        if suite in suites:
            wrong.append(f"listed as an expected failure but did not run: {suite} :: {name}")
    for suite in suites:
        mine = [outcome for outcome in outcomes if outcome.suite == suite]
        passed = sum(outcome.passed for outcome in mine)
        print(f"{suite}: {passed} of {len(mine)} tests pass, at least {THRESHOLDS[suite]} must")
        if passed < THRESHOLDS[suite]:
            wrong.append(f"{suite}: {passed} tests pass, {THRESHOLDS[suite]} must")
    print("\n".join(wrong))
    return max(0, len(outcomes) - len(wrong)), len(wrong)


def indent(text, lines=12):
    """The end of a message, without the runner's own stack."""
    kept = [line for line in text.strip().splitlines() if "node_modules/@vitest" not in line]
    return "\n".join(f"    {line}" for line in kept[-lines:])


def main():
    suites = sys.argv[1:] or list(SUITES)
    LOGS.mkdir(parents=True, exist_ok=True)
    outcomes, problems = [], []
    for suite in suites:
        started = time.monotonic()
        server = Server(Setup(workers=2), LOGS)
        try:
            outcomes += SUITES[suite](server)
        finally:
            problems += [server.stop(), *server.complaints()]
        print(f"{suite}: {time.monotonic() - started:.0f} s", flush=True)
    problems += confirm(outcomes)
    passed, failed = judge(outcomes, suites)
    problems = [f"server: {problem}" for problem in problems if problem]
    print("\n".join(problems))
    failed += bool(problems)
    print(f"acceptance: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
