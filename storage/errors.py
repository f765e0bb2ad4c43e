"""The errors that several areas raise. What one area alone raises stands there, below one of these.

Each message says what happened, the value, and what to do next.

DarkroomError
├── NotFound                    nothing of that name that the caller may see
├── Gone                        it was there and was deleted or taken down; says why
├── Refused                     the request cannot be done as asked; the caller can fix it
│   ├── InvalidRequest          fields that do not pass; carries one reason per field
│   │   └── BackendRefused      a backend cannot draw it; says what it lacks
│   ├── IdempotencyKeyReused    one key, two different requests
│   ├── WrongState              the job or model is not in a state that allows this
│   │   └── FileExists          the version has another file of that name
│   ├── InvalidCursor           a cursor of another list, or not one of ours
│   ├── CursorExpired           a cursor whose order is kept no more
│   ├── InUse                   something else still needs it
│   ├── BackupRefused           a backup that cannot be made or restored as asked
│   ├── UploadBusy              another request is sending bytes of the upload
│   ├── AddressRefused          an address that may not be called or written to
│   └── UploadRefused           bytes that are not what they claim to be
│       ├── ImageRefused
│       ├── ArchiveRefused
│       └── WeightsRefused
├── AccessDenied                the key lacks the scope
│   ├── AccountBanned           the key's account is banned; says why
│   ├── NotAllowed              another's, or for moderators alone
│   ├── QuotaExceeded           the account holds as much as it may
│   └── LinkRefused             a signed link that is wrong or has expired
├── Unauthenticated             no key, or one that is unknown, expired or revoked
├── TooManyRequests             a limit was reached; says when to come back
├── FreeSpaceLow                a disk is nearly full: nothing new is taken, everything else works
├── StoreFailure                a store did not do what it was asked for
│   ├── StoreUnavailable        it cannot now; waiting helps
│   │   ├── EncoderUnavailable  no weights that turn text into vectors
│   │   ├── BackendUnavailable  what draws pictures does not respond, or not in time
│   │   │   └── BackendStalled  it responds, and draws nothing; what it was asked for was taken back
│   │   ├── PoolBusy            every thread or connection of its kind was in use for too long
│   │   ├── ShuttingDown        the process stops; the next one goes on
│   │   ├── PostgresUnavailable it refuses connections, or lost one
│   │   ├── LockTimeout         somebody else held a row for too long
│   │   └── TransactionConflict undone for the sake of another transaction
│   │       ├── Deadlock
│   │       └── SerializationFailure
│   ├── StatementTimeout        a statement took too long; the same again does, too
│   └── DiskFull                no room left; also a JobCannotSucceed
├── SealBroken                  a secret at rest does not open: another key, or none
├── BlobMissing, BlobCorrupted  bytes that a row names are gone or changed
├── BackupDamaged               a backup that is cut, changed or lacks a part
├── BackupFailed                a backup could not be made or restored to its end
├── JobLost                     this process no longer holds the job (another attempt does)
│   └── JobAlreadyRunning       a second claimant of one attempt
├── CancellationRequested                the owner asked to stop
└── JobCannotSucceed            the work cannot be done; its code and reason end the job
    ├── OutOfMemory
    ├── TrainingDiverged        a loss, a gradient or a weight is no number any more
    ├── JobStalled              nothing was done for longer than the stall limit
    ├── UnusableWeights         weights that a job reads or writes are not what they should be
    ├── BackendBroken           what a backend returned is not what it was asked for
    ├── DevicesDiffer           parts of a model on different devices: a fault of ours
    ├── DiskFull                (see StoreFailure)
    └── InvalidCheckpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class DarkroomError(Exception):
    """Root of the tree. `code` is the stable word that clients and counters use."""

    code: ClassVar[str] = "internal_error"


class InvalidSettings(DarkroomError):
    """A setting of the environment that cannot be; the message names the variable and what it may be."""

    code = "invalid_settings"


class NotFound(DarkroomError):
    """Nothing of that name that the caller may see."""

    code = "not_found"


class Gone(DarkroomError):
    """It was there and was deleted or taken down; the message says why."""

    code = "gone"


class Refused(DarkroomError):
    """The request cannot be done as asked; the message says how to fix it."""

    code = "refused"


class InvalidRequest(Refused):
    """One or more fields do not pass. `fields` maps a field's name to its reason."""

    code = "invalid_request"

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in self.fields.items()))


