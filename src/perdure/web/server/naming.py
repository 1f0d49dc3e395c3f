"""What addresses may name: versions, aliases, requests. Never a path, never an address to read from."""

from typing import Annotated

from fastapi import Path

ALIAS = "^[a-z][a-z0-9-]{0,31}$"
VERSION = "^(v[0-9]{1,9}|[0-9a-f]{6,64}|[a-z][a-z0-9-]{0,31})$"
JOB = "^[0-9a-f]{32}$"
LAST = 2**53  # more rows than any ledger has, and few enough for the database to count

Ref = Annotated[str, Path(pattern=VERSION, description="v3, an alias, latest, or the first digits of an id")]
Alias = Annotated[str, Path(pattern=ALIAS, description="Such as staging or production")]
Row = Annotated[int, Path(ge=1, le=LAST, description="The number of a row of the ledger")]
JobId = Annotated[str, Path(pattern=JOB, description="The id of a request")]
Fact = Annotated[str, Path(pattern="^[0-9a-f]{4,64}$", description="The id of a fact, or its first digits")]
