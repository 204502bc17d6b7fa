"""Whether Prefect can work here: its folder, and the server that PREFECT_API_URL names."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import ConfigurationError, RecsysError

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_home() -> None:
    """Refuse a PREFECT_HOME that can't be used; call it before Prefect is imported.

    Raises:
        ConfigurationError: it is not a folder that we may write to.
    """
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise ConfigurationError(
            f"Prefect can't keep its files in {home}: {error.strerror}; set PREFECT_HOME to a "
            "folder that you may write to"
        ) from error


def configured_server() -> str:
    """Return the address of the Prefect server that PREFECT_API_URL names; it can be used.

    Raises:
        ConfigurationError: none is named, or it can't be used.
    """
    from prefect.settings import PREFECT_API_URL

    api: str | None = PREFECT_API_URL.value()
    if not api:
        raise ConfigurationError(
            "no Prefect server is named: set PREFECT_API_URL, as `recsys serve` prints it"
        )
    check_server(api)
    return api


def check_server(api: str) -> None:
    """Refuse a configured Prefect server that can't be used.

    Raises:
        ConfigurationError: it does not answer, refuses us, or is older than our Prefect.
    """
    import httpx
    import prefect
    from packaging.version import InvalidVersion, Version
    from prefect.client.orchestration import get_client

    where = f"PREFECT_API_URL={without_user(api)}"
    try:
        with get_client(sync_client=True) as client:
            version = Version(client.api_version())
    except httpx.HTTPStatusError as error:
        problem = f"it answers {error.response.status_code}"
        if error.response.status_code in (401, 403):
            problem = "it wants its password; set PREFECT_API_AUTH_STRING"
        raise ConfigurationError(f"{where} can't be used: {problem}") from error
    except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, OSError) as error:
        raise ConfigurationError(
            f"{where} does not answer: start that Prefect server, or unset PREFECT_API_URL and "
            "recsys starts one of its own"
        ) from error
    except (InvalidVersion, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where} can't be used: no Prefect server answers") from error
    ours = Version(prefect.__version__)
    if version.release[:2] < ours.release[:2]:
        raise ConfigurationError(
            f"{where} can't be used: that server is Prefect {version}, and this is {ours}; upgrade "
            "the server"
        )


@contextmanager
def one_sentence_for_server_faults() -> Iterator[None]:
    """Turn an error of the Prefect server into a refusal: a person needs no traceback of it.

    Raises:
        RecsysError: the server answered an error, or did not answer.
    """
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        told = str(error).partition("\n")[0] or type(error).__name__
        raise RecsysError(
            f"the Prefect server failed: {told}; it may be busy or gone: look at it, and do this "
            "again"
        ) from error


def without_user(address: str) -> str:
    """Return an address without what may be a name and a password, up to its last @."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else address