class BackendRefused(InvalidRequest):
    """A backend that draws cannot do it: it lacks a model, a node or a feature, or refused a value. By field."""

    code = "backend_refused"


class IdempotencyKeyReused(Refused):
    """The key was used before with a different request."""

    code = "idempotency_key_reused"


class WrongState(Refused):
    """The job or model is not in a state that allows this."""

    code = "wrong_state"


class FileExists(WrongState):
    """The version has another file of that name."""

    code = "file_exists"


class InvalidCursor(Refused):
    """A cursor that belongs to another list or filter, or is not one of ours."""

    code = "invalid_cursor"


class CursorExpired(Refused):
    """A cursor whose order is kept no more."""

    code = "cursor_expired"


class InUse(Refused):
    """Something else still needs it."""

    code = "in_use"


class BackupRefused(Refused):
    """A backup cannot be made, or restored, as asked; nothing was written."""

    code = "backup_refused"


class UploadBusy(Refused):
    """Another request is sending bytes of the upload."""

    code = "upload_busy"


class AddressRefused(Refused):
    """An address that may not be called or written to; the message says what it must be."""

    code = "address_refused"


class UploadRefused(Refused):
    """Bytes that are not what they claim to be. `reason` is the stable word that is counted."""

    code = "upload_refused"

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class ImageRefused(UploadRefused):
    """An image that cannot be taken."""

    code = "image_refused"


class ArchiveRefused(UploadRefused):
    """A zip archive that cannot be taken."""

    code = "archive_refused"


class WeightsRefused(UploadRefused):
    """A weights file or base model folder that cannot be taken."""

    code = "weights_refused"


class AccessDenied(DarkroomError):
    """The key lacks the scope."""

    code = "scope_missing"


class AccountBanned(AccessDenied):
    """The key works, but its account is banned; the message says why."""

    code = "account_banned"


class NotAllowed(AccessDenied):
    """What the caller sees but may not do: it is another's, or moderators alone may."""

    code = "not_allowed"


class QuotaExceeded(AccessDenied):
    """The account holds as much as one account may; the message says what to delete."""

    code = "quota_exceeded"


class LinkRefused(AccessDenied):
    """A signed link that is not ours or has expired."""

    code = "link_refused"


