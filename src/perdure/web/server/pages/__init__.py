"""The pages, one file for each kind of work."""

from perdure.web.server.pages import (
    account,
    canaries,
    deciding,
    entering,
    governing,
    kpis,
    measuring,
    overview,
    provider,
    requesting,
    versions,
)

ALL = (
    entering.routes,
    provider.routes,
    account.routes,
    overview.routes,
    versions.routes,
    deciding.routes,
    canaries.routes,
    requesting.routes,
    governing.routes,
    measuring.routes,
    kpis.routes,
)
