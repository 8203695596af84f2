"""What an answer to a GraphQL request says: its data, or why there is none. No input or output happens here."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from ...errors import NotPermitted, NotSignedIn, RateLimited, ServerError
from .credentials import Login
from .failures import Failed

STRANGE = 3  # attempts where something else than W&B seems to answer
OWN_FAULT = 2  # attempts where W&B itself says that it could not: another one seldom helps
_NOT_SIGNED_IN = re.compile(r"not (logged|signed) in|unauthenticated|invalid api key", re.IGNORECASE)
_NOT_PERMITTED = re.compile(r"permission denied|access denied|not permitted|unauthori[sz]ed|forbidden", re.IGNORECASE)
BETWEEN = (
    "a proxy or a login page may be in between: check WANDB_BASE_URL, HTTPS_PROXY and, "
    "if it wants a header, WANDB_X_EXTRA_HTTP_HEADERS"
)


def data_of(status: int, headers: Mapping[str, str], content: bytes, login: Login) -> dict[str, Any]:
    """The `data` of an answer; header names in lower case. Raises Failed, whose error never quotes the key."""
    payload, page = _parsed(content), is_page(headers, content)
    if status != 200:
        raise _refused(status, headers, payload or {}, login, page=page)
    if payload is None:
        what = "a web page" if page else "something else"
        error = ServerError(f"{login.host} answered {what} instead of JSON", hint=BETWEEN, status=status)
        raise Failed(error, attempts=STRANGE)
    messages, data = _messages(payload, login), payload.get("data")
    if isinstance(data, dict) and not messages:
        return data
    if _NOT_SIGNED_IN.search(_short(messages)):
        raise _refused(401, headers, payload, login)
    if _NOT_PERMITTED.search(_short(messages)):
        raise _refused(403, headers, payload, login)
    error = ServerError(
        f"{login.host} says: {_short(messages) or 'neither data nor errors'}",
        messages=messages,
        data=data if isinstance(data, dict) else None,
    )
    raise Failed(error, attempts=1 if messages else STRANGE)


def wrong_key(login: Login) -> NotSignedIn:
    hint = f"set another with `wandb login --relogin` or WANDB_API_KEY; {login.app_url}/authorize has it"
    return NotSignedIn(f"{login.host} does not accept the API key", hint=hint)


def _refused(
    status: int, headers: Mapping[str, str], payload: Mapping[str, Any], login: Login, *, page: bool = False
) -> Failed:
    """What a status other than 200 means."""
    messages = _messages(payload, login)
    host, text = login.host, _short(messages)
    says = f"{host} answers {named(status)}" + (f": {text}" if text else "")
    hint = "check WANDB_BASE_URL: this may not be a W&B server"
    if status == 429:
        return Failed(RateLimited(f"{host} refuses requests: there were too many"), refusal=True)
    if status == 500 and "errors" in payload:  # of GraphQL itself, as for a run that W&B cannot read: it stays so
        return Failed(ServerError(says, hint="try again later", status=status, messages=messages), attempts=OWN_FAULT)
    if passing(status):
        hint = BETWEEN if page else "try again later"
        return Failed(ServerError(says, hint=hint, status=status, messages=messages))
    if 300 <= status < 400:
        place = "another place"
        with contextlib.suppress(ValueError):
            target = urlsplit(headers.get("location", ""))
            place = f"{target.scheme}://{target.hostname}" if target.hostname else place
        says, hint = f"{host} sends us on to {place}", "if that is the server's address, set WANDB_BASE_URL to it"
        hint += "; a login page in between may want a header: WANDB_X_EXTRA_HTTP_HEADERS"
    elif status == 401:
        return Failed(wrong_key(login), attempts=1)
    elif status == 403 and not page:
        return Failed(NotPermitted(f"{host} does not permit this" + (f": {text}" if text else "")), attempts=1)
    elif status == 407:
        hint = "name the proxy with user and password in HTTPS_PROXY"
    elif page and status != 404:
        says, hint = f"{says}, with a web page", BETWEEN
    elif messages:
        hint = ""
    return Failed(ServerError(says, hint=hint, status=status, messages=messages), attempts=1)


def is_page(headers: Mapping[str, str], content: bytes = b"") -> bool:
    """Whether this is for browsers."""
    return "html" in headers.get("content-type", "") or content.lstrip()[:1] == b"<"


def passing(status: int) -> bool:
    """Whether the same request may be answered next time."""
    return status >= 500 or status in (408, 425, 429)


def named(status: int) -> str:
    """A status with its name: 502 Bad Gateway."""
    with contextlib.suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def _messages(payload: Mapping[str, Any], login: Login) -> list[str]:
    """What an answer complains of, each on one line, without the key, should it be quoted there."""
    found = payload.get("errors") or payload.get("error") or []
    secrets = (login.key, base64.b64encode(f"api:{login.key}".encode()).decode())
    lines = []
    for error in found if isinstance(found, list) else [found]:
        text = error.get("message") if isinstance(error, dict) else error
        line = " ".join(str(text or "an error without a message").split())
        for secret in secrets:
            line = line.replace(secret, "***")
        lines.append(line)
    return lines


def _short(messages: list[str]) -> str:
    text = "; ".join(messages)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _parsed(content: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        found = json.loads(content)
        if _HALF.search(content):
            found = _speakable(found)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def _speakable(value: Any) -> Any:
    """The value with what is half a character replaced; what runs have logged is JSON inside a text, and stays."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return list(map(_speakable, value))
    return {_speakable(name): _speakable(one) for name, one in value.items()} if isinstance(value, dict) else value
