"""Why a request is not answered, in the shape that OpenAI's clients know."""

import math
from typing import Any

from perdure.errors import PerdureError, RefusedError, RequestError, SettingError, UnknownNameError

_LONGEST = 500  # characters of a message, which may quote the request
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class AnswerError(PerdureError, RuntimeError):
    """A request that is not answered.

    Attributes:
        status: The status of HTTP.
        code: A word for programs.
        param: Which part of the request is meant, if one is.
        retry_after: In how many seconds to try again, if that may help.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    @property
    def ours(self) -> bool:
        """Whether the version or the server failed, and not the request."""
        return self.status >= 500

    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = _TYPES.get(self.status, "server_error" if self.ours else "invalid_request_error")
        return {"error": {"message": str(self)[:_LONGEST], "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        found = {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}
        return found | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def translated(error: Exception) -> AnswerError:
    """The same error as an answer; what is not meant for clients is not told to them."""
    if isinstance(error, AnswerError):
        return error
    if isinstance(error, UnknownNameError):
        return AnswerError(404, "model_not_found", str(error), param="model")
    if isinstance(error, RefusedError):
        return AnswerError(403, "model_refused", str(error), param="model")
    if isinstance(error, (RequestError, SettingError)):
        return AnswerError(400, "invalid_value", str(error))
    if isinstance(error, TimeoutError):
        return AnswerError(504, "timeout", "the answer took longer than this server allows; ask for fewer tokens")
    return AnswerError(500, "internal_error", "the version could not answer; the server's log says why")
