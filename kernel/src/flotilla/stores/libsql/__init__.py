"""Events and views in a libSQL file: no server, one file a service, open to several processes."""

from flotilla.stores.libsql.keys import LibsqlKeys
from flotilla.stores.libsql.leases import LibsqlLeases
from flotilla.stores.libsql.store import LibsqlStore
from flotilla.stores.libsql.views import LibsqlViews

__all__ = ["LibsqlKeys", "LibsqlLeases", "LibsqlStore", "LibsqlViews"]
