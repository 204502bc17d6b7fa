"""A champion that can't be read is not a champion that is gone: nothing takes its place."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows import cli
from recsys.errors import ConfigurationError, LakeError
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.registry.models import UnusableModelError, find_champion, load_model, model_rows
from recsys.registry.retrain import train
from recsys.settings import ObjectStorage, Recommending, Settings, Training
from tests import faulty_s3, servers
from tests.registry.test_retrain import known_world, statuses, training

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = datetime.now(UTC).date()  # its lists come from the champion of now
GOOD, WORSE, NEW = training(epochs=40), training(epochs=4), training(epochs=1, seed=7)
PASSING = {"unavailable", "reset", "cut"}


@dataclass(frozen=True)
class Service:
    """A lake with a champion and a model that the gate rejected, behind an endpoint that fails."""

    s3: faulty_s3.FaultyS3
    settings: Settings
    lake: Lake
    champion: str

    def unchanged(self) -> bool:
        return statuses(self.lake)[self.champion] == "champion" and len(model_rows(self.lake)) == 2


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with (
        pytest.MonkeyPatch.context() as environment,
        faulty_s3.faulty_s3(tmp_path_factory.mktemp("s3")) as s3,
    ):
        servers.use_credentials(environment)
        options = ObjectStorage.delta_options
        environment.setattr(
            ObjectStorage, "delta_options", lambda self: {**options(self), "max_retries": "1"}
        )
        servers.client(s3.endpoint).create_bucket(Bucket="lake")
        settings = Settings(
            lake="s3://lake/nightly",
            s3=ObjectStorage(endpoint_url=s3.endpoint, region="us-east-1"),
            device="cpu",
        )
        lake = Lake.from_settings(settings)
        known_world(lake)
        champion = train(lake, settings, GOOD)
        assert train(lake, settings, WORSE).status == "rejected"
        yield Service(s3, settings, lake, champion.model_id)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once: the pauses between requests are not what is tested."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("fault", faulty_s3.FAULTS)
def test_a_champion_whose_files_can_not_be_read_keeps_its_place(
    service: Service, fault: faulty_s3.Fault
) -> None:
    with service.s3.failing(fault, f"(GET|HEAD) .*weights/{service.champion}/"):
        for candidate in (WORSE, NEW):
            with pytest.raises(LakeError, match=service.champion) as refused:
                train(service.lake, service.settings, candidate)
            assert not isinstance(refused.value, UnusableModelError)
            assert refused.value.transient == (fault in PASSING)
        with pytest.raises(LakeError, match=service.champion):
            recommend(service.lake, service.settings, run_date=DAY, run_id="r")
    assert service.unchanged()
    assert not list(service.lake.open("recommendations").file_uris())


@pytest.mark.parametrize("requests", ["/lake.*nightly/models/", "GET .*nightly/models/.*parquet"])
@pytest.mark.parametrize("fault", ["denied", "expired"])
def test_a_registry_that_can_not_be_read_is_not_an_empty_one(
    service: Service, fault: faulty_s3.Fault, requests: str
) -> None:
    with service.s3.failing(fault, requests):
        with pytest.raises(LakeError, match="models"):
            find_champion(service.lake)
        for candidate in (WORSE, NEW):
            with pytest.raises(LakeError, match="models"):
                train(service.lake, service.settings, candidate)
        with pytest.raises(LakeError, match="models"):
            recommend(service.lake, service.settings, run_date=DAY, run_id="r")
    assert service.unchanged()


@pytest.mark.slow
def test_the_command_fails_where_the_champion_can_not_be_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_LAKE", service.lake.root)
    monkeypatch.setenv("RECSYS_S3", service.settings.s3.model_dump_json())
    monkeypatch.setenv("RECSYS_DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", ["recsys", "train"])
    denied = service.s3.failing("denied", f"(GET|HEAD) .*weights/{service.champion}/")
    with denied, pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert service.unchanged()


def test_a_file_that_the_store_says_is_missing_is_missing(service: Service) -> None:
    store = servers.client(service.s3.endpoint)
    key = f"nightly/weights/{service.champion}/items.parquet"
    content = store.get_object(Bucket="lake", Key=key)["Body"].read()
    champion = find_champion(service.lake)
    assert champion
    store.delete_object(Bucket="lake", Key=key)
    with pytest.raises(UnusableModelError, match=r"items\.parquet.*; train again"):
        load_model(service.lake, champion)
    store.put_object(Bucket="lake", Key=key, Body=content)
    assert load_model(service.lake, champion).row == champion


@pytest.fixture(scope="module")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A champion and the local lake that has it, and a rejected model; made once."""
    root = tmp_path_factory.mktemp("shop") / "lake"
    settings = Settings(lake=str(root), memory_limit="1GB", device="cpu")
    lake = Lake.from_settings(settings)
    known_world(lake)
    champion = train(lake, settings, GOOD)
    assert train(lake, settings, WORSE).status == "rejected"
    return champion.model_id, root


@pytest.fixture
def local(lake: Lake, _shop: tuple[str, Path]) -> tuple[str, Path]:
    """A local lake with a champion and a rejected model: the champion's id and its folder."""
    champion, root = _shop
    shutil.copytree(root, lake.root)
    return champion, Path(lake.uri("weights", champion))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "items.parquet"])
def test_a_damaged_champion_stops_the_night_and_the_gate_says_what_it_is(
    lake: Lake, settings: Settings, local: tuple[str, Path], name: str
) -> None:
    champion, folder = local
    recommend(lake, settings, Recommending(k=3), run_date=DAY, run_id="r")
    version = lake.version("recommendations")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableModelError, match=f"model {champion}: .* is damaged .*train again"):
        recommend(lake, settings, Recommending(k=4), run_date=DAY, run_id="r", replace_why="longer")
    assert lake.version("recommendations") == version
    result = train(lake, settings, WORSE)
    assert (result.status, result.is_new) == ("champion", False)
    assert f"(champion {champion} can't serve: the model's file" in result.why
    assert f"{name} is damaged" in result.why


def test_a_file_on_a_disk_that_fails_keeps_the_champion(
    lake: Lake, settings: Settings, local: tuple[str, Path]
) -> None:
    champion, folder = local
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()  # reading it fails, as on a broken disk
    for candidate in (WORSE, NEW):
        with pytest.raises(LakeError, match=r"model\.safetensors could not be read") as refused:
            train(lake, settings, candidate)
        assert not isinstance(refused.value, UnusableModelError)
    assert statuses(lake)[champion] == "champion"
    assert len(model_rows(lake)) == 2


@pytest.mark.slow
def test_steps_that_the_champion_lacks_do_not_remove_it(
    lake: Lake, settings: Settings, local: tuple[str, Path]
) -> None:
    """It can't be judged by lists as these settings ask for them, and is not judged to be gone."""
    changed = settings.model_copy(update={"recommending": Recommending(steps=40)})
    candidate = Training(epochs=1, overrides={**GOOD.overrides, "timesteps": 64, "steps": 40})
    with pytest.raises(ConfigurationError, match=f"champion {local[0]} can't be compared with"):
        train(lake, changed, candidate)
    assert statuses(lake)[local[0]] == "champion"
