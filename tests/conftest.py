"""Settings that every test shares."""

from hypothesis import settings

# No test is judged by the clock; a board or a busy build machine takes its time.
settings.register_profile("edge-agent", deadline=None, print_blob=True)
settings.load_profile("edge-agent")
