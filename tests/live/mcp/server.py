"""A small MCP server: a thread a call, so that calls overlap."""

import json
import os
import subprocess
import sys
import threading

STRING = {"type": "string"}
TOOLS = [
    {
        "name": name,
        "description": name,
        "inputSchema": {"type": "object", "properties": {"path": STRING, "content": STRING, "command": STRING}},
    }
    for name in ("write_file", "read_file", "run", "note")
]
speaking = threading.Lock()
# Where two calls are to overlap, neither begins nor answers without the other.
both = threading.Barrier(2)


def say(request, **answer):
    with speaking:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)


def work(tool, arguments):
    if tool == "write_file":
        with open(arguments["path"], "w") as file:
            file.write(arguments.get("content", ""))
        return "written"
    if tool == "read_file":
        with open(arguments["path"]) as file:
            return file.read()
    if tool == "run":
        return subprocess.run(["sh", "-c", arguments["command"]], stdout=subprocess.PIPE, text=True).stdout
    # What no argument tells of.
    os.mkdir(os.environ["TOY_NOTE"])
    return "noted"


def call(request):
    arguments = request["params"].get("arguments", {})
    together = arguments.get("together")
    if together:
        both.wait(120)
    try:
        text, failed = work(request["params"]["name"], arguments), False
    except OSError as error:
        text, failed = str(error), True
    if together:
        both.wait(120)
    say(request, result={"content": [{"type": "text", "text": text}], "isError": failed})


for line in sys.stdin:
    request = json.loads(line)
    method = request.get("method")
    if method == "initialize":
        version = request["params"]["protocolVersion"]
        info = {"name": "toy", "version": "1"}
        say(request, result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})
    elif method == "tools/list":
        say(request, result={"tools": TOOLS})
    elif method == "tools/call":
        threading.Thread(target=call, args=(request,)).start()
    elif "id" in request:
        say(request, error={"code": -32601, "message": "no such method"})
