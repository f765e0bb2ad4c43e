"""A finished backup: its metrics, and the warnings that still need somebody."""

from __future__ import annotations

from dataclasses import dataclass, field

from flows.upkeep.backup.manifest import Amount, Manifest
from flows.upkeep.backup.old_backups import Dropped
from flows.upkeep.backup.verification import SHOWN


@dataclass
class FinishedBackup:
    """A finished backup, with the seconds of each step and what went when it was there."""

    manifest: Manifest
    place: str
    seconds: dict[str, float]
    copied: Amount
    copied_artifacts: Amount
    dropped: Dropped = field(default_factory=Dropped)

    def complaint(self) -> str:
        """What is to be done although this backup is finished; empty when that is nothing."""
        warnings: list[str] = []
        if lost := self.manifest.lost:
            warnings.append(
                f"{len(lost)} blobs that rows name were lost before it: {_some(lost)}. {self.place} has no whole copy "
                "of them, in no backup: its backups share their blobs. Look in another place of backups. Where there "
                "is no copy: docs/how-to/blobs.md."
            )
        if faults := self.dropped.faults:
            warnings.append(
                f"older backups in {self.place} could not be tended: {_some(faults)} Until they can, blobs that no "
                "other backup names stay. Verify such a backup (darkroom backup verify); delete its folder if it is "
                "of no use."
            )
        return f"Backup {self.manifest.name} is finished, but {' Also, '.join(warnings)}" if warnings else ""

    def metrics(self) -> dict[str, float]:
        """Metrics for MLflow: counts, bytes and seconds."""
        dumped = sum(file.size for file in self.manifest.files if file.name.endswith(".dump"))
        return {
            **{f"{step}_seconds": round(seconds, 3) for step, seconds in self.seconds.items()},
            "seconds": round(sum(self.seconds.values()), 3),
            "dump_bytes": dumped,
            "blobs": self.manifest.blobs.count,
            "blob_bytes": self.manifest.blobs.size,
            "new_blobs": self.copied.count,
            "new_blob_bytes": self.copied.size,
            "artifacts": self.manifest.artifacts.count,
            "artifact_bytes": self.manifest.artifacts.size,
            "new_artifact_bytes": self.copied_artifacts.size,
            "lost": len(self.manifest.lost),
            "backups_removed": len(self.dropped.names),
            "blobs_removed": self.dropped.blobs,
            "unreadable": len(self.dropped.faults),
        }


def _some(texts: list[str]) -> str:
    return "; ".join(texts[:SHOWN])
