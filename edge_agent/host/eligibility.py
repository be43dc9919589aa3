"""At which runtimes a plugin is registered (docs/adr/0032). Pure.

`runtimes` in its settings decides alone. Without it a plugin that declares its permissions is
left out where the runtime cannot carry them; one that declares none is registered everywhere.
"""

from pathlib import Path

from edge_agent.config import PERMISSIONS, PluginSettings
from edge_agent.nri.capabilities import carried_fields, fails_creations
from edge_agent.nri.session import RuntimeInfo

MAX_NAMED = 6  # permissions in a reason, which stands in a status


def why_skipped(settings: PluginSettings, socket: Path, runtime: RuntimeInfo | None) -> str:
    """Why the plugin is not registered at this runtime; empty: it is.

    `runtime` None: what listens there has not said its name yet. The name decides in the end, so
    a plugin that may be meant for it connects, and leaves once the runtime has said its name.
    """
    if settings.runtimes is not None:
        return _not_named(settings.runtimes, socket, runtime)
    if settings.permissions is None or runtime is None:
        return ""
    carried = carried_fields(runtime.name, runtime.version, runtime.nri_version)
    if carried is None:
        return ""
    declared = [name for name in PERMISSIONS if name in settings.permissions]
    missing = [name for name in declared if name not in carried]
    # Where a field is merely dropped the rest of the plugin's work still counts.
    if not missing or (len(missing) < len(declared) and not fails_creations(runtime.name)):
        return ""
    more = f" and {len(missing) - MAX_NAMED} more" * (len(missing) > MAX_NAMED)
    return (
        f"{runtime.name} does not carry {', '.join(missing[:MAX_NAMED])}{more}, for which the "
        f'plugin has permission; runtimes = ["{runtime.name}"] registers it all the same'
    )


def _not_named(names: tuple[str, ...], socket: Path, runtime: RuntimeInfo | None) -> str:
    sockets = [name for name in names if name.startswith("/")]
    if _place(str(socket)) in map(_place, sockets):
        return ""
    meant = f"is meant for {', '.join(names)}"
    if len(sockets) == len(names):
        return f"{meant} only"
    if runtime is None or runtime.name.lower() in names:
        return ""
    return f"{meant} only, and this is {runtime.name or 'a runtime without a name'}"


def _place(path: str) -> str:
    """A form in which two names of one socket are equal: /var/run is /run."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path
