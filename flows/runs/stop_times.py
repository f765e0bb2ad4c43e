"""How long a flow's process has to stop."""

RELEASE_SECONDS = 5.0
"""So long a flow waits for its threads; then it releases what they work on."""
FLOW_GRACE_SECONDS = RELEASE_SECONDS + 3.0
"""So long after it was asked to stop a flow's process is killed: it has released by then."""
