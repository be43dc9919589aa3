"""Pure bytes <-> values: NRI's mux and ttRPC. No socket, no clock, no thread."""
