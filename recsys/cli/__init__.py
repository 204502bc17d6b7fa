"""The commands that need no Prefect, a file a group. `flows.cli` adds those that run flows."""

# Each module puts its commands on the app; `recsys --help` lists them in this order.
from recsys.cli import data, models, lists, catalog, monitoring, replay, maintenance, benchmark  # noqa: F401, I001
