"""One node of a fleet: where its plugins come from, what it says, what it is asked."""
