"""Calls the tools of an MCP server: each group of calls at once, one group after the other. Prints all answers."""

import json
import subprocess
import sys

groups, command = json.loads(sys.argv[1]), sys.argv[2:]
server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(**request):
    server.stdin.write(json.dumps({"jsonrpc": "2.0", **request}) + "\n")
    server.stdin.flush()


ask(id=0, method="initialize", params={"protocolVersion": "2025-06-18"})
server.stdout.readline()
for group in groups:
    for one in group:
        ask(id=one["id"], method="tools/call", params={"name": one["tool"], "arguments": one["arguments"]})
    for _ in group:
        print(server.stdout.readline(), end="", flush=True)
server.stdin.close()
sys.exit(server.wait())
