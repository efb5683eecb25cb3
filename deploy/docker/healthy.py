"""Ask the admin port whether this process is ready; the status of this command is the answer.

Run with `-IS`: nothing but the socket is imported, since it runs every few seconds.
"""

import os
import socket
import sys

TIMEOUT_S = 2.0

address = ("127.0.0.1", int(os.environ.get("FLOTILLA_ADMIN_PORT", "9090")))  # noqa: TID251 - no settings, no imports
try:
    with socket.create_connection(address, timeout=TIMEOUT_S) as admin:
        admin.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while chunk := admin.recv(65536):
            answer += chunk
except OSError as error:
    sys.exit(f"no answer from port {address[1]}: {error}")
head, _, body = answer.partition(b"\r\n\r\n")
sys.stdout.write(body.decode(errors="replace"))
sys.exit(0 if head.split(b" ", 2)[1:2] == [b"200"] else 1)
