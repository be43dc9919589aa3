"""The fleet protocol on a node: what is signed, what follows from it, how blobs arrive.

`envelope`, `keys`, `trust`, `deployment` and `choice` are pure: bytes in, values out. The form
of everything is published in docs/fleet-protocol.md.
"""
