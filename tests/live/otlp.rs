//! Spans of tool calls, as OpenTelemetry's SDK for Python sends them from a session.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use agentwatch::event::{CallBy, Event, Kind, Verdict};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, PATIENCE, Place, Shared};
use tests::session::{SessionRun, work_dir};

/// Where the guest has OpenTelemetry's SDK.
const SHARED: &str = "/share/otel";
const ADDRESS: &str = "127.0.0.1:4318";

/// The one event of a session that tells of a call by a span.
fn reported<'a>(run: &'a SessionRun, call: &str) -> Result<&'a Event> {
    let is_it = |event: &&Event| event.tool_call.as_ref().is_some_and(|one| *one.id == *call);
    let found: Vec<&Event> = run.of_kind(Kind::ToolReported).filter(is_it).collect();
    ensure!(found.len() == 1, "{call}: {} events, {}", found.len(), json_lines(&run.events));
    found.first().copied().context("none")
}

/// What an event says was done in the time of its span: reason, writes, refusals.
fn seen(event: &Event) -> Result<(&str, u64, u64)> {
    let call = event.tool_call.as_ref().context("no call")?;
    ensure!(call.by == Some(CallBy::Time), "{}", json(event));
    let outcome = event.outcome.as_ref().with_context(|| json(event))?;
    Ok((event.reason.as_deref().unwrap_or_default(), outcome.writes, outcome.denied))
}

