"""An OCI image made of nothing but busybox: no registry, no builder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

ENTRYPOINT = ("/bin/sleep", "1000000")
AMD64 = {"architecture": "amd64"}


def image_archive(
    reference: str,
    busybox: bytes,
    applets: Sequence[str],
    platform: Mapping[str, str] = AMD64,
) -> bytes:
    """A tar as `ctr images import` takes it, with busybox and links to it in /bin."""
    layer = _tar({"bin/busybox": busybox}, links={f"bin/{applet}": "busybox" for applet in applets})
    config = _json(
        {
            **platform,
            "os": "linux",
            "config": {"Entrypoint": ENTRYPOINT, "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("config.v1+json", config),
            "layers": [_descriptor("layer.v1.tar", layer)],
        }
    )
    names = {"io.containerd.image.name": reference}
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{**_descriptor("manifest.v1+json", manifest), "annotations": names}],
        }
    )
    blobs = {_digest(each): each for each in (layer, config, manifest)}
    return _tar(
        {
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
            "index.json": index,
            **{f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()},
        }
    )


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {
        "mediaType": f"application/vnd.oci.image.{kind}",
        "digest": _digest(content),
        "size": len(content),
    }


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o755
            tar.addfile(file, io.BytesIO(content))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return out.getvalue()
