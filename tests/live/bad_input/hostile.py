"""Says what no session should to the socket of the daemon: declare.py SOCKET SESSION STOP-FILE.

Prints how each was answered, as JSON."""
import json
import os
import socket
import sys

SOCKET, OTHER, STOP = sys.argv[1:]
COUNT = {"refused": 0, "taken": 0}


def say(path, parts, head):
    """The status of the answer; 0 where the daemon hung up before it could be read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(SOCKET)
    try:
        sock.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode())
        for part in parts:
            sock.sendall(part)
    except OSError:
        pass
    try:
        status = int(sock.recv(4096).split(b" ")[1])
    except (OSError, IndexError):
        status = 0
    sock.close()
    COUNT["taken" if status == 200 else "refused"] += 1
    return status


def said(path, body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return say(path, [body], f"content-length: {len(body)}")


def huge():
    chunk = b"x" * (1 << 20)
    for _ in range(100):
        yield b"100000\r\n" + chunk + b"\r\n"
    yield b"0\r\n\r\n"


scope = {"write": ["/tmp"]}
begin = {"id": "t-1", "name": "Bash", "input": {"command": "true"}}
answers = {
    "broken": said("/v1/declare", b'{"scope": '),
    "no text": said("/v1/declare", b'{"task": "\xff"}'),
    "an operator": said("/v1/declare", {"scope": scope, "declared_by": "operator"}),
    "for another": said("/v1/declare", {"scope": scope, "session": OTHER}),
    "of yesterday": said("/v1/declare", {"scope": scope, "expires": "2026-01-01T00:00:00Z"}),
    "another's id": said("/v1/declare", {"scope": scope, "id": "int-aaaaaa"}),
    "100 MB, said before": say("/v1/declare", [], f"content-length: {100 << 20}"),
    "100 MB, sent": say("/v1/declare", huge(), "transfer-encoding: chunked"),
    "a broken call": said("/v1/tool", b"[1"),
    "a call of another": said("/v1/tool", {"event": "begin", "tool": begin, "session": OTHER}),
    "a call that is none": said("/v1/tool", {"event": "rule", "tool": begin}),
}
flood = {}
while not os.path.exists(STOP) or sum(flood.values()) < 300:
    status = said("/v1/declare", {"scope": scope})
    flood[status] = flood.get(status, 0) + 1
print(json.dumps({"answers": answers, "flood": flood, **COUNT}))
