"""A simulated runtime and a small broker, for the demonstration and the tests only."""
