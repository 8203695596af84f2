"""Who signs in where: as the SDK would, said by the SDK itself; and what cannot be right is said without the key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from wandbsync.errors import NotSignedIn, UsageError, WandbsyncError
from wandbsync.sources.api.credentials import DEFAULT_URL, FORMER_URL, Login, find_login
from wandbsync.sources.api.network import Network

KEY, OTHER, THIRD = "a1" * 20, "b2" * 20, "local-" + "c3" * 20
MINE = "https://wandb.example.com"

# name: (environment, files below the home folder, files below the working folder)
CASES: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str]]] = {
    "nothing": ({}, {}, {}),
    "environment": ({"WANDB_API_KEY": KEY}, {}, {}),
    "environment before netrc": (
        {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": MINE},
        {".netrc": f"machine wandb.example.com login user password {OTHER}"},
        {},
    ),
    "netrc by host": (
        {"WANDB_BASE_URL": f"{MINE}/"},
        {
            ".netrc": f"machine api.wandb.ai\n  login user\n  password {KEY}\n"
            f"machine wandb.example.com\n  login user\n  password {OTHER}\n"
        },
        {},
    ),
    "netrc with a port": (
        {"WANDB_BASE_URL": "http://localhost:8080"},
        {".netrc": f"machine localhost login user password {KEY} machine localhost:8080 login u password {OTHER}"},
        {},
    ),
    "netrc for another host": ({"WANDB_BASE_URL": MINE}, {".netrc": f"machine x.y login user password {KEY}"}, {}),
    "netrc named": ({"NETRC": "~/keys/mine"}, {"keys/mine": f"machine api.wandb.ai login user password {KEY}"}, {}),
    "netrc named, not there": ({"NETRC": "~/no"}, {".netrc": f"machine api.wandb.ai login u password {KEY}"}, {}),
    "netrc of windows": ({"WANDB_BASE_URL": MINE}, {"_netrc": f"machine wandb.example.com login u password {KEY}"}, {}),
    "netrc without a password": ({"WANDB_BASE_URL": MINE}, {".netrc": "machine wandb.example.com login user"}, {}),
    "netrc for all others": ({"WANDB_BASE_URL": MINE}, {".netrc": f"default login user password {KEY}"}, {}),
    "user's settings": (
        {"WANDB_API_KEY": KEY},
        {".config/wandb/settings": f"[default]\nbase_url = {MINE}\nentity = team\n"},
        {},
    ),
    "folder's settings over the user's": (
        {"WANDB_API_KEY": KEY},
        {".config/wandb/settings": "[default]\nbase_url = https://no.example\nentity = team\n"},
        {"wandb/settings": f"[default]\nbase_url = {MINE}\n"},
    ),
    "hidden folder's settings": (
        {"WANDB_API_KEY": KEY},
        {},
        {"wandb/settings": "[default]\nentity = no\n", ".wandb/settings": "[default]\nentity = yes\n"},
    ),
    "environment over settings": (
        {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": MINE, "WANDB_ENTITY": "me"},
        {".config/wandb/settings": "[default]\nbase_url = https://no.example\nentity = team\n"},
        {},
    ),
    "settings elsewhere": (
        {"WANDB_API_KEY": KEY, "WANDB_CONFIG_DIR": "~/conf"},
        {"conf/settings": f"[default]\nbase_url = {MINE}\n", ".config/wandb/settings": "[default]\nentity = no\n"},
        {},
    ),
    "key in settings": ({}, {".config/wandb/settings": f"[default]\nbase_url = {MINE}\napi_key = {THIRD}\n"}, {}),
    "other sections and keys": ({"WANDB_API_KEY": KEY}, {".config/wandb/settings": "[else]\nbase_url = x\n"}, {}),
    "web pages elsewhere": (
        {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": MINE, "WANDB_APP_URL": "https://pages.example/"},
        {},
        {},
    ),
    "prefix": ({"WANDB_API_KEY": THIRD, "WANDB_BASE_URL": "http://api.corp.example:80/wandb/"}, {}, {}),
    "token": ({"WANDB_API_KEY": f"{'x' * 20}.{'y' * 20}.{'z' * 20}"}, {}, {}),
    "cloud": ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": FORMER_URL}, {}, {}),
    "cloud of a company": ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "https://api.wandb.corp.example"}, {}, {}),
    "cloud by its pages": ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "https://forge.coreweave.com/api/wandb"}, {}, {}),
    "cloud for testing": ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://api.wandb.test"}, {}, {}),
    "cloud, former key": (
        {"WANDB_BASE_URL": DEFAULT_URL},
        {".netrc": f"machine api.wandb.ai login u password {KEY}"},
        {},
    ),
}

# What the SDK makes of a case, as [base_url, key, entity, app_url], or None without a key.
SDK = """
import json, os, sys
import wandb
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth
found = {}
for name, (env, folder) in json.loads(sys.stdin.read()).items():
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    wandb_setup._singleton = None
    settings = wandb_setup.singleton().settings
    host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
    auth = wbauth.authenticate_session(host=host, source="test", prompt=False, update_session=False)
    found[name] = auth and [auth.host.url, auth.api_key, settings.entity, auth.host.app_url]
