"""deployments/iam-policy.json grants what runs on S3 ask for, and nothing else.

moto's server checks signatures, actions and resources as AWS does, with three gaps:

- It does not look at conditions. The prefixes that a key may list are compared here, with the lists
  that runs ask for and with those that must be refused.
- It asks for the right to delete several objects at once on the bucket, where AWS asks for it on
  each object. The policy gets one more statement for it here, without which moto refuses all.
- A missing object is answered with 404 by moto, whoever asks. AWS does so only where the key may
  list that name, and says 403 otherwise, which is an error here and never absence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import httpx
import pyarrow as pa
import pytest
from botocore.exceptions import ConnectionClosedError

from recsys import columns
from recsys.errors import MissingError, RecsysError
from recsys.lake import object_store
from recsys.lake.maintenance import remove_old_versions
from recsys.lake.schemas import schemas
from recsys.lake.tables import Lake
from recsys.operations.erase import erase
from recsys.operations.maintain import maintain
from recsys.operations.runs import record_run
from recsys.registry.retrain import train
from recsys.settings import Maintenance, ObjectStorage, Training
from tests import lakes, servers
from tests.benchmarks.requests import open_shop

FILE = Path(__file__).parents[1] / "deployments" / "iam-policy.json"
PLACES = {
    "LAKE_BUCKET": "lake",
    "LAKE_PREFIX": "nightly",
    "SOURCE_BUCKET": "shop",
    "SOURCE_PREFIX": "events",
}
LAKE, SOURCE = "s3://lake/nightly", "s3://shop/events"
ABORT = ("ReadAndWriteTheLake", "s3:AbortMultipartUpload")

Policy = dict[str, Any]
Grant = tuple[str, str]  # the name of a statement, and one of its actions


def read_policy(without: Grant | None = None) -> Policy:
    """Return the policy for the lake and the source of these tests, or what is left of it."""
    text = FILE.read_text()
    for placeholder, name in PLACES.items():
        text = text.replace(placeholder, name)
    found: Policy = json.loads(text)
    for statement in found["Statement"]:
        kept = [one for one in actions(statement) if (statement["Sid"], one) != without]
        statement["Action"] = kept or ["s3:ListAllMyBuckets"]  # a statement has an action
    return found


def actions(statement: Policy) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


def grants() -> list[Grant]:
    return [(one["Sid"], action) for one in read_policy()["Statement"] for action in actions(one)]


def may_list(policy: Policy, bucket: str, prefix: str | None) -> bool:
    """Say whether AWS lets a key with this policy list the names that begin so."""
    return any(
        statement["Resource"] == f"arn:aws:s3:::{bucket}"
        and "s3:ListBucket" in actions(statement)
        and prefix is not None
        and fnmatchcase(prefix, statement["Condition"]["StringLike"]["s3:prefix"])
        for statement in policy["Statement"]
    )


class User:
    """A user of moto's IAM with one key and one policy."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._http = httpx.Client(base_url=endpoint)
        session = boto3.session.Session(servers.ACCESS_KEY, servers.SECRET_KEY)
        self._iam = session.client("iam", endpoint_url=endpoint, region_name="us-east-1")
        self._iam.create_user(UserName="recsys")
        self._key = self._iam.create_access_key(UserName="recsys")["AccessKey"]

    @contextmanager
    def acting(self, policy: Policy) -> Iterator[None]:
        """Let the block use the user's key under this policy; nobody may do more meanwhile."""
        document = json.dumps(policy)
        self._iam.put_user_policy(UserName="recsys", PolicyName="lake", PolicyDocument=document)
        with pytest.MonkeyPatch.context() as patch:
            servers.use_credentials(patch, self._key["SecretAccessKey"])
            patch.setenv("AWS_ACCESS_KEY_ID", self._key["AccessKeyId"])
            self._free_requests("0")
            try:
                yield
            finally:
                self._free_requests("inf")

    def _free_requests(self, number: str) -> None:
        self._http.post("/moto-api/reset-auth", content=number).raise_for_status()


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user beside a lake with a table, its source, and objects that are none of its business."""
    with servers.moto_s3(tmp_path_factory.mktemp("iam")) as endpoint:
        client = servers.client(endpoint)
        for bucket in ("shop", "lake", "private"):
            client.create_bucket(Bucket=bucket)
            for folder in ("events", "nightly", "nightly-2", "other"):
                client.put_object(Bucket=bucket, Key=f"{folder}/one", Body=b"1")
        with pytest.MonkeyPatch.context() as patch:
            servers.use_credentials(patch)
            make_table(Lake(LAKE, ObjectStorage(endpoint_url=endpoint)))
        yield User(endpoint)


def make_table(lake: Lake) -> None:
    lake.create_table(columns.RUNS, schemas(pa.int64(), pa.int64())[columns.RUNS])
    lakes.write(lake, columns.RUNS, [{"run_id": "1", "flow": "nightly", "status": "completed"}])


@pytest.fixture
def storage(user: User) -> ObjectStorage:
    return ObjectStorage(endpoint_url=user.endpoint)


def keys(user: User, bucket: str) -> set[str]:
    found = servers.client(user.endpoint).list_objects_v2(Bucket=bucket)
    return {entry["Key"] for entry in found["Contents"]}


# --- what is granted is needed, and enough

NEEDS: dict[Grant, Callable[[ObjectStorage], object]] = {
    ("ListTheLake", "s3:ListBucket"): lambda at: Lake(LAKE, at).exists(columns.RUNS),
    ("ReadAndWriteTheLake", "s3:GetObject"): lambda at: Lake(LAKE, at).exists(columns.RUNS),
    ("ReadAndWriteTheLake", "s3:PutObject"): lambda at: object_store.put(f"{LAKE}/new", b"1", at),
    ("ReadAndWriteTheLake", "s3:DeleteObject"): lambda at: object_store.delete([f"{LAKE}/a"], at),
    ("ListTheSource", "s3:ListBucket"): lambda at: object_store.find(f"{SOURCE}/*", at),
    ("ReadTheSource", "s3:GetObject"): lambda at: object_store.get(f"{SOURCE}/one", at),
}


def test_each_action_is_tried() -> None:
    assert {*NEEDS, ABORT} == set(grants())


@pytest.mark.slow
@pytest.mark.parametrize("grant", NEEDS, ids=" ".join)
def test_an_action_that_is_left_out_is_refused_and_never_read_as_absence(
    user: User, storage: ObjectStorage, grant: Grant
) -> None:
    with user.acting(read_policy()):
        assert NEEDS[grant](storage) is not False
    with (
        user.acting(read_policy(without=grant)),
        pytest.raises(RecsysError, match="access denied; these credentials") as refused,
    ):
        NEEDS[grant](storage)
    assert not isinstance(refused.value, MissingError)


def test_an_upload_that_fails_leaves_no_parts_behind(
    user: User, storage: ObjectStorage, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(9 << 20)  # of over 8 MB boto3 makes parts
    left = []
    for policy in (read_policy(), read_policy(without=ABORT)):
        with user.acting(policy):
            events = object_store._client(storage).meta.events
            events.register("before-call.s3.UploadPart", break_connection)
            with pytest.raises(RecsysError, match="does not answer"):
                object_store.upload(tmp_path / "large", f"{LAKE}/large", storage)
            events.unregister("before-call.s3.UploadPart", break_connection)
        uploads = servers.client(user.endpoint).list_multipart_uploads(Bucket="lake")
        left.append(len(uploads.get("Uploads", [])))
    assert left == [0, 1]


def break_connection(**_: object) -> None:
    raise ConnectionClosedError(endpoint_url="http://broken")


def test_files_that_may_not_be_removed_are_told_as_such(user: User, storage: ObjectStorage) -> None:
    lake = Lake(LAKE, storage)
    with user.acting(read_policy()):
        lake.delete(columns.RUNS, "run_id = '1'")
        with pytest.raises(RecsysError, match="runs/: access denied; these credentials"):
            remove_old_versions(lake, columns.RUNS, timedelta(0), dry_run=False)


# --- and nothing else

REFUSED: dict[str, Callable[[ObjectStorage], object]] = {
    "read beside the lake": lambda at: object_store.get("s3://lake/other/one", at),
    "read a prefix that begins like the lake": lambda at: object_store.get(
        "s3://lake/nightly-2/one", at
    ),
    "write beside the lake": lambda at: object_store.put("s3://lake/other/new", b"1", at),
    "delete beside the lake": lambda at: object_store.delete(["s3://lake/other/one"], at),
    "make a lake elsewhere": lambda at: make_table(Lake("s3://lake/other", at)),
    "write the source": lambda at: object_store.put(f"{SOURCE}/new", b"1", at),
    "replace the source": lambda at: object_store.put(f"{SOURCE}/one", b"2", at),
    "delete the source": lambda at: object_store.delete([f"{SOURCE}/one"], at),
    "read beside the source": lambda at: object_store.get("s3://shop/other/one", at),
    "list another bucket": lambda at: object_store.find("s3://private/**", at),
    "read another bucket": lambda at: object_store.get("s3://private/one", at),
}


def test_what_is_not_the_lakes_is_refused(user: User, storage: ObjectStorage) -> None:
    before = [keys(user, bucket) for bucket in ("shop", "lake", "private")]
    with user.acting(read_policy()):
        told = {what: error_of(attempt, storage) for what, attempt in REFUSED.items()}
    assert {what: error for what, error in told.items() if "access denied" not in error} == {}
    assert [keys(user, bucket) for bucket in ("shop", "lake", "private")] == before


def error_of(attempt: Callable[[ObjectStorage], object], storage: ObjectStorage) -> str:
    try:
        return f"it gave {attempt(storage)!r}"
    except RecsysError as error:
        return str(error)


def test_other_names_are_not_listed() -> None:
    policy = read_policy()
    assert may_list(policy, "lake", "nightly/runs/")
    assert may_list(policy, "shop", "events/")
    for bucket in ("lake", "shop", "private"):
        for prefix in (None, "", "n", "nightly-2/", "other/", "e", "events-2/"):
            assert not may_list(policy, bucket, prefix)


# --- whole runs

_REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) (/(?!moto-api)\S+) HTTP')


def asked(log: str) -> tuple[set[Grant], set[tuple[str, str | None]]]:
    """Return the grants that the requests of a log need, and each (bucket, prefix) they list."""
    needed, listed = set(), set()
    for method, address in _REQUEST.findall(log):
        url = urlsplit(address)
        query = parse_qs(url.query, keep_blank_values=True)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        whose = {"lake": "Lake", "shop": "Source"}[bucket]
        if method == "GET" and not key:
            listed.add((bucket, query.get("prefix", [None])[0]))
            needed.add((f"ListThe{whose}", "s3:ListBucket"))
            continue
        action = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}
        name = "Delete" if "delete" in query else action[method]
        work = "Read" if whose == "Source" else "ReadAndWrite"
        needed.add((f"{work}The{whose}", f"s3:{name}Object"))
    return needed, listed


@pytest.mark.long
def test_runs_need_all_of_the_policy_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night, an erasure, a training and a maintenance, by a key that has the policy alone."""
    with open_shop(tmp_path, monkeypatch) as shop:
        shop.put_day(1)
        for key in ("other/one", "nightly-2/one"):
            shop.client.put_object(Bucket="lake", Key=key, Body=b"1")
        settings = shop.settings.model_copy(
            update={
                "maintenance": Maintenance(retention=timedelta(0)),
                "training": Training(
                    epochs=1, overrides={"width": 16, "blocks": 1, "max_length": 10}
                ),
            }
        )
        policy = read_policy()
        of_moto = {
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": "arn:aws:s3:::lake",
        }
        user = User(shop.client.meta.endpoint_url)
        with user.acting({**policy, "Statement": [*policy["Statement"], of_moto]}):
            start = len(shop.log.read_text())
            shop.night(1)
            with record_run("erase", "erase", settings, {}) as run:
                erase(run.lake, "7", "asked")
            with record_run("train", "train", settings, {}) as run:
                train(run.lake, settings)
            with record_run("maintain", "maintain", settings, {}) as run:
                later = datetime.now(UTC) + timedelta(days=91)
                result = maintain(run.lake, settings, now=later)
            log = shop.log.read_text()[start:]
        assert {one.kind for one in result.upkeep if one.files} >= {"old versions", "small files"}
        assert '" 403 ' not in log

        needed, listed = asked(log)
        assert {*needed, ABORT} == set(grants()), "a grant that no run needs, or a need of none"
        assert all(may_list(policy, bucket, prefix) for bucket, prefix in listed), listed
        stored = shop.client.list_objects_v2(Bucket="lake")["Contents"]
        beside = {one["Key"] for one in stored if not one["Key"].startswith("nightly/")}
        assert beside == {"other/one", "nightly-2/one"}
        assert len(shop.client.list_objects_v2(Bucket="shop")["Contents"]) == 1
