"""One node of a fleet: the sources of its plugins, its reported state, the fleet's requests."""
