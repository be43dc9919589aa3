"""MQTT: results, state, logs and metrics on their way to the fleet's broker.

`Link` (link.py) is what the agent holds: a thread that connects and stays connected.
`Publisher` decides what goes out next, `Outbox` keeps records until they are acknowledged,
`Connection` is the only user of paho, imported when there is something to connect to.
"""
