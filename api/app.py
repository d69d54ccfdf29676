"""The application: every route behind its door, every error a problem, one OpenAPI description of exactly that."""

from __future__ import annotations

import secrets
import time
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.door import SCOPE, Door, opens_for
from api.limits import LimitsMiddleware, ReaderTooSlowError
from api.routes import ROUTERS
from api.state import State
from collector.heartbeat import Heartbeat
from collector.log import logger

VERSION = "1"
_log = logger("api")
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_ERRORS = {
    401: "A token is needed, or this one opens nothing.",
    403: "The token does not have the scope.",
    404: "There is nothing here.",
    406: "None of the formats that Accept names is offered.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type or encoding is not taken.",
    422: "A parameter, header or field is wrong; `errors` names each.",
    429: "Over a rate or a share; Retry-After says when to come again.",
    500: "An error in the server; its log has it under `id`.",
    503: "The store is away; Retry-After says when to come again.",
}


def create_app(state: State) -> FastAPI:
    """The application around a state. Raises TypeError for a route that does not say who may use it."""
    app = FastAPI(
        title="Tailsight",
        version=VERSION,
        description="Latency observability and tail analytics. Times are integers in nanoseconds (`_ns`); every answer "
        "with numbers says how complete the events behind it are.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.tailsight = state
    app.router.route_class = Door
    for router in ROUTERS:
        # Not include_router: it nests the routes, and what walks them (doors, tests) wants them flat.
        app.router.routes.extend(router.routes)

    @app.get(
        "/openapi.json",
        openapi_extra=opens_for("read"),
        response_class=JSONResponse,
        tags=["health"],
        summary="This description",
    )
    async def description(request: Request) -> JSONResponse:
        """The OpenAPI description of every route."""
        return JSONResponse(request.app.openapi())

    app.openapi = lambda: _description(app)  # type: ignore[method-assign] # FastAPI documents replacing it so
    problems.install(app)
    app.add_middleware(LimitsMiddleware, settings=state.settings, rates=state.rates)
    app.add_middleware(_Outermost, state=state)
    return app


class _Outermost:
    """Request id, safe headers, metrics and the last word on exceptions."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        structlog.contextvars.bind_contextvars(request=request_id)
        started = time.monotonic()
        status = 0

        async def outward(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [*message.get("headers", ())]
                named = {name.lower() for name, _ in given}  # a page states a policy of its own
                message["headers"] = [
                    *given,
                    *(one for one in _SAFE if one[0] not in named),
                    (b"tailsight-request", request_id.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, outward)
        except ReaderTooSlowError as error:
            self._state.metrics.readers_cut.inc()
            _log.info("answer_cut", path=scope["path"], reason=str(error))
            raise
        except Exception:
            # The exception handlers have answered and logged what they could; an unfinished answer must break off.
            if not status:
                await problems.problem_response(500, "internal", "an error in the server")(scope, receive, outward)
            elif status < 500:
                raise
        finally:
            route = scope.get("route")
            name = getattr(route, "path", "none")
            self._state.metrics.requests.labels(name, str(status)).inc()
            if name != "/v1/stream":
                self._state.metrics.seconds.labels(name).observe(time.monotonic() - started)
            structlog.contextvars.unbind_contextvars("request")


def _description(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=[
                {"name": "health", "description": "Is it alive, is it ready, how does it go."},
                {"name": "latency", "description": "Percentiles, series, histograms and heatmaps."},
                {"name": "messages", "description": "Single messages and their timelines."},
                {"name": "events", "description": "What programs said about messages."},
                {"name": "delivery", "description": "Collectors, ledger and completeness."},
                {"name": "feeds", "description": "What the lines of feeds lost, repeated and reordered."},
                {"name": "changes", "description": "Who changed what and when."},
                {"name": "objectives", "description": "Error budgets, burn rates and alerts."},
                {"name": "hosts", "description": "Clocks and hosts."},
                {"name": "kpis", "description": "Business measures."},
                {"name": "money", "description": "What latency does to business measures and what it costs."},
                {"name": "reports", "description": "Executive reports."},
                {"name": "stream", "description": "What happens, as it happens."},
                {"name": "ingest", "description": "The agents' door."},
                {"name": "tokens", "description": "Who may do what."},
                {"name": "page", "description": "The page for a browser, and its sessions."},
            ],
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schemas["Problem"].pop("$defs", {}))
        schemas["Heartbeat"] = _heartbeat_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "`ts_<id>_<secret>`; x-tailsight-scope says which scope each route needs. On loopback "
                "no token is needed unless [server] require_token says so.",
            }
        }
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _errors(path, method, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _errors(path: str, method: str, operation: dict[str, Any]) -> None:
    """Every operation's error responses are problems; which can occur follows from what it takes."""
    public = operation.get(SCOPE) == "public"
    codes = {422, 429, 500}
    if path not in ("/healthz",):
        codes.add(503)
    if not public:
        codes |= {401, 403}
    if "requestBody" in operation:
        codes |= {408, 413, 415}
    if "{" in path:
        codes.add(404)
    if "application/vnd.apache.parquet" in operation["responses"].get("200", {}).get("content", {}):
        codes.add(406)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for code in sorted(codes):
        known = operation["responses"].get(str(code), {})
        if path == "/readyz" and code == 503:
            continue  # it answers with its checks
        operation["responses"][str(code)] = {
            "description": known.get("description", _ERRORS[code])
            if "HTTPValidationError" not in str(known)
            else _ERRORS[code],
            "content": problem,
        }
        if code in (429, 503):
            operation["responses"][str(code)]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    for code, response in operation["responses"].items():
        if code.startswith("4") and "content" not in response:
            response["content"] = problem
    operation.setdefault("operationId", f"{method}_{path.strip('/').replace('/', '_')}")


def _heartbeat_schema() -> dict[str, Any]:
    import msgspec

    _, parts = msgspec.json.schema_components([Heartbeat], ref_template="#/components/schemas/{name}")
    return dict(parts["Heartbeat"])


def doors(app: FastAPI) -> list[APIRoute]:
    """All routes, for the tests that walk them."""
    return [route for route in app.routes if isinstance(route, APIRoute)]
