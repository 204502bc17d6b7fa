"""What a worker of a pool does before it loads a flow."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "RECSYS__HOME"


def use_home(directory: str) -> dict[str, str]:
    """Let the run work in the folder of recsys.toml: `flows.entrypoints` goes there.

    Not at once: Prefect would put the folder first on the module path, and a package ``flows`` of
    the user's in it would hide ours.

    Args:
        directory: the folder; ``{{ $RECSYS_HOME }}`` in prefect.yaml.

    Raises:
        NotADirectoryError: there is no such folder on this machine.
    """
    if not Path(directory).is_dir():
        raise NotADirectoryError(
            f"{directory!r} is not a folder on this worker's machine: set RECSYS_HOME, where the "
            "worker starts, to the folder of recsys.toml"
        )
    os.environ[HOME] = str(Path(directory).resolve())
    return {}
