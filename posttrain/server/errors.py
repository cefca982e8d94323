"""Every failure as the OpenAI dialect says it: a status and {"error": {message, type, param, code}}."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from posttrain.types import UserError


class ApiError(Exception):
    """A request that is refused (4xx) or that failed (5xx).  `param` names the request field at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def install(app: FastAPI) -> None:
    """Makes `app` answer every failure in the dialect's shape."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return _response(error)

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> JSONResponse:
        return _response(from_user_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid_body(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [part for part in first["loc"] if part != "body"]
        if first["type"] == "json_invalid":
            return _response(ApiError(f"the body is not valid JSON: {first['ctx']['error']}"))
        if not place:
            return _response(ApiError("the body is not a JSON object, or not sent as Content-Type: application/json"))
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        return _response(ApiError(f"{param}: {first['msg']}", param=param, code="invalid_value"))

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> JSONResponse:
        return _response(ApiError(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code))

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> JSONResponse:  # starlette raises it again, into the log
        return _response(ApiError("internal error; the server's log says more", status=500))


def from_user_error(error: UserError) -> ApiError:
    return ApiError(" ".join(str(error).split()))


def _response(error: ApiError) -> JSONResponse:
    # The same request would fail the same way: the client need not try it twice more, as it does by default.
    return JSONResponse(error.body, error.status, headers={"x-should-retry": "false"})
