"""Everything that runs as a Prefect flow, and the relay that starts them."""

import atexit
import gc

# Python looks for garbage once more before a process ends. With torch, diffusers and MLflow loaded that takes 3 to 4 s
# of a core for memory that is given back anyway; what is frozen is not looked at. So no `__del__` of a cycle runs then,
# on which nothing may rely anyway. Flow runs that were forked warm leave without it in any case.
atexit.register(gc.freeze)
