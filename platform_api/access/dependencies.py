"""What nearly every handler depends on, marked as dependencies: Litestar 3 no longer infers them from their names."""

from __future__ import annotations

from litestar.di import NamedDependency

from platform_api.access.guards import Caller
from storage.records.policy.viewers import Viewer
from storage.stores import AsyncStores

AppStores = NamedDependency[AsyncStores]
RequestCaller = NamedDependency[Caller]
RequestViewer = NamedDependency[Viewer]
