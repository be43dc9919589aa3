"""The two tiers of the tests: what runs anywhere, and what is marked `system`.

`system` is what needs root, containers, an emulator, a broker, Go or Rust, or starts and kills
processes again and again; CONTRIBUTING tells how to run the others alone. Helpers that bring such
things ask here, so that no test misses its mark.
"""

_allowed = True  # outside of pytest too


def begin(allowed: bool) -> None:
    """A test begins, which may be one of the system. tests/conftest.py calls this."""
    global _allowed
    _allowed = allowed


def system(what: str) -> None:
    """The running test uses `what`. AssertionError unless it may."""
    assert _allowed, f"{what}: a test that uses this must be marked pytest.mark.system"
