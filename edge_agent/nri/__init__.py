"""The Node Resource Interface: its events, a plugin's session, the socket."""
