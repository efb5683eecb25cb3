"""Take the time of day out of an image, so that the same layers always are the same image.

BuildKit since 0.11 does that itself when it is told SOURCE_DATE_EPOCH; older engines write the
moment of the build into the configuration, and the image's id is that file's hash.
"""

import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def moment(seconds: int) -> str:
    """Return a moment, in seconds since 1970, as configurations of images have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sealed(config: bytes, created: str) -> bytes:
    """Return an image's configuration in which every time is `created`."""
    told: dict[str, Any] = json.loads(config)
    told["created"] = created
    told["history"] = [{**entry, "created": created} for entry in told.get("history", [])]
    for chance in ("container", "container_config", "docker_version"):
        told.pop(chance, None)
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def seal(saved: Path, target: Path, created: str) -> str:
    """Write the archive of `docker save` again with a sealed configuration; return the image's id."""
    with tarfile.open(saved) as source, tarfile.open(target, "w") as result:
        [manifest] = json.loads(_content(source, "manifest.json"))
        config = sealed(_content(source, manifest["Config"]), created)
        digest = hashlib.sha256(config).hexdigest()
        told = {**manifest, "Config": f"{digest}.json"}
        _add(result, "manifest.json", json.dumps([told]).encode())
        _add(result, told["Config"], config)
        for name in dict.fromkeys(manifest["Layers"]):
            member = source.getmember(name)
            while member.issym() or member.islnk():
                member = source.getmember(str(Path(name).parent.joinpath(member.linkname)))
            plain = tarfile.TarInfo(name)
            plain.size = member.size
            result.addfile(plain, source.extractfile(member))
    return f"sha256:{digest}"


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    return file.read() if file else b""


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
