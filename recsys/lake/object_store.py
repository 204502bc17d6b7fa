"""Objects on S3 through boto3: find, download, upload. Credentials come from the AWS chain."""

from __future__ import annotations

import fnmatch
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from recsys.errors import ConfigurationError, LakeError, RecsysError
from recsys.lake.faults import explain_s3_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        GetObjectOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        ObjectTypeDef,
    )
    from pyarrow.fs import S3FileSystem

    from recsys.settings import ObjectStorage

Answer = TypeVar("Answer")

AT_ONCE = 16
"""Requests that are under way at the same time, where they do not depend on each other."""
_CHUNK = 1 << 20  # bytes
_WILDCARDS = re.compile(r"[*?\[]")


# Answers to a put under the condition that there is no such object.
_EXISTS = {"PreconditionFailed", "ConditionalRequestConflict", "412"}


@dataclass(frozen=True)
class Listed:
    """One object: its address, its size in bytes, and when it was written last."""

    uri: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Stored:
    """One object or file, as its store describes it: enough to tell whether it was read before."""

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
    bucket, glob = split(pattern)
    with explain_s3_errors(pattern, "list", raising):
        objects = [
            Stored(f"s3://{bucket}/{entry['Key']}", entry["ETag"].strip('"'), entry["Size"])
            for entry in _entries(bucket, glob, storage)
        ]
    return sorted(objects, key=lambda stored: stored.key)


def _entries(bucket: str, glob: str, storage: ObjectStorage) -> Iterator[ObjectTypeDef]:
    first = _WILDCARDS.search(glob)
    prefix = glob[: first.start()] if first else glob
    matches = re.compile(_as_regex(glob) if first else re.escape(glob)).fullmatch
    for page in _pages(bucket, prefix, storage):
        yield from (entry for entry in page.get("Contents", []) if matches(entry["Key"]))


def _pages(
    bucket: str, prefix: str, storage: ObjectStorage
) -> Iterable[ListObjectsV2OutputTypeDef]:
    """Return what the store answers about the objects whose keys begin so, page by page."""
    paginator = _client(storage).get_paginator("list_objects_v2")
    return paginator.paginate(Bucket=bucket, Prefix=prefix)


def modified(pattern: str, storage: ObjectStorage) -> dict[str, datetime]:
    """Return when each object that `find` finds was written last, by its address."""
    bucket, glob = split(pattern)
    with explain_s3_errors(pattern, "list"):
        return {
            f"s3://{bucket}/{entry['Key']}": entry["LastModified"]
            for entry in _entries(bucket, glob, storage)
        }


def listed(prefix: str, storage: ObjectStorage) -> tuple[list[Listed], datetime]:
    """Return the objects whose addresses begin so, by address, and the time of the store."""
    bucket, start = split(prefix)
    objects, now = [], datetime.min.replace(tzinfo=UTC)
    with explain_s3_errors(prefix, "list"):
        for page in _pages(bucket, start, storage):
            now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            objects += [
                Listed(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["LastModified"])
                for entry in page.get("Contents", [])
            ]
    return sorted(objects, key=lambda each: each.uri), now


def get(uri: str, storage: ObjectStorage) -> bytes:
    """Return what a small object holds."""
    bucket, key = split(uri)

    def read() -> bytes:
        return _client(storage).get_object(Bucket=bucket, Key=key)["Body"].read()

    with explain_s3_errors(uri, "read"):
        return _to_its_end(read, storage)


def put(
    uri: str,
    body: bytes,
    storage: ObjectStorage,
    *,
    once: bool = False,
    content_type: str | None = None,
) -> bool:
    """Write a small object; a browser shows it by its type.

    ``once``: only where there is none yet. Say whether it was written.
    """
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    with explain_s3_errors(uri, "write"):
        try:
            options: dict[str, Any] = {"IfNoneMatch": "*"} if once else {}
            if content_type:
                options["ContentType"] = content_type
            _client(storage).put_object(Bucket=bucket, Key=key, Body=body, **options)
        except ClientError as error:
            if once and error.response["Error"]["Code"] in _EXISTS:
                return False
            raise
    return True


