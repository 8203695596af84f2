"""Which server to ask, and with whose key: the environment, netrc and W&B's settings files, in the SDK's order.

`wandb login` and what people set for the SDK is all that is needed; nothing is written, and no message shows a key.
"""

from __future__ import annotations

import configparser
import netrc
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ...errors import NotSignedIn, UsageError
from .network import Network, network

# W&B's own cloud has one server under several names. The SDK asks the first one since 0.31 and, for keys that an older
# SDK has stored, looks in netrc under the second one too.
DEFAULT_URL = "https://api.forge.coreweave.com"
FORMER_URL = "https://api.wandb.ai"
PAGES = {"wandb.ai", "app.wandb.ai", "api.wandb.ai", "forge.coreweave.com", "api.forge.coreweave.com"}  # one server
CLOUDS = {"forge.coreweave.com": "api.wandb.ai", "qa.forge.coreweave.com": "api.qa.wandb.ai"}


@dataclass(frozen=True, slots=True)
class Login:
    """A server and a key for it."""

    base_url: str  # where the API is, such as https://api.wandb.ai, without a trailing slash
    key: str = field(repr=False)
    entity: str | None = None  # whose projects are meant when nobody is named: WANDB_ENTITY or the settings file's
    pages: str | None = None  # WANDB_APP_URL: where the web pages are, if that does not follow from `base_url`
    network: Network = field(default_factory=Network)

    @property
    def host(self) -> str:
        """The server as messages name it: host and port."""
        return urlsplit(self.base_url).netloc

    @property
    def app_url(self) -> str:
        """Where people look at runs, without a trailing slash."""
        if self.pages:
            return self.pages
        name = urlsplit(self.base_url).hostname
        for cloud, former in CLOUDS.items():
            if name in (cloud, f"api.{cloud}", former):
                return f"https://{cloud}/wandb"
        if "://api.wandb." in self.base_url and "://api.wandb.test" not in self.base_url:
            return self.base_url.replace("://api.", "://")
        return self.base_url.replace("://api.", "://app.")

    def has_page(self, url: str) -> bool:
        """Whether a page of the web is one of this server's."""
        names = {urlsplit(each).netloc.lower() for each in (self.base_url, self.app_url)}
        return urlsplit(url).netloc.lower() in names | (PAGES if names & PAGES else set())


def find_login(env: Mapping[str, str] = os.environ, *, base_url: str | None = None) -> Login | None:
    """The login that the SDK would use here; None if there is no key anywhere.

    `base_url` is a server named by hand and goes before WANDB_BASE_URL and the settings files.
    Raises UsageError if the server's address is none or a settings file cannot be read; NotSignedIn if there is a
    key, but none that can be right.
    """
    settings = _settings(env)
    named = next(
        (
            (origin, text.strip())
            for origin, text in (
                ("base_url", base_url),
                ("WANDB_BASE_URL", env.get("WANDB_BASE_URL")),
                ("base_url in wandb/settings", settings.get("base_url")),
            )
            if text and text.strip()
        ),
        None,
    )
    url = _checked_url(*named) if named else DEFAULT_URL
    key = _checked_key("WANDB_API_KEY", env.get("WANDB_API_KEY"))
    if not key:
        key = _netrc_key(env, url)
        if not key and (former := _former(url)) != url:
            key = _netrc_key(env, former)
            if key and not named:
                url = former  # a key goes to the host it was stored for
    if not key and (not settings.get("base_url") or settings["base_url"].strip().rstrip("/") == url):
        key = _checked_key("api_key in wandb/settings", settings.get("api_key"))
    if not key and (token := _identity(env, settings)):
        raise NotSignedIn(f"{token} signs in the SDK, but not wandbsync", hint="set WANDB_API_KEY")
    if not key:
        return None
    entity = env.get("WANDB_ENTITY") or settings.get("entity")
    pages = env.get("WANDB_APP_URL", "").strip().rstrip("/")
    return Login(url, key, entity or None, pages or None, network(env, settings))


def _identity(env: Mapping[str, str], settings: Mapping[str, str]) -> str | None:
    """Where an identity token is named."""
    if env.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "WANDB_IDENTITY_TOKEN_FILE"
    return "identity_token_file in wandb/settings" if settings.get("identity_token_file") else None


