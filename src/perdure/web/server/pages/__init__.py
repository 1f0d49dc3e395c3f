"""The pages, one file for each kind of work."""

from perdure.web.server.pages import account, entering, overview

ALL = (entering.routes, account.routes, overview.routes)
