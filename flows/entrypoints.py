"""What Prefect loads: the flows of this very package, in the folder of recsys.toml.

`recsys serve` names this file by its path, since Prefect puts the working directory first on the
module path: there, a folder ``flows`` of the user's would hide ours. A pool's worker imports this
module in an empty folder, and then goes to the one that `flows.pull` found. A run that
`recsys serve` started ends with it.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.children import end_with_parent
from flows.pull import HOME

end_with_parent()  # before the long imports
if home := os.environ.get(HOME):
    os.chdir(home)

from flows.backfill import backfill_flow
from flows.erase import erase_flow
from flows.ingest import ingest_flow
from flows.lists_rollback import lists_rollback_flow
from flows.maintain import maintain_flow
from flows.nightly import nightly_flow
from flows.promote import promote_flow, rollback_flow
from flows.recommend import recommend_flow
from flows.train import train_flow
from flows.watch import watch_flow

__all__ = [
    "backfill_flow",
    "erase_flow",
    "ingest_flow",
    "lists_rollback_flow",
    "maintain_flow",
    "nightly_flow",
    "promote_flow",
    "recommend_flow",
    "rollback_flow",
    "train_flow",
    "watch_flow",
]
