"""Figures that tests measure and do not judge, shown at the end of the run."""

import pytest

MEASURED = []


@pytest.fixture
def measure(request):
    """`measure(text)` keeps a figure for the end of the run."""
    return lambda text: MEASURED.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter):
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.write_line(line)
