"""The folder of a plugin's source: made by `edge-agent plugin new`, built by `plugin build`."""

import os
import tempfile
from pathlib import Path

from edge_agent.authors import compilers, manifest
from edge_agent.authors.manifest import Language
from edge_agent.errors import ConfigError
from edge_agent.store import files
from edge_agent.wasm.module import inspect

TEMPLATES = Path(__file__).with_name("templates")
# In a template's text and names: what the plugin is called. Of go.mod the name of its original.
_NAME, _MODULE = "PLUGIN_NAME", "go-annotator"


def create(folder: Path, name: str, language: Language) -> list[Path]:
    """A folder that can be built and tested at once; its files. ConfigError: the name is none, or
    something is there already."""
    if not TEMPLATES.is_dir():
        raise ConfigError(
            "the package of a board has no templates: pip install edge-agent where plugins are made"
        )
    text = _rendered((TEMPLATES / language / manifest.FILE).read_text(), name)
    module = manifest.parse(folder / manifest.FILE, text).module_name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{folder}: is there already; nothing is overwritten") from None
    except OSError as error:
        raise ConfigError(f"{folder}: {os.strerror(error.errno or 0)}") from error
    written = []
    for source in (TEMPLATES / language, TEMPLATES / "all"):
        # `**` does not follow symbolic links.
        for path in (
            each
            for wanted in ("**/*", "sdk/*", "sdk/src/*")
            for each in sorted(source.glob(wanted))
        ):
            if path.is_dir():
                continue
            target = _target(folder, source, path, name, module)
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write(target, _rendered(path.read_text(), name).encode(), mode=0o644)
            written.append(target)
    return written


def build(folder: Path, *, debug: bool = False) -> Path:
    """Compile a plugin and put its plugin.toml into the module, NN-name.wasm in its folder.

    With `debug` the module is larger, and a trap tells the lines of its source. ConfigError:
    plugin.toml is wrong, the language's tool is missing, or it failed.
    """
    path = folder / manifest.FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; edge-agent plugin new makes it")
    said = manifest.read(path)
    target = folder / said.module_name
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as name:
        place = Path(name) / said.module_name
        made = compilers.compiled(said.language, folder, place, debug=debug)
        module = manifest.embed(made.read_bytes(), path.read_text())
    exported = inspect(module).functions
    for event in said.events:
        if f"plugin_{event}" not in exported:
            raise ConfigError(f"{path}: events: the module does not export plugin_{event}")
    files.write(target, module, mode=0o644)
    return target


def _target(folder: Path, source: Path, path: Path, name: str, module: str) -> Path:
    """Where a template's file goes: `plugin.cases.toml` is NN-name.cases.toml in the folder."""
    relative = path.relative_to(source)
    plain = str(relative).replace("dot-", ".").replace(_NAME, name)
    return folder / plain.replace("PLUGIN_MODULE", module.removesuffix(".wasm"))


def _rendered(text: str, name: str) -> str:
    return text.replace(_NAME, name).replace(_MODULE, name)
