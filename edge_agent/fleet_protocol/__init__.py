"""The fleet protocol, version 1: what goes over the broker and what it means. Pure.

Device, operator and simulation share it. Bytes in, values out: no module here opens a file or a
socket, starts a thread or asks a clock. docs/fleet-protocol.md publishes the form of everything.
"""
