"""For authors of plugins, on their own machine: try one, test it with cases."""
