"""What Prefect loads, by the path of this file: the flows of this very package.

Prefect puts the working directory first on the module path. There, a folder ``flows`` of the user's
would hide ours. A run that `recsys serve` started ends with it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.children import end_with_parent

end_with_parent()  # before the long imports

from flows.erase import erase_flow
from flows.ingest import ingest_flow
from flows.maintain import maintain_flow
from flows.nightly import nightly_flow
from flows.recommend import recommend_flow
from flows.train import train_flow

__all__ = [
    "erase_flow",
    "ingest_flow",
    "maintain_flow",
    "nightly_flow",
    "recommend_flow",
    "train_flow",
]
