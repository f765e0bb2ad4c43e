"""Which process of pytest-xdist runs which tests: a file is run whole by one, and so is all that shares a platform, or
the Elasticsearch that takes most of a core while it warms up.

pytest-xdist 3.8 writes its groups (`--dist loadgroup`) to an attribute that pytest 9.2 no longer reads, so that every
fixture of a module, and the platform, were made by each process. Hence this scheduler.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

SHARE_A_PLATFORM = ("tests/faults/", "tests/attacks/test_back_doors.py", "tests/attacks/test_secret_canary.py")
SHARE_ELASTICSEARCH = (
    "tests/contracts/test_search",
    "tests/flows/indexing/",
    "tests/faults/test_search.py",
    "tests/deployments/restore/test_stores_in_use.py",
)
SHARE_COMFYUI = (
    "tests/contracts/test_comfyui.py",
    "tests/flows/generation/comfyui/test_backend.py",
    "tests/flows/generation/comfyui/test_installation.py",
    "tests/flows/generation/comfyui/test_killed_server.py",
)
SHARE_PREFECT = (
    "tests/architecture/test_mappings.py",
    "tests/flows/relay/",
    "tests/flows/upkeep/",
    "tests/flows/indexing/test_search_flows.py",
    "tests/deployments/local/test_queued_runs.py",
)
# Some of these ask for Prefect's server too; no other process starts MLflow's.
SHARE_MLFLOW = (
    "tests/flows/generation/test_images.py",
    "tests/flows/generation/test_killed_flows.py",
    "tests/flows/jobs/",
    "tests/flows/metrics/",
    "tests/flows/notifications/test_fan_out.py",
    "tests/flows/runs/test_light_tracking.py",
    "tests/flows/upkeep/retention/test_retention.py",
    "tests/flows/upkeep/retention/test_tracking_runs.py",
    "tests/flows/diffusion/test_registered_pipeline.py",
    "tests/flows/training/test_dreambooth",
    "tests/flows/training/test_held_out_photos.py",
    "tests/flows/training/test_chosen_checkpoints.py",
    "tests/flows/training/test_request",
    "tests/flows/training/test_real_shapes.py",
    "tests/flows/training/test_shared_encodings.py",
    "tests/flows/training/test_limits.py",
    "tests/flows/training/test_mlflow_away.py",
    "tests/flows/training/test_killed_flows.py",
    "tests/flows/training/stages/",
    "tests/flows/training/estimates/",
    "tests/flows/training/tracking/",
)
SHARE_A_FORK_SERVER = (
    "tests/flows/diffusion/test_sampled_sets.py",
    "tests/flows/diffusion/test_sampler.py",
    # Two clusters of Dask at once ask for the same port.
    "tests/flows/runs/test_dask_cluster.py",
    "tests/flows/notifications/test_kills.py",
    "tests/flows/runs/test_exit_hooks.py",
    "tests/flows/test_worker_alone.py",
    "tests/flows/training/checkpointing/test_writer.py",
    "tests/flows/training/optimizers/test_states.py",
    "tests/flows/training/test_checkpoints.py",
    "tests/flows/training/test_deaths.py",
    "tests/gpu/",
)
"""What forks processes that have torch (tests/warm.py) and needs no other server."""
TOGETHER = {
    "platform": SHARE_A_PLATFORM,
    "elasticsearch": SHARE_ELASTICSEARCH,
    "comfyui": SHARE_COMFYUI,
    "mlflow": SHARE_MLFLOW,
    "prefect": SHARE_PREFECT,
    "fork server": SHARE_A_FORK_SERVER,
}
"""What is run by one process, by a name for it: else each process starts servers of its own, which take half a minute
of a core."""


def together(nodeid: str) -> str | None:
    """What a test is run together with, by the longest beginning of its name; None for its file alone."""
    fitting = [(len(test), name) for name, tests in TOGETHER.items() for test in tests if nodeid.startswith(test)]
    return max(fitting)[1] if fitting else None


class SharedServersTogether(LoadFileScheduling):
    """Hands out tests by the file; those that share a server as if they were one file."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid) or super()._split_scope(nodeid)
