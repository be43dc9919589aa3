"""A release as an OCI artifact: manifest, configuration and one Wasm module. Pure.

Written as the CNCF's "Wasm OCI Artifact layout" says; read more generously, since `oras push`
without options writes an empty configuration. All bytes are the same for the same release.
"""

import re
from typing import NamedTuple, TypedDict

from edge_agent import strictjson
from edge_agent.store.digest import Digest

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.wasm.config.v0+json"
MODULE_TYPE = "application/wasm"
# A manifest of one layer has 0.7 KB; `oras` and `skopeo` add a few annotations.
MAX_MANIFEST_BYTES = 64 << 10

REF = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"

_TAG_UNFIT = re.compile(r"[^A-Za-z0-9._-]")  # of distribution-spec's tags
_SHOWN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # names and versions


class Descriptor(TypedDict):
    """A descriptor of a blob (image-spec, descriptor.md); the fields used here."""

    mediaType: str
    digest: Digest
    size: int
    annotations: dict[str, str]


class Stored(NamedTuple):
    """One release as it lies in a layout. `digest` is the module's."""

    name: str
    version: str
    digest: Digest
    size: int
    manifest: Digest


def descriptor(media_type: str, digest: Digest, size: int, **annotations: str) -> Descriptor:
    return {
        "mediaType": media_type,
        "digest": digest,
        "size": size,
        "annotations": annotations,
    }


def config(module: Digest) -> bytes:
    """The artifact's configuration, for the module of this digest."""
    return strictjson.dumps(
        {
            # Some readers demand it; a real time would make another digest each time.
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip1",  # the guidance: also for modules without WASI
            "layerDigests": [module],
        }
    )


def manifest(name: str, version: str, config: Descriptor, module: Descriptor) -> bytes:
    """The manifest of a release; `oras pull` names the module's file after its title."""
    return strictjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _plain(config),
            "layers": [{**module, "annotations": {TITLE: f"{name}.wasm"}}],
            "annotations": {TITLE: name, VERSION: version},
        }
    )


def entry(manifest: Descriptor, name: str, version: str) -> Descriptor:
    """How the index names a manifest. Not by its title: `oras pull` would make a file of it."""
    annotations = {REF: tag(name, version), VERSION: version}
    return {**manifest, "annotations": annotations}


def tag(name: str, version: str) -> str:
    """What `oras` and `skopeo` write after the layout's path: NAME-VERSION."""
    text = _TAG_UNFIT.sub("_", f"{name}-{version}")
    return (text if text[0] not in ".-" else f"_{text}")[:128]


def index(entries: list[Descriptor]) -> bytes:
    """index.json."""
    manifests = [_plain(each) for each in entries]
    return strictjson.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})


def added(entries: list[Descriptor], new: Descriptor) -> list[Descriptor]:
    """The entries with `new` at the end, which takes its tag from an entry that had it."""
    found = []
    for each in entries:
        if each["digest"] == new["digest"]:
            continue
        annotations = dict(each["annotations"])
        if annotations.get(REF) == new["annotations"].get(REF):
            annotations.pop(REF, None)
        found.append({**each, "annotations": annotations})
    return [*found, new]  # type: ignore[list-item]


def read_index(data: bytes) -> list[Descriptor]:
    """The manifests that an index.json names; other things in it are passed over. ValueError."""
    return read_indexes(data)[0]


def read_indexes(data: bytes) -> tuple[list[Descriptor], list[Descriptor]]:
    """The manifests that an index.json names, and the further indexes. ValueError."""
    value = _object(data)
    manifests = value.get("manifests")
    if not isinstance(manifests, list):
        raise ValueError("manifests is not a list")
    found = [each for item in manifests if (each := _descriptor(item))]
    return (
        [
            each
            for each in found
            if each["mediaType"] == MANIFEST_TYPE and each["size"] <= MAX_MANIFEST_BYTES
        ],
        [each for each in found if each["mediaType"] == INDEX_TYPE],
    )


def read_manifest(data: bytes) -> dict[str, object]:
    """A manifest's values. ValueError."""
    return _object(data)


def stored(entry: Descriptor, manifest: dict[str, object]) -> Stored:
    """The release that a manifest describes. ValueError: it is no Wasm artifact."""
    module = _module(manifest)
    texts = {
        **entry["annotations"],
        **_annotations(manifest.get("annotations")),
    }
    file = module["annotations"].get(TITLE, "").rpartition("/")[2].removesuffix(".wasm")
    return Stored(
        name=_first(texts.get(TITLE), file, module["digest"].short),
        version=_first(texts.get(VERSION), entry["annotations"].get(REF), "unknown"),
        digest=module["digest"],
        size=module["size"],
        manifest=entry["digest"],
    )


def digests(entry: Descriptor, manifest: dict[str, object]) -> frozenset[Digest]:
    """All blobs of a release. ValueError."""
    configuration = _descriptor(manifest.get("config"))
    if configuration is None:
        raise ValueError("a manifest without a configuration")
    return frozenset((entry["digest"], configuration["digest"], _module(manifest)["digest"]))


def _module(manifest: dict[str, object]) -> Descriptor:
    layers = manifest.get("layers")
    found = [_descriptor(item) for item in layers] if isinstance(layers, list) else []
    if len(found) != 1 or found[0] is None or found[0]["mediaType"] != MODULE_TYPE:
        raise ValueError(f"not a Wasm artifact: one layer of {MODULE_TYPE} is wanted")
    return found[0]


def _descriptor(value: object) -> Descriptor | None:
    """A descriptor of a safe form, or None."""
    if not isinstance(value, dict):
        return None
    media_type, digest, size = (value.get(name) for name in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str) or not isinstance(digest, str) or not digest:
        return None
    if type(size) is not int or size < 0:
        return None
    try:
        named = Digest(digest)
    except ValueError:
        return None
    return descriptor(media_type, named, size, **_annotations(value.get("annotations")))


def _annotations(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def _first(*texts: str | None) -> str:
    return next((text for text in texts if text and _SHOWN.fullmatch(text)), "unnamed")


def _plain(found: Descriptor) -> dict[str, object]:
    """Without annotations if there are none."""
    return {name: value for name, value in found.items() if name != "annotations" or value}


def _object(data: bytes) -> dict[str, object]:
    value = strictjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
