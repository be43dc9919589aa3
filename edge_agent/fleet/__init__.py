"""The fleet protocol carried out on a node: documents taken, blobs fetched, releases switched.

What documents say and which of them count is decided by edge_agent.fleet_protocol, which is pure.
"""