def delete(uris: Iterable[str], storage: ObjectStorage) -> None:
    """Delete objects; one that is not there is no error."""
    client = _client(storage)
    for uri in uris:
        bucket, key = split(uri)
        with explain_s3_errors(uri, "delete"):
            client.delete_object(Bucket=bucket, Key=key)


def download(
    uri: str,
    path: Path,
    storage: ObjectStorage,
    *,
    etag: str | None = None,
    raising: type[RecsysError] = LakeError,
) -> None:
    """Fetch one object into a file: the one of this ETag, where it is given, and no other."""
    bucket, key = split(uri)
    path.parent.mkdir(parents=True, exist_ok=True)

    def read() -> GetObjectOutputTypeDef:
        answer = _client(storage).get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
        with path.open("wb") as file:
            for chunk in answer["Body"].iter_chunks(_CHUNK):
                file.write(chunk)
        return answer

    with explain_s3_errors(uri, "read", raising):
        if etag is None:
            _client(storage).download_file(bucket, key, str(path))  # which reads to the end itself
            return
        answer = _to_its_end(read, storage)
        # An endpoint that ignores the condition gives whatever is there now.
        if answer["ETag"].strip('"') != etag or path.stat().st_size != answer["ContentLength"]:
            raise raising(f"{uri} changed while it was read; run this again", transient=True)


def read_start(uri: str, n_bytes: int, storage: ObjectStorage) -> tuple[bytes, int]:
    """Return the first bytes of an object, and the size of all of it, with one request."""
    bucket, key = split(uri)

    def read() -> tuple[bytes, int]:
        answer = _client(storage).get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{n_bytes - 1}")
        start = answer["Body"].read()
        return start, int(answer.get("ContentRange", f"/{len(start)}").rpartition("/")[2])

    with explain_s3_errors(uri, "read"):
        return _to_its_end(read, storage)


def _to_its_end(read: Callable[[], Answer], storage: ObjectStorage) -> Answer:
    """Read an object, and again where its answer broke off: boto itself tries no more by then."""
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError

    for _ in range(storage.retries):
        with suppress(IncompleteReadError, ResponseStreamingError):
            return read()
    return read()


def upload(
    path: Path, uri: str, storage: ObjectStorage, raising: type[RecsysError] = LakeError
) -> None:
    """Put one file as an object, replacing it in one step."""
    bucket, key = split(uri)
    with explain_s3_errors(uri, "write", raising):
        _client(storage).upload_file(str(path), bucket, key, Config=_one_thread())


def upload_folder(folder: Path, uri: str, storage: ObjectStorage) -> None:
    """Put every file under a folder, by its path relative to it."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        upload(path, f"{uri}/{path.relative_to(folder).as_posix()}", storage)


def _one_thread() -> TransferConfig:
    """Transfer in the calling thread: ten threads a file cost small files more than they gain."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=False)


def filesystem(storage: ObjectStorage) -> S3FileSystem:
    """Return what reads parts of objects, from several threads at once."""
    from pyarrow import fs

    return fs.S3FileSystem(
        endpoint_override=storage.endpoint_url,
        region=storage.bucket_region,
        connect_timeout=storage.connect_timeout,
        request_timeout=storage.timeout.total_seconds(),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=storage.retries + 1),
    )


def _client(storage: ObjectStorage) -> S3Client:
    """Return the one client of an endpoint, as long as the environment's credentials stay."""
    chain = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _make_client(storage, chain, os.getpid())


@cache
def _make_client(storage: ObjectStorage, chain: object, process: int) -> S3Client:  # noqa: ARG001 - part of the key
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=storage.endpoint_url,
        region_name=storage.bucket_region,
        config=Config(
            retries={"total_max_attempts": storage.retries + 1, "mode": "standard"},
            connect_timeout=storage.connect_timeout,
            read_timeout=storage.timeout.total_seconds(),
            max_pool_connections=AT_ONCE,
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
