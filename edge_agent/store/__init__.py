"""Files of the agent on disk: modules, releases, the catalogue."""
