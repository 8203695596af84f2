"""Where a lake is: a folder, or a bucket of an object store, reached with what the environment has and nothing else."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UsageError

STORES = ("s3", "s3a", "gs", "az", "abfs", "abfss")
FORMS = "write a folder, s3://bucket/path, gs://bucket/path or az://container/path"


@dataclass(frozen=True, slots=True)
class Address:
    """A lake; `url` as delta-rs takes it."""

    url: str
    folder: Path | None  # None: in an object store

    def table(self, name: str) -> str:
        return f"{self.url}/{name}"

    def __str__(self) -> str:
        return self.url


def parse(text: str) -> Address:
    """Raises UsageError for what is no address, and for credentials in one: they would be written down everywhere."""
    text = text.strip()
    if not text:
        raise UsageError("there is no address of a lake", hint=FORMS)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        folder = Path(rest if separator else text).expanduser().absolute()
        return Address(str(folder), folder)
    if scheme not in STORES:
        raise UsageError(f"{text!r} is no lake", hint=FORMS)
    parts = urlsplit(text)
    secret = parts.query or (parts.username and (parts.password is not None or scheme not in ("abfs", "abfss")))
    if secret or parts.fragment:
        raise UsageError(
            f"the address of a lake takes no credentials: {scheme}://{parts.hostname}{parts.path}",
            hint="they come from the environment: AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, "
            "AZURE_STORAGE_ACCOUNT_NAME ...",
        )
    if not parts.netloc:
        raise UsageError(f"{text!r} names no bucket", hint=FORMS)
    return Address(text.rstrip("/"), None)


def require() -> None:
    """Raise UsageError unless what reads and writes lakes is installed."""
    if importlib.util.find_spec("deltalake") is None:
        raise UsageError("a lake needs the package deltalake", hint="pip install 'wandbsync[lake]'")
