"""Objects on S3 through boto3: find, fetch, put. Credentials come from the standard AWS chain."""

from __future__ import annotations

import fnmatch
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.errors import ConfigurationError, LakeError, MissingError, RecsysError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from boto3.s3.transfer import TransferConfig
    from fsspec import AbstractFileSystem
    from mypy_boto3_s3 import S3Client

    from recsys.settings import ObjectStorage

_WILDCARDS = re.compile(r"[*?\[]")
# Answers to try again after, beside every 5xx: S3 gives some of these as a 400.
_PASSING = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
_ABSENT = {"NoSuchKey", "404"}


@dataclass(frozen=True)
class Stored:
    """One object or file, as its store describes it: enough to tell whether it was taken before."""

    key: str
    etag: str | None
    size: int | None


def split(uri: str) -> tuple[str, str]:
    """Return (bucket, key) of ``s3://bucket/key``.

    Raises:
        ConfigurationError: it is not such an address.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigurationError(f"{uri!r} is not of the form s3://bucket/key")
    return bucket, key


def find(
    pattern: str, storage: ObjectStorage, *, raising: type[RecsysError] = LakeError
) -> list[Stored]:
    """Return the objects that ``s3://bucket/key-or-glob`` names, by key; none is an empty list.

    ``*`` and ``?`` stay within one path segment, ``**`` crosses them.
    """
    bucket, wanted = split(pattern)
    first = _WILDCARDS.search(wanted)
    prefix = wanted[: first.start()] if first else wanted
    matches = re.compile(_as_regex(wanted) if first else re.escape(wanted)).fullmatch
    with _explained(pattern, "list", raising):
        pages = (
            _client(storage).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        found = [
            Stored(f"s3://{bucket}/{entry['Key']}", entry["ETag"].strip('"'), entry["Size"])
            for page in pages
            for entry in page.get("Contents", [])
            if matches(entry["Key"])
        ]
    return sorted(found, key=lambda stored: stored.key)


def download(
    uri: str, path: Path, storage: ObjectStorage, *, raising: type[RecsysError] = LakeError
) -> None:
    """Fetch one object into a file."""
    bucket, key = split(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(uri, "read", raising):
        _client(storage).download_file(bucket, key, str(path))


def upload(
    path: Path, uri: str, storage: ObjectStorage, *, raising: type[RecsysError] = LakeError
) -> None:
    """Put one file as an object, replacing it in one step."""
    bucket, key = split(uri)
    with _explained(uri, "write", raising):
        _client(storage).upload_file(str(path), bucket, key, Config=_one_thread())


def upload_folder(
    folder: Path, uri: str, storage: ObjectStorage, *, once: Collection[str] = ()
) -> None:
    """Put every file under a folder, by its path relative to it.

    Args:
        folder: what to put.
        uri: where to.
        storage: the S3 endpoint.
        once: folders in it, by name, whose files never change: those already there are left out.
    """
    there = {stored.key for name in once for stored in find(f"{uri}/{name}/**", storage)}
    client = _client(storage)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = f"{uri}/{path.relative_to(folder).as_posix()}"
        if target not in there:
            bucket, key = split(target)
            with _explained(target, "write", LakeError):
                client.upload_file(str(path), bucket, key, Config=_one_thread())


def _one_thread() -> TransferConfig:
    """Transfer in the calling thread: ten threads a file cost small files more than they gain."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=False)


def filesystem(storage: ObjectStorage) -> AbstractFileSystem:
    """Return what DuckDB registers to read ``s3://`` without its httpfs extension."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    class S3(ArrowFSWrapper):  # type: ignore[misc]
        protocol = "s3"

    return S3(S3FileSystem(endpoint_override=storage.endpoint_url, region=storage.bucket_region))


def _client(storage: ObjectStorage) -> S3Client:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=storage.endpoint_url,
        region_name=storage.bucket_region,
        config=Config(
            retries={"max_attempts": 4, "mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
            # A custom endpoint seldom has a host name per bucket.
            s3={"addressing_style": "path" if storage.endpoint_url else "auto"},
        ),
    )


def _as_regex(pattern: str) -> str:
    parts = []
    for piece in re.split(r"(\*\*/?|\*|\?|\[[^\]]*\])", pattern):
        if piece.startswith("**"):
            parts.append("(?:.*/)?" if piece.endswith("/") else ".*")
        elif piece == "*":
            parts.append("[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        elif piece.startswith("[") and piece.endswith("]"):
            parts.append(re.sub(r"^\(\?s:|\)\\[zZ]$", "", fnmatch.translate(piece)))
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


@contextmanager
def _explained(uri: str, doing: str, raising: type[RecsysError]) -> Iterator[None]:
    """Turn boto3's errors into ours: what failed on which object, and never a credential."""
    from boto3.exceptions import Boto3Error, RetriesExceededError
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
        ProxyConnectionError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise raising(
            f"could not {doing} {uri}: no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile, or a role"
        ) from error
    except (
        EndpointConnectionError,
        ConnectTimeoutError,
        ProxyConnectionError,
        HTTPClientError,
        IncompleteReadError,
        RetriesExceededError,
    ) as error:
        raise raising(
            f"could not {doing} {uri}: the S3 endpoint does not answer ({type(error).__name__}); "
            "check s3.endpoint_url and the network",
            transient=True,
        ) from error
    except (ClientError, Boto3Error, BotoCoreError, OSError) as error:
        # A failed upload hides the endpoint's answer behind an error of boto3's own.
        answer = error if isinstance(error, ClientError) else error.__context__
        if not isinstance(answer, ClientError):
            why = type(error).__name__  # an error of boto's may tell more than it should
            if isinstance(error, OSError) and error.strerror:
                why = f"{error.strerror}{f', {error.filename}' if error.filename else ''}"
            raise raising(f"could not {doing} {uri}: {why}") from None
        code = answer.response.get("Error", {}).get("Code", "unknown")
        status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _ABSENT and raising is LakeError:
            raising = MissingError
        raise raising(
            f"could not {doing} {uri}: {meaning(code)}",
            transient=code in _PASSING or status == 429 or status >= 500,
        ) from None


MEANINGS = {
    "NoSuchBucket": "no such bucket; check its name and s3.endpoint_url",
    "NoSuchKey": "no such object",
    "404": "no such object",
    "AccessDenied": "access denied; these credentials may not do that",
    "403": "access denied; these credentials may not do that",
    "InvalidAccessKeyId": "the endpoint does not know the access key in use",
    "SignatureDoesNotMatch": "the endpoint refuses the secret key in use",
}


def meaning(code: str) -> str:
    """Say what an endpoint's error code means; its message may repeat the key or the signature."""
    return MEANINGS.get(code, f"the endpoint answered {code}")
