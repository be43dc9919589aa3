"""The operator's console: pages in a browser over what the fleet's broker says.

`live` follows the broker, `pages` turns what is known into what a page shows, `web` serves it.
Never part of `run`. It has no signing key and changes nothing: what changes the fleet is signed in
a terminal.
"""