class Unauthenticated(DarkroomError):
    """No key, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class TooManyRequests(DarkroomError):
    """A limit was reached. `retry_after` is in whole seconds."""

    code = "too_many_requests"

    def __init__(self, message: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreFailure(DarkroomError):
    """A store did not do what it was asked for. What goes on for ever catches this one; only StoreUnavailable passes
    by waiting."""

    code = "store_failure"


class StoreUnavailable(StoreFailure):
    """A store cannot do it now: it does not respond, or somebody else is in the way. Waiting helps."""

    code = "store_unavailable"


class EncoderUnavailable(StoreUnavailable):
    """There are no usable weights that turn text into vectors; text search works without them."""

    code = "encoder_unavailable"


class BackendUnavailable(StoreUnavailable):
    """A backend that draws does not respond, or not in time. What it was asked for may still be drawn: the next attempt
    asks for it by the same id."""

    code = "backend_unavailable"


class BackendStalled(BackendUnavailable):
    """Nothing moves at a backend any more; what it was asked for was taken back."""

    code = "backend_stalled"


class ShuttingDown(StoreUnavailable):
    """The process was asked to stop; the next one goes on."""

    code = "shutting_down"


class FreeSpaceLow(DarkroomError):
    """A disk has less free space than the floor: uploads and new jobs are refused, everything else works."""

    code = "free_space_low"


class PoolBusy(StoreUnavailable):
    """Every place of a kind of work was taken for too long. `pool` is its name."""

    code = "pool_busy"

    def __init__(self, pool: str, places: int, seconds: float) -> None:
        self.pool = pool
        super().__init__(f"All {places} places for {pool} were in use for {seconds:g} s. Try again in a few seconds.")


class PostgresUnavailable(StoreUnavailable):
    """Postgres refuses connections, lost one in the middle, or has none to spare."""

    code = "postgres_unavailable"


class LockTimeout(StoreUnavailable):
    """Another transaction held a lock for longer than a statement may wait."""

    code = "lock_timeout"


class TransactionConflict(StoreUnavailable):
    """The transaction was undone for the sake of another one; run again from its beginning it most likely passes."""

    code = "transaction_conflict"


class Deadlock(TransactionConflict):
    """Two transactions waited for each other, and Postgres undid this one."""

    code = "deadlock"


class SerializationFailure(TransactionConflict):
    """A transaction that must see one state of the database met a change of another one."""

    code = "serialization_failure"


class StatementTimeout(StoreFailure):
    """Postgres cancelled a statement that took too long. Not tried again blindly: it would take as long again."""

    code = "statement_timeout"


class SealBroken(DarkroomError):
    """A secret at rest does not open: it was sealed with another key, or there is none."""

    code = "seal_broken"


class BlobMissing(DarkroomError):
    """Bytes that a row names are not in the blob store."""

    code = "blob_missing"


class BlobCorrupted(DarkroomError):
    """Bytes in the blob store no longer match their name."""

    code = "blob_corrupted"


class BackupDamaged(DarkroomError):
    """A backup is cut, was changed or lacks a part; the message names it. Nothing was restored from it."""

    code = "backup_damaged"


class BackupFailed(DarkroomError):
    """A backup could not be made or restored to its end, and says what it met."""

    code = "backup_failed"


class JobLost(DarkroomError):
    """This process no longer holds the job: a newer attempt does, or the job has ended."""

    code = "job_lost"


class JobAlreadyRunning(JobLost):
    """A second claimant of one attempt."""

    code = "job_already_running"


class CancellationRequested(DarkroomError):
    """The owner asked the job to stop."""

    code = "cancelled"


class JobCannotSucceed(DarkroomError):
    """The work cannot be done. `code` and the message end the job as failed, without another attempt."""

    code = "job_failed"


class OutOfMemory(JobCannotSucceed):
    """The flow's process, or its GPU, has no memory left."""

    code = "out_of_memory"


class TrainingDiverged(JobCannotSucceed):
    """A loss, a gradient or a weight became infinite or no number; nothing of that step was kept."""

    code = "training_diverged"


class JobStalled(JobCannotSucceed):
    """Nothing was done for longer than the stall limit: no step, no image, no tensor of a file."""

    code = "stalled"


class CompilerMissing(JobCannotSucceed):
    """A training asked for `compile`, and this machine has nothing to compile with, or compiling failed."""

    code = "compiler_missing"


class UnusableWeights(JobCannotSucceed):
    """Weights that a job reads or writes cannot be taken; the message is that of the WeightsRefused."""

    code = "unusable_weights"


class BackendBroken(JobCannotSucceed):
    """A backend that draws failed, or returned what was not asked for: no picture, another size, no JSON."""

    code = "backend_broken"


class ModelNotAvailable(JobCannotSucceed):
    """A model or an adapter that the account may not see any more: made private, deleted or taken down meanwhile."""

    code = "model_not_available"


class DevicesDiffer(JobCannotSucceed):
    """Parts of a model are on different devices when a phase begins. No input causes it: it is a fault of ours."""

    code = "devices_differ"


# Both: it ends a job by its own name, and what goes on for ever catches it as any failure of a store.
class DiskFull(JobCannotSucceed, StoreFailure):
    """A store refused bytes because there is no room left. Somebody has to make room; waiting alone does not."""

    code = "disk_full"


class InvalidCheckpoint(JobCannotSucceed):
    """A checkpoint that does not belong to this recipe or does not load."""

    code = "invalid_checkpoint"


def error_named(code: str) -> type[DarkroomError] | None:
    """The error with a code, as another process of this release has named it; None for a code that is unknown."""
    waiting: list[type[DarkroomError]] = [DarkroomError]
    while waiting:
        kind = waiting.pop()
        if kind.code == code:
            return kind
        waiting += kind.__subclasses__()
    return None
