"""The HTTP server of the BFF, answering a constant: what the server itself costs.

Run as `python -m bench.constant`; prints one JSON line with its address, serves until SIGTERM.
"""

import asyncio
import json
import signal
import sys

from litestar import Litestar, MediaType, Response, post

from flotilla.service import HttpBinding
from svc_web_bff.exchange import AnyRequest
from svc_web_bff.server import serving

BODY = b'{"counter_id":"c1234","value":5,"version":6}'


@post("/v1/counters/{counter_id:str}/increment", status_code=200)
async def constant(request: AnyRequest, counter_id: str) -> Response[bytes]:
    """Read the body, answer the same every time."""
    del counter_id
    await request.body()
    return Response(BODY, media_type=MediaType.JSON)


async def main() -> None:
    """Serve until SIGTERM."""
    app = Litestar([constant], openapi_config=None, logging_config=None)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with serving(app, HttpBinding("127.0.0.1", 0), stop_timeout_s=1.0) as server:
        sys.stdout.write(json.dumps({"api": server.address}) + "\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
