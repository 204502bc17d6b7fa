"""Parquet files under a folder or an S3 prefix: `run_date=DAY/`, with a manifest written last.

The manifest names the files of a day. Files of a delivery have names of their own, so that a reader
who follows the manifest has the previous lists or the new ones, whole.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import MissingError, SinkError
from recsys.lake import object_store
from recsys.lake.engine import open_duckdb
from recsys.lake.schemas import as_json
from recsys.lists.sinks.target import Contents, Stamp, check_written, measure, read_files
from recsys.temporary import replace_file, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Collection

    from recsys.settings import Settings, Sink

MANIFEST = "_manifest.json"


class ParquetTarget:
    """Parquet files; see the module.

    Args:
        sink: where.
        settings: the machine's limits, and the S3 endpoint.
    """

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self._root, self._settings = sink.to.rstrip("/"), settings
        self._is_local = "://" not in sink.to

    def stamps(self, days: Collection[date]) -> dict[date, Stamp]:
        """Return the stamps of those of the days that were delivered; see `Target`."""
        with ThreadPoolExecutor(object_store.AT_ONCE) as pool:
            manifests = [found for found in pool.map(self._manifest, days) if found]
        return {stamp.run_date: stamp for stamp in map(_stamp_of, manifests)}

    def measure(self, run_date: date) -> Contents | None:
        """Read back the files that the manifest names; None where one is missing."""
        manifest = self._manifest(run_date)
        if manifest is None:
            return None
        with temporary_folder() as folder:
            try:
                files = [self._fetch(run_date, name, folder) for name in manifest["files"]]
            except MissingError:
                return None
            with open_duckdb(self._settings) as con:
                return measure(con, read_files(files))

    def replace(self, stamp: Stamp, files: list[Path]) -> None:
        """Write the files, read them back, write the manifest, remove other files of the day."""
        names = [
            f"edition-{stamp.edition}-{stamp.hash}-part-{nth}.parquet" for nth in range(len(files))
        ]
        for file, name in zip(files, names, strict=True):
            self._put(file, stamp.run_date, name)
        with temporary_folder() as folder, open_duckdb(self._settings) as con:
            written = [self._fetch(stamp.run_date, name, folder) for name in names]
            check_written(stamp, measure(con, read_files(written)), self._root)
        self._write_manifest(stamp, names)
        self._remove_others(stamp.run_date, names)

    def restamp(self, stamp: Stamp) -> None:
        """Write the manifest of the same files again."""
        manifest = self._manifest(stamp.run_date)
        if manifest:
            self._write_manifest(stamp, manifest["files"])
            self._remove_others(stamp.run_date, manifest["files"])

    def remove(self, run_date: date) -> None:
        """Remove the manifest of a day, then its files."""
        if self._is_local:
            Path(self._address(run_date, MANIFEST)).unlink(missing_ok=True)
        else:
            object_store.delete([self._address(run_date, MANIFEST)], self._settings.s3)
        self._remove_others(run_date, [])

    def _address(self, run_date: date, name: str) -> str:
        return f"{self._root}/run_date={run_date.isoformat()}/{name}"

    def _manifest(self, run_date: date) -> dict[str, Any] | None:
        address = self._address(run_date, MANIFEST)
        try:
            if self._is_local:
                text = Path(address).read_bytes()
            else:
                text = object_store.get(address, self._settings.s3)
        except (FileNotFoundError, MissingError):
            return None
        try:
            manifest: dict[str, Any] = json.loads(text)
            _stamp_of(manifest)
        except (ValueError, KeyError, TypeError) as error:
            raise SinkError(
                f"{address} is not a manifest of ours; remove it, then: recsys deliver"
            ) from error
        return manifest

    def _write_manifest(self, stamp: Stamp, names: list[str]) -> None:
        address = self._address(stamp.run_date, MANIFEST)
        text = as_json({**asdict(stamp), "files": names}).encode()
        if self._is_local:
            with replace_file(Path(address)) as new:
                new.write_bytes(text)
        else:
            object_store.put(address, text, self._settings.s3, content_type="application/json")

    def _put(self, file: Path, run_date: date, name: str) -> None:
        address = self._address(run_date, name)
        if self._is_local:
            with replace_file(Path(address)) as new:
                shutil.copyfile(file, new)
        else:
            object_store.upload(file, address, self._settings.s3, SinkError)

    def _fetch(self, run_date: date, name: str, folder: Path) -> Path:
        """Return a file of a day that DuckDB can read: that of an S3 prefix is downloaded."""
        address = self._address(run_date, name)
        if not self._is_local:
            object_store.download(address, folder / name, self._settings.s3)
            return folder / name
        if not Path(address).exists():
            raise MissingError(f"{address} does not exist")
        return Path(address)

    def _remove_others(self, run_date: date, names: list[str]) -> None:
        """Remove the files of earlier and of killed deliveries of a day."""
        prefix = self._address(run_date, "edition-")
        if self._is_local:
            for file in Path(prefix).parent.glob("edition-*.parquet"):
                if file.name not in names:
                    file.unlink(missing_ok=True)
            return
        objects, _ = object_store.listed(prefix, self._settings.s3)
        others = [each.uri for each in objects if each.uri.rpartition("/")[2] not in names]
        object_store.delete(others, self._settings.s3)


def _stamp_of(manifest: dict[str, Any]) -> Stamp:
    values = {name: manifest[name] for name in Stamp.__dataclass_fields__}
    values["run_date"] = date.fromisoformat(values["run_date"])
    values["delivered_at"] = datetime.fromisoformat(values["delivered_at"])
    return Stamp(**values)