/// Sends a span from here, which is in no session. Gives the answer.
fn send_outside() -> Result<String> {
    let name = json!({"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}});
    let (trace, id) = ("5b8efff798038103d269b633813fc60d", "eee19b7ec3c1b175");
    let span = json!({"traceId": trace, "spanId": id, "name": "execute_tool ls", "attributes": [name]});
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string();
    let mut stream = TcpStream::connect(ADDRESS).context("nobody listens")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn spans_of_a_session_are_told_beside_what_was_seen() -> Result<()> {
    ensure!(Path::new(SHARED).is_dir(), "no OpenTelemetry SDK at `{SHARED}`: share what xtask fetches");
    let _apart = Shared::apart()?;
    let place = Place::new()?;
    let mut command = place.run();
    command.args(["--otlp", ADDRESS]);
    let mut daemon = Daemon::start_by(&place, command)?;
    let result = spans(&mut daemon).map_err(|error| error.context(daemon.said()));
    daemon.stop()?;
    result
}

fn spans(daemon: &mut Daemon) -> Result<()> {
    fs::create_dir_all("/srv/aw-prod")?;
    fs::write("/srv/aw-prod/f", "precious")?;
    let dir = work_dir()?;
    let agent = dir.path().join("agent.py");
    fs::write(&agent, include_str!("otlp/agent.py"))?;
    let work = dir.path().join("work");
    fs::create_dir(&work)?;
    let mut command = daemon.exec_as("strict", ["python3".as_ref(), agent.as_path(), work.as_path()]);
    command.env("PYTHONPATH", SHARED).env("PYTHONDONTWRITEBYTECODE", "1");
    let run = daemon.run_session(command)?;
    let said = String::from_utf8_lossy(&run.stdout);
    ensure!(run.status.success(), "{}: {said} {}", run.status, run.stderr);
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines == ["exported SUCCESS", "exported SUCCESS", "by hand 200 {}"], "{said} {}", run.stderr);
    what_was_seen(&run)?;
    what_was_retrieved(&run)?;
    what_was_told_by_others(&run)?;
    what_cannot_be(&run)?;
    // To send them is a connection like any other.
    let connects =
        |event: &&Event| event.network.as_ref().is_some_and(|network| network.peer_port == Some(4318));
    let connect = run.of_kind(Kind::NetConnect).find(connects).context("nobody connected")?;
    ensure!(connect.verdict == Verdict::Allowed && connect.policy.is_some(), "{}", json(connect));
    outside(daemon)
}

fn what_was_seen(run: &SessionRun) -> Result<()> {
    for (call, name) in [("call_write", "write_file"), ("call_run", "shell")] {
        let event = reported(run, call)?;
        let (reason, writes, denied) = seen(event)?;
        ensure!(reason.starts_with("reported success: ") && writes > 0 && denied == 0, "{}", json(event));
        ensure!(event.tool_call.as_ref().is_some_and(|call| &*call.name == name), "{}", json(event));
        let span = event.span.as_ref().with_context(|| json(event))?;
        ensure!(span.trace_id.len() == 32 && span.parent.is_some() && span.start < span.end, "{span:?}");
        ensure!(span.conversation.as_deref() == Some("conv_1"), "{span:?}");
    }
    let write = reported(run, "call_write")?;
    let input = write.tool_call.as_ref().and_then(|call| call.input.as_deref()).unwrap_or_default();
    ensure!(input.starts_with("{\"path\":\"/") && input.ends_with("/a\"}"), "{}", json(write));
    let denied = reported(run, "call_denied")?;
    let found = seen(denied)?;
    ensure!(found == ("reported success, and 1 operation was denied", 0, 1), "{}", json(denied));
    let nothing = reported(run, "call_nothing")?;
    ensure!(seen(nothing)? == ("reported success, and wrote nothing", 0, 0), "{}", json(nothing));
    let failed = reported(run, "call_failed")?;
    ensure!(seen(failed)?.0.starts_with("reported failure: "), "{}", json(failed));
    let outcome = failed.outcome.as_ref().and_then(|outcome| outcome.output.as_deref()).unwrap_or_default();
    ensure!(outcome.contains("no such thing"), "{}", json(failed));
    let error = failed.span.as_ref().and_then(|span| span.error.as_deref());
    ensure!(error == Some("ValueError"), "{}", json(failed));
    let by_hand = reported(run, "span-eee19b7ec3c1b174")?;
    ensure!(by_hand.tool_call.as_ref().is_some_and(|call| &*call.name == "by_hand"), "{}", json(by_hand));
    Ok(())
}

/// What its model was given to decide by is told once, and found by the trace of what it did then.
fn what_was_retrieved(run: &SessionRun) -> Result<()> {
    let found: Vec<&Event> = run.of_kind(Kind::ContextRetrieved).collect();
    let [event] = found[..] else { bail!("{} events: {}", found.len(), json_lines(&run.events)) };
    let context = event.context.as_ref().with_context(|| json(event))?;
    let ids: Vec<&str> = context.documents.iter().map(String::as_str).collect();
    ensure!(context.source.as_deref() == Some("runbooks") && ids == ["doc_1", "doc_2"], "{}", json(event));
    let reason = event.reason.as_deref().unwrap_or_default();
    ensure!(reason == "reported that it retrieved 2 documents from `runbooks`", "{}", json(event));
    let trace = |event: &Event| event.span.as_ref().map(|span| span.trace_id.clone());
    let is_same = trace(event).is_some() && trace(event) == trace(reported(run, "call_write")?);
    ensure!(is_same, "{}", json(event));
    Ok(())
}

/// Of a call that a hook has told of the span tells only what is its own.
fn what_was_told_by_others(run: &SessionRun) -> Result<()> {
    let event = reported(run, "call_hook")?;
    let reason = event.reason.as_deref().unwrap_or_default();
    ensure!(reason == "reported success; the call was told of before", "{}", json(event));
    ensure!(event.outcome.is_none() && event.span.is_some(), "{}", json(event));
    let ended = run.of_kind(Kind::ToolEnded).count();
    ensure!(ended == 1, "{ended} ends: {}", json_lines(&run.events));
    Ok(())
}

/// Two spans have times that cannot be: of each export one event says so.
fn what_cannot_be(run: &SessionRun) -> Result<()> {
    let refused: Vec<&Event> = run.of_kind(Kind::ToolRefused).collect();
    ensure!(refused.len() == 2, "{}", json_lines(&run.events));
    for event in refused {
        let reason = event.reason.as_deref().unwrap_or_default();
        ensure!(event.count == 2 && reason.starts_with("2 of 9 spans refused: "), "{}", json(event));
        ensure!(reason.contains("in the future"), "{}", json(event));
    }
    Ok(())
}

/// Who is in no session is refused, and that is told; `doctor` says that there is a receiver.
fn outside(daemon: &mut Daemon) -> Result<()> {
    let answer = send_outside()?;
    ensure!(answer.starts_with("HTTP/1.1 403") && answer.contains("in none"), "{answer}");
    let refused = |event: &Event| event.kind == Kind::ToolRefused && event.session.is_empty();
    let events = daemon.wait_for("tool.refused of nobody", refused)?;
    let reported = events.iter().filter(|event| event.kind == Kind::ToolReported).count();
    ensure!(reported == 0, "{}", json_lines(&events));
    let doctor = daemon.place().agentwatch(["doctor"]).output()?;
    let doctor = String::from_utf8_lossy(&doctor.stdout);
    ensure!(doctor.contains("spans at 127.0.0.1:4318"), "{doctor}");
    let other = daemon.place().agentwatch(["run", "--otlp", "0.0.0.0:4318"]).output()?;
    let said = String::from_utf8_lossy(&other.stderr);
    ensure!(!other.status.success() && said.contains("loopback"), "{said}");
    Ok(())
}