print("FOUND" + json.dumps(found))
"""


def lay_out(name: str, folder: Path) -> tuple[dict[str, str], Path]:
    """The environment of a case and its working folder."""
    env, home, here = CASES[name]
    for base, files in (("home", home), ("here", here)):
        (folder / base).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (folder / base / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / base / path).write_text(text)
    return {**env, "HOME": str(folder / "home"), "PATH": os.environ.get("PATH", "")}, folder / "here"


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("logins")
    cases = {}
    for number, name in enumerate(CASES):
        env, here = lay_out(name, base / str(number))
        cases[name] = ({**env, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}, str(here))
    done = subprocess.run([sys.executable, "-c", SDK], input=json.dumps(cases), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.rsplit("FOUND", 1)[1])
    assert sum(login is not None for login in found.values()) > len(found) // 2
    return found


@pytest.mark.skipif(
    tuple(map(int, version("wandb").split(".")[:2])) < (0, 31), reason="older ones ask other hosts of W&B's cloud"
)
@pytest.mark.parametrize("name", CASES)
def test_the_login_is_the_one_the_sdk_finds(
    name: str, sdk: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, here = lay_out(name, tmp_path)
    monkeypatch.chdir(here)
    login = find_login(env)
    expected = sdk[name]
    if name == "netrc named":
        # The SDK sends the older key to the newer host; here it goes to the host that it is kept for.
        expected = [FORMER_URL, *expected[1:]]
    assert (login and [login.base_url, login.key, login.entity, login.app_url]) == expected


def find(tmp_path: Path, base_url: str | None = None, netrc: str | None = None, **env: str) -> Login | None:
    if netrc is not None:
        (tmp_path / ".netrc").write_text(netrc)
    return find_login({"HOME": str(tmp_path), **env}, base_url=base_url)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def test_a_server_named_by_hand_goes_first(tmp_path: Path) -> None:
    login = find(tmp_path, MINE + "/", WANDB_BASE_URL="https://no.example", WANDB_API_KEY=KEY)
    assert login is not None
    assert (login.base_url, login.host) == (MINE, "wandb.example.com")
    assert KEY not in repr(login) + str(login)


def test_empty_variables_are_as_if_unset(tmp_path: Path) -> None:
    netrc = f"machine api.forge.coreweave.com login user password {KEY}"
    login = find(tmp_path, "", netrc, WANDB_API_KEY="", WANDB_BASE_URL=" ", WANDB_ENTITY="", NETRC="")
    assert login == Login(DEFAULT_URL, KEY)
    assert find(tmp_path, netrc="", WANDB_API_KEY=" \n") is None


def test_the_key_of_a_mounted_secret_ends_with_a_newline(tmp_path: Path) -> None:
    login = find(tmp_path, WANDB_API_KEY=f" {KEY}\n")
    assert login is not None and login.key == KEY


def test_a_password_for_all_hosts_that_is_no_key_stays_here(tmp_path: Path) -> None:
    assert find(tmp_path, netrc="default login anonymous password me@home.example") is None
    assert find(tmp_path, netrc="default login anonymous password hunter2") is None


def test_a_key_in_the_settings_is_for_the_server_named_there(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text(f"[default]\nbase_url = {MINE}/\napi_key = {KEY}\n")
    assert find(tmp_path, WANDB_CONFIG_DIR=str(tmp_path)) == Login(MINE, KEY)
    assert find(tmp_path, "https://other.example", WANDB_CONFIG_DIR=str(tmp_path)) is None


@pytest.mark.parametrize("key", ["<your key>", "two words" * 5, "schlüssel" * 5, "$WANDB_KEY", "a" * 39 + ":"])
@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_a_key_with_odd_characters(where: str, key: str, tmp_path: Path) -> None:
    netrc = f'machine api.wandb.ai login user password "{key}"' if where == "netrc" else None
    with pytest.raises(NotSignedIn) as caught:
        find(tmp_path, netrc=netrc, **({} if netrc else {"WANDB_API_KEY": key}))
    check(caught.value, key)
    assert "WANDB_API_KEY" in caught.value.line() if where == "environment" else ".netrc" in caught.value.line()


@pytest.mark.parametrize(
    "url",
    [
        "wandb.example.com",
        "ftp://wandb.example.com",
        "https://",
        "https:///path",
        "https://a b.example",
        "https://wandb.example.com:port",
        "https://wandb.example.com:99999",
        "https://[::1",
        "https://-a.example",
        "https://a..example",
        "https://wändb.example",
        "https://user:secret@wandb.example.com",
        "https://wandb.example.com/?a=b",
        "https://wandb.example.com/#a",
        "https://wandb.ai",
        "https://app.wandb.ai/me",
        "http://api.wandb.ai",
        "0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    for how in ({"base_url": url}, {"WANDB_BASE_URL": url}):
        with pytest.raises(UsageError) as caught:
            find(tmp_path, WANDB_API_KEY=KEY, **how)
        check(caught.value, "secret", url if url.startswith("0") else KEY)
        assert next(iter(how)) in str(caught.value)
        assert "https://api.wandb.ai" in caught.value.hint


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://[::1]:443", "http://wandb_local", "https://a.b/c/d"])
def test_addresses_of_all_kinds(url: str, tmp_path: Path) -> None:
    login = find(tmp_path, url, WANDB_API_KEY=KEY)
    assert login is not None
    assert (login.base_url, login.app_url) == (url, url)


@pytest.mark.parametrize(
    "text", [f"machine a password\nmachyne {KEY}", f"{KEY} hello", f"machine a login b passwort {KEY}"]
)
def test_a_damaged_netrc(text: str, tmp_path: Path) -> None:
    with pytest.raises(NotSignedIn, match=r"\.netrc cannot be read as a netrc file, line \d") as caught:
        find(tmp_path, netrc=text)
    check(caught.value, KEY)


@pytest.mark.parametrize("text", [f"api_key = {KEY}", f"[default]\n{KEY}\n", f"[default]\na = 1\na = {KEY}\n"])
def test_damaged_settings_stop_before_a_key_goes_to_the_wrong_server(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text(text)
    with pytest.raises(UsageError, match="settings cannot be read") as caught:
        find(tmp_path, WANDB_API_KEY=OTHER, WANDB_CONFIG_DIR=str(tmp_path))
    check(caught.value, KEY, OTHER)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".netrc").mkdir()
    with pytest.raises(NotSignedIn, match="directory"):
        find(tmp_path)
    (tmp_path / "settings").write_bytes(b"[default]\nentity = \xff\xfe\n")
    with pytest.raises(UsageError, match="not what it should be"):
        find(tmp_path, WANDB_API_KEY=KEY, WANDB_CONFIG_DIR=str(tmp_path))


def test_a_percent_sign_in_the_settings_is_a_percent_sign(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("[default]\nentity = 100%\nx = %(y)s\n")
    login = find(tmp_path, WANDB_API_KEY=KEY, WANDB_CONFIG_DIR=str(tmp_path))
    assert login is not None and login.entity == "100%"


def test_an_identity_token_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(NotSignedIn, match="WANDB_IDENTITY_TOKEN_FILE"):
        find(tmp_path, WANDB_IDENTITY_TOKEN_FILE="/token")
    assert find(tmp_path, WANDB_IDENTITY_TOKEN_FILE="/token", WANDB_API_KEY=KEY) == Login(DEFAULT_URL, KEY)


def test_an_identity_token_in_the_settings_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("[default]\nidentity_token_file = /token\n")
    with pytest.raises(NotSignedIn, match="identity_token_file in wandb/settings"):
        find(tmp_path, WANDB_CONFIG_DIR=str(tmp_path))


SECRET = "s3cret"
NETWORKS: list[tuple[dict[str, str], str, Network]] = [
    ({}, "", Network()),
    ({"WANDB_INSECURE_DISABLE_SSL": "true"}, "", Network(checked=False)),
    ({"WANDB_INSECURE_DISABLE_SSL": "false"}, "insecure_disable_ssl = true", Network()),
    ({}, "insecure_disable_ssl = 1", Network(checked=False)),
    ({"SSL_CERT_FILE": "/mine.pem"}, "", Network(bundle="/mine.pem")),
    ({"WANDB_X_EXTRA_HTTP_HEADERS": '{"X-Team": "ml"}'}, "", Network(headers={"X-Team": "ml"})),
    ({"WANDB__EXTRA_HTTP_HEADERS": '{"Cookie": "a=b; c=d"}'}, "", Network(headers={"Cookie": "a=b; c=d"})),
    ({}, 'x_extra_http_headers = {"X-Team": "ml"}', Network(headers={"X-Team": "ml"})),
    ({}, "https_proxy = http://u:p@proxy:3128/", Network(proxies={"https": "http://u:p@proxy:3128"})),
    ({"WANDB_HTTP_PROXY": "http://one:1"}, "http_proxy = http://two:2", Network(proxies={"http": "http://one:1"})),
    ({"WANDB__PROXIES": '{"https": "http://proxy:1"}'}, "", Network(proxies={"https": "http://proxy:1"})),
]


@pytest.mark.parametrize(("env", "settings", "expected"), NETWORKS)
def test_connection_settings_are_the_sdks(
    env: dict[str, str], settings: str, expected: Network, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_text(f"[default]\n{settings}\n")
    login = find(tmp_path, WANDB_API_KEY=KEY, WANDB_CONFIG_DIR=str(tmp_path), **env)
    assert login is not None and login.network == expected
    assert "u:p" not in repr(login) and "ml" not in repr(login)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_X_EXTRA_HTTP_HEADERS", f"X-Key: {SECRET}"),
        ("WANDB_X_EXTRA_HTTP_HEADERS", f'["{SECRET}"]'),
        ("WANDB__EXTRA_HTTP_HEADERS", f'{{"X-Key": "{SECRET}\\r\\nEvil: 1"}}'),
        ("WANDB__EXTRA_HTTP_HEADERS", f'{{"X Key": "{SECRET}"}}'),
        ("WANDB_HTTPS_PROXY", f"{SECRET}:3128"),
        ("WANDB__PROXIES", f'{{"https": "nonsense://{SECRET}"}}'),
        ("WANDB__PROXIES", f'{{"ftp": "http://{SECRET}"}}'),
    ],
)
def test_a_connection_setting_that_is_none_is_named_and_not_shown(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        find(tmp_path, WANDB_API_KEY=KEY, **{name: value})
    check(caught.value, SECRET)


@pytest.mark.parametrize(
    ("base_url", "page", "same"),
    [
        (MINE, f"{MINE}/me/demo", True),
        (MINE, "https://wandb.ai/me/demo", False),
        (FORMER_URL, "https://wandb.ai/me/demo", True),
        (DEFAULT_URL, "https://wandb.ai/me/demo", True),
        (DEFAULT_URL, "https://forge.coreweave.com/wandb/me/demo", True),
        (DEFAULT_URL, f"{MINE}/me/demo", False),
        ("http://localhost:8080", "http://localhost:8081/me/demo", False),
    ],
)
def test_a_page_is_one_servers(base_url: str, page: str, same: bool) -> None:
    assert Login(base_url, KEY).has_page(page) is same


def check(error: WandbsyncError, *secrets: str) -> None:
    """One line that says what to try, and no secret anywhere in it."""
    seen: BaseException | None = error
    while seen is not None:
        for secret in secrets:
            assert secret not in repr(seen) + str(seen)
        seen = seen.__cause__
    assert "\n" not in error.line()
    assert error.hint
    assert error.exit_code == (4 if isinstance(error, NotSignedIn) else 2)
