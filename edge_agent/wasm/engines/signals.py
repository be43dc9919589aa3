"""Signals, which both Python's fault handler and the native engines want."""

import faulthandler


def come_before_the_engine() -> None:
    """Let Python's fault handler take the signals first, and never again.

    Traps are signals to Wasmtime and Wasmer. Enabled after them, the fault handler takes
    traps for crashes and ends the process; enabled already, it passes them on and ignores
    that it is enabled later.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2)