def _checked_url(origin: str, text: str) -> str:
    """An address as it is used; raises UsageError without showing it: somebody may have put a key there."""
    example = f"such as {FORMER_URL}"
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(_name(url)) and (url.port or 1) > 0
    except ValueError:  # a port that is no number, half an IPv6 address
        good = False
    if not good or not re.fullmatch(r"[!-~]+", text):
        raise UsageError(f"{origin} is not the address of a W&B server", hint=example)
    if "@" in url.netloc or url.query or url.fragment:
        raise UsageError(f"{origin} holds more than the address of a W&B server", hint=f"{example}, and nothing else")
    name = (url.hostname or "").lower()
    if name in CLOUDS:
        return f"https://api.{name}"
    if name == "wandb.ai" or name.endswith(".wandb.ai"):
        if not name.startswith("api."):
            raise UsageError(f"{origin} names web pages, not W&B's API", hint=f"it is {FORMER_URL}")
        if url.scheme != "https":
            raise UsageError(f"{origin} would send the key unprotected", hint=f"it is {FORMER_URL}, with https")
    return text.rstrip("/")


def _name(url: SplitResult) -> str | None:
    """The host name, if it can be one."""
    name = url.hostname or ""
    if ":" in name:
        return name
    labels = name.rstrip(".").split(".")
    return name if all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", label) for label in labels) else None


def _former(url: str) -> str:
    """The older name of a server of W&B's cloud; the address itself for all others."""
    name = (urlsplit(url).hostname or "").removeprefix("api.")
    return f"https://{CLOUDS[name]}" if name in CLOUDS else url


def _checked_key(origin: str, text: str | None) -> str | None:
    """A key as it is sent: the SDK's rule but for the length, which is the server's affair."""
    key = (text or "").strip()
    if key and not re.fullmatch(r"[A-Za-z0-9_.-]+", key):
        raise NotSignedIn(
            f"{origin} holds something that cannot be an API key: keys have only letters, digits, - and _",
            hint="copy the key again, or run `wandb login`",
        )
    return key or None


def _netrc_key(env: Mapping[str, str], url: str) -> str | None:
    """The password netrc has for a server."""
    home = _home(env)
    places = [home / ".netrc", home / "_netrc"]
    if env.get("NETRC"):
        places = [_expanded(env, env["NETRC"])]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        return None
    try:
        entries = netrc.netrc(path)
    except netrc.NetrcParseError as error:
        # Its text may quote what it stumbled over, and that may be a password.
        raise NotSignedIn(f"{path} cannot be read as a netrc file, line {error.lineno}") from None
    except (OSError, ValueError) as error:
        raise NotSignedIn(f"{path} cannot be read: {_reason(error)}") from error
    host = urlsplit(url).netloc
    found = entries.authenticators(host)
    password = (found[2] or "").strip() if found else ""
    if host not in entries.hosts and not re.fullmatch(r"[\w.-]{40,}", password, re.ASCII):
        return None  # the entry for every other host: ftp's "me@home" is not for W&B's eyes
    return _checked_key(f"the entry for {host} in {path}", password)


def _settings(env: Mapping[str, str]) -> dict[str, str]:
    """What W&B's settings files say: the one of this folder over the one of the user."""
    folder = env.get("WANDB_CONFIG_DIR")
    own = _expanded(env, folder) if folder else _home(env) / ".config" / "wandb"
    here = Path(".wandb" if Path(".wandb").exists() else "wandb")
    found: dict[str, str] = {}
    for path in (own / "settings", here / "settings"):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except (OSError, ValueError, configparser.Error) as error:
            # To go on without it could send the key of one server to another.
            raise UsageError(f"{path} cannot be read: {_reason(error)}", hint="mend or remove it") from None
        if parser.has_section("default"):
            found |= dict(parser.items("default"))
    return found


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without quoting it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    line = getattr(error, "lineno", None)
    return f"line {line} is not as it should be" if line else "it is not what it should be"


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def _expanded(env: Mapping[str, str], text: str) -> Path:
    """A path with `~` for the home folder of this environment."""
    return _home(env) / text[2:] if text.startswith("~/") else Path(text)
