"""Automations on a Prefect server: what it does by itself, as automations.yaml says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import yaml
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from flows.deployments import beside_flows
from recsys.errors import ConfigurationError

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

_BLOCK = "recsys-alerts"
_LOST_RUN = "recsys, a run is lost"


def make_alerts(webhook: str | None) -> list[str]:
    """Make the automations, or replace them, and return their names.

    Args:
        webhook: the URL that a POST with ``{"text": "..."}`` is sent to; without one, nobody is
            told, and the others are made.

    Raises:
        ConfigurationError: a deployment that one starts is not on the server.
    """
    block = None
    if webhook:
        saved = Webhook(method="POST", url=SecretStr(webhook)).save(_BLOCK, overwrite=True)
        block = cast("UUID", saved)  # we are in no event loop
    with get_client(sync_client=True) as client:
        return [
            _make(client, each, block)
            for each in _definitions()
            if block or "block_document_id" not in str(each["actions"])
        ]


def crash_lost_runs() -> None:
    """Make the automation that calls a run Crashed whose process is gone."""
    with get_client(sync_client=True) as client:
        for each in _definitions():
            if each["name"] == _LOST_RUN:
                _make(client, each, None)


def _definitions() -> list[dict[str, Any]]:
    text = beside_flows("automations.yaml").read_text(encoding="utf-8")
    automations: list[dict[str, Any]] = yaml.safe_load(text)["automations"]
    return automations


def _make(client: SyncPrefectClient, definition: dict[str, Any], block: UUID | None) -> str:
    """Make one automation; one of its name is replaced, on or off as it was."""
    for action in definition["actions"]:
        if "block_document_id" in action:
            action["block_document_id"] = block
        if "deployment_id" in action:
            action["deployment_id"] = _deployment_id(client, action["deployment_id"])
    automation = AutomationCore.model_validate(definition)
    name = automation.name
    for before in client.read_automations_by_name(name):
        automation.enabled = before.enabled
        client.delete_automation(before.id)
    client.create_automation(automation)
    return name


def _deployment_id(client: SyncPrefectClient, name: str) -> UUID:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound as error:
        raise ConfigurationError(
            f"there is no deployment {name} on this Prefect server: start `recsys serve`, or "
            "deploy prefect.yaml, and then make the alerts"
        ) from error
