"""What an error of a store means: whether it passes, and what to do. Decided here alone.

An error is never read as absence: only a store that answers "there is no such object" (or a disk
that says so) makes a `MissingError`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError

from recsys.errors import DamagedError, LakeError, MissingError, RecsysError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEANINGS = {
    "NoSuchBucket": "no such bucket; check its name and s3.endpoint_url",
    "NoSuchKey": "no such object",
    "404": "no such object",
    "AccessDenied": "access denied; these credentials may not do that",
    "403": "access denied; these credentials may not do that",
    "InvalidAccessKeyId": "the endpoint does not know the access key in use",
    "SignatureDoesNotMatch": "the endpoint refuses the secret key in use",
    "ExpiredToken": "the session token in use has expired; log in again",
    "PermanentRedirect": "the bucket lies in another region; set s3.region",
    "PreconditionFailed": "the object has changed since it was listed; run this again",
}
_ABSENT = {"NoSuchKey", "404"}
# Answers to try again after, beside every 5xx: S3 gives some of these as a 400.
_PASSING = {
    "InternalError",
    "PreconditionFailed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_LATER = "; run this again later"
_NO_ANSWER = "the S3 endpoint does not answer{}; check s3.endpoint_url and the network"
_SILENCE = ("error sending request", "retry_timeout", "response body")
_OF_THE_DISK = re.compile(r"os error \d+|\[?Errno \d+|\bOs \{ code: \d+")
_IS_GONE = re.compile(r"\.parquet.*(No such file|Errno 2\b|os error 2\b)")
_DAMAGE = re.compile(
    r"Parquet|Truncated record|[Jj]son error|Invalid JSON|EOF while|Requested range|[Cc]orrupt|"
    r"Snappy|decod|thrift|TType|TProtocol|int over"
)
CHECK_DISK = (
    "Check that the lake's folder exists, that this user may write there, and that the disk has "
    "room"
)
_RESTORE = "Put it back from a copy, or restore a version of the table that does not need it"
_COLOUR = re.compile(r"\x1b\[\d*m|↳")


def meaning(code: str) -> str:
    """Say what an endpoint's error code means; its message may repeat the key or the signature."""
    later = _LATER if is_transient(code, int(code) if code.isdigit() else 0) else ""
    return _MEANINGS.get(code, f"the endpoint answered {code}{later}")


def is_transient(code: str, status: int) -> bool:
    """Say whether a request that was answered with this code and HTTP status may do later."""
    return code in _PASSING or status in (408, 429) or status >= 500


@contextmanager
def explain_s3_errors(
    uri: str, verb: str, raising: type[RecsysError] = LakeError
) -> Iterator[None]:
    """Turn boto3's errors into ours: what failed on which object, and never a credential.

    Args:
        uri: the object.
        verb: what is done to it: list, read, write.
        raising: the error to raise. Of an object that does not exist a LakeError becomes a
            MissingError.
    """
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

    failed = f"could not {verb} {uri}"
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise raising(
            f"{failed}: no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
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
        reason = _NO_ANSWER.format(f" ({type(error).__name__})")
        raise raising(f"{failed}: {reason}", transient=True) from error
    except (ClientError, Boto3Error, BotoCoreError, OSError) as error:
        # A failed upload hides the endpoint's answer behind an error of boto3's own.
        answer = error if isinstance(error, ClientError) else error.__context__
        if not isinstance(answer, ClientError):
            reason = type(error).__name__  # an error of boto's may tell more than it should
            if isinstance(error, OSError) and error.strerror:
                reason = f"{error.strerror}{f', {error.filename}' if error.filename else ''}"
            raise raising(f"{failed}: {reason}") from None
        code = answer.response.get("Error", {}).get("Code", "unknown")
        status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = MissingError if code in _ABSENT and raising is LakeError else raising
        raise kind(f"{failed}: {meaning(code)}", transient=is_transient(code, status)) from None


@contextmanager
def explain_delta_errors(action: str, *, is_local: bool) -> Iterator[None]:
    """Turn the Delta writer's errors into ours, which say what failed and what to do.

    Args:
        action: what is done, to which table: "open s3://bucket/lake/models".
        is_local: whether the table lies on a disk.
    """
    try:
        yield
    except CommitFailedError as error:
        raise LakeError(
            f"could not {action}: another run has changed the table since this one read it; "
            "nothing was written, run again",
            transient=True,
        ) from error
    except (DeltaError, OSError, pa.ArrowException) as error:
        reason = _in_one_line(error)
        if not is_local and (fault := _store_fault(reason, action)):
            raise fault from None
        is_gone = _IS_GONE.search(reason)
        if is_local and _OF_THE_DISK.search(reason) and not is_gone:
            raise LakeError(f"could not {action}: {reason}. {CHECK_DISK}") from error
        if is_gone or _DAMAGE.search(reason):
            raise DamagedError(f"could not {action}: {reason}. {_RESTORE}") from error
        raise LakeError(f"could not {action}: {reason}") from error


def _in_one_line(error: Exception) -> str:
    """Return what an error says, without colours, and without the rows of a backtrace."""
    text = " ".join(_COLOUR.sub("", str(error)).split())
    return re.split(r" 0: (?:<unknown>|\w+::)", text)[0]


def _store_fault(reason: str, action: str) -> LakeError | None:
    """Return the error for what object_store says of S3; None where it says nothing of it.

    An answer may repeat the key or the signature: it is told by its code alone.
    """
    status = re.search(r"status code\W+(\d{3})\b", reason)
    # A request that removes many objects is answered for each of them: "(code AccessDenied)".
    code = re.search(r"(?:<Code>|\(code:? (?=[A-Z]))(\w+)", reason)
    if status or code:
        name = code[1] if code else str(status and status[1])
        transient = is_transient(name, int(status[1]) if status else 0)
        return LakeError(f"could not {action}: {meaning(name)}", transient=transient)
    if any(sign in reason for sign in _SILENCE):
        return LakeError(f"could not {action}: {_NO_ANSWER.format('')}", transient=True)
    return None


@contextmanager
def explain_store_errors_of_duckdb() -> Iterator[None]:
    """Turn an error of S3, or of a damaged file, that came by way of DuckDB into ours.

    Ours names the object. DuckDB wraps it into a traceback with rows of carets. Its other errors
    pass as they are.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        reason = _in_one_line(error)
        if own := re.search(
            r"\b(?:Lake|Missing)Error: (could not .*?: [^:]*?)(?: At:| LINE \d|$)", reason
        ):
            raise LakeError(own[1], transient=_has_passed(own[1])) from None
        request = re.search(r"Error performing \w+ https?://[^/ ]+/(\S+)", reason)
        if request and (fault := _store_fault(reason, f"read s3://{request[1]}")):
            raise fault from None
        told = reason.partition(" LINE ")[0]
        of_a_file = isinstance(error, duckdb.InvalidInputException | duckdb.IOException)
        if of_a_file and (file := re.search(r"""['"]([^'"]+\.parquet)['"]""", told)):
            raise DamagedError(f"could not read {file[1]}: {told}. {_RESTORE}") from error
        if type(error) is duckdb.Error and _DAMAGE.search(told):  # the Parquet reader's own
            raise DamagedError(f"a Parquet file is damaged: {told} {_RESTORE}") from error
        raise


def _has_passed(told: str) -> bool:
    return "does not answer" in told or told.endswith(_LATER)
