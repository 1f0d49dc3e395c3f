"""The JSON API beside the pages, one file for each kind of work."""

from perdure.web.server.routing import Routes

ALL: tuple[Routes, ...] = ()
