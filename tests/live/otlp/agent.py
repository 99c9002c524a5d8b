"""An agent that tells of its tools by spans, with OpenTelemetry's own SDK: what it does, what it is kept from, what it does not
do, what it cannot have done. Prints what came of each export."""

import json
import os
import subprocess
import sys
import time
import urllib.request

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import use_span

ENDPOINT = "http://127.0.0.1:4318/v1/traces"
folder = sys.argv[1]


class Exporter(OTLPSpanExporter):
    """Says what came of it, and keeps the spans to send them again."""

    def export(self, spans):
        self.last = list(spans)
        result = super().export(spans)
        print("exported", result.name, flush=True)
        return result


exporter = Exporter(endpoint=ENDPOINT, compression=Compression.Gzip)
provider = TracerProvider()
# All at once, at the end.
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
tracer = provider.get_tracer("agent")


def attributes(call, name, arguments):
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.arguments": json.dumps(arguments),
        "gen_ai.conversation.id": "conv_1",
    }


def tool(call, name, arguments, work):
    with tracer.start_as_current_span(f"execute_tool {name}", attributes=attributes(call, name, arguments)) as span:
        try:
            work()
        except PermissionError:
            # The tool keeps it to itself.
            pass
        except ValueError as error:
            span.set_attribute("error.type", type(error).__name__)
            raise


def write(path):
    with open(path, "w") as file:
        file.write("x")


def fail():
    raise ValueError("no such thing")


def hook(event, **more):
    told = {"hook_event_name": event, "session_id": "s", "tool_name": "Bash", "tool_use_id": "call_hook", **more}
    subprocess.run(["agentwatch", "hook", "claude-code"], input=json.dumps(told).encode(), check=True)


with tracer.start_as_current_span("chat some-model", attributes={"gen_ai.operation.name": "chat"}):
    retrieved = [{"id": "doc_1", "score": 0.95}, {"id": "doc_2", "score": 0.87}]
    with tracer.start_as_current_span(
        "retrieval runbooks",
        attributes={
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": "runbooks",
            "gen_ai.retrieval.documents": json.dumps(retrieved),
            "gen_ai.conversation.id": "conv_1",
        },
    ):
        pass
    tool("call_write", "write_file", {"path": f"{folder}/a"}, lambda: write(f"{folder}/a"))
    tool("call_run", "shell", {"command": "touch"}, lambda: subprocess.run(["touch", f"{folder}/b"], check=True))
    tool("call_denied", "read_file", {"path": "/srv/aw-prod/f"}, lambda: open("/srv/aw-prod/f"))
    tool("call_nothing", "write_file", {"path": f"{folder}/c"}, lambda: None)
    try:
        tool("call_failed", "lookup", {}, fail)
    except ValueError:
        pass
    hook("PreToolUse", tool_input={"command": "true"})
    tool("call_hook", "Bash", {"command": "true"}, lambda: None)
    hook("PostToolUse", tool_input={"command": "true"}, tool_response={"stdout": ""})
    # Times that cannot be.
    now = time.time_ns()
    for name, start, end in [("later", now, now + 3600 * 10**9), ("earlier", now - 10**15, now)]:
        span = tracer.start_span("execute_tool x", start_time=start, attributes=attributes(name, "x", {}))
        with use_span(span):
            pass
        span.end(end_time=end)
provider.force_flush()
# The same again, as after an answer that was lost.
exporter.export(exporter.last)

attribute = {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}}
span = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "execute_tool by_hand",
    "startTimeUnixNano": str(time.time_ns()),
    "endTimeUnixNano": str(time.time_ns()),
    "attributes": [attribute],
}
body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
request = urllib.request.Request(ENDPOINT, body, {"content-type": "application/json"})
with urllib.request.urlopen(request) as response:
    print("by hand", response.status, response.read().decode(), flush=True)
