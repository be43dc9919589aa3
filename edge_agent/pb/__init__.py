"""Generated from proto/ by scripts/generate; never edited."""

from edge_agent.lazy_import import import_later

# protobuf in Python, which the generated code names, and which its C part does without; and
# what a type is prepared with that no message here has. 1.4 MB.
import_later("google.protobuf.internal.python_message")
import_later("calendar")
