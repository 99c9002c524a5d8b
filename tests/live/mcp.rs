//! Calls of an MCP server's tools, as the relay in front of it tells of them.

use std::fs;
use std::path::{Path, PathBuf};

use agentwatch::event::{CallBy, Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::agents::claude;
use tests::compare::{json, json_lines};
use tests::daemon::Shared;
use tests::model_server::{ModelServer, Script, ToolCall, Turn, tool_use_id};
use tests::session::{SessionRun, work_dir};

use crate::agent::SHARED;

const SENTENCE: &str = "agentwatch refused 1 of what this tool call tried";

/// Writes the server and its client into a folder.
fn programs(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let (server, client) = (dir.join("server.py"), dir.join("client.py"));
    fs::write(&server, include_str!("mcp/server.py"))?;
    fs::write(&client, include_str!("mcp/client.py"))?;
    Ok((server, client))
}

fn precious() -> Result<()> {
    fs::create_dir_all("/srv/aw-prod")?;
    Ok(fs::write("/srv/aw-prod/f", "precious")?)
}

/// The event that made a file or folder.
fn making<'a>(run: &'a SessionRun, path: &Path) -> Result<&'a Event> {
    let path = path.to_string_lossy();
    let made = |event: &&Event| {
        matches!(event.kind, Kind::FileCreate | Kind::FileMkdir)
            && event.file.as_ref().is_some_and(|file| file.path.0 == path)
    };
    let found = run.own().find(made);
    found.with_context(|| format!("nobody made `{path}`: {}", json_lines(&run.events)))
}

/// Id, tool and reason of an event's call.
fn call_of(event: &Event) -> Result<(&str, &str, CallBy)> {
    let call = event.tool_call.as_ref().with_context(|| format!("no call: {}", json(event)))?;
    let by = call.by.with_context(|| format!("nobody says how it is known: {}", json(event)))?;
    Ok((&call.id, &call.name, by))
}

fn refusal(run: &SessionRun) -> Result<&Event> {
    run.own().find(|event| event.verdict == Verdict::Denied).context("nothing was refused")
}

#[test]
fn calls_of_an_mcp_server_own_what_it_does_for_them() -> Result<()> {
    Shared::with(|daemon| {
        precious()?;
        let dir = work_dir()?;
        let (server, client) = programs(dir.path())?;
        let path = |name: &str| dir.path().join(name);
        let one =
            |id: Value, tool: &str, arguments: Value| json!({"id": id, "tool": tool, "arguments": arguments});
        let groups = json!([
            [one(json!(1), "write_file", json!({"path": path("a")}))],
            [one(json!("two"), "note", json!({}))],
            [
                one(json!(3), "write_file", json!({"path": path("c"), "together": true})),
                one(json!(4), "write_file", json!({"path": path("d"), "together": true})),
            ],
            [
                one(
                    json!(5),
                    "run",
                    json!({"command": format!("mkdir {}", path("e").display()), "together": true})
                ),
                one(
                    json!(6),
                    "run",
                    json!({"command": format!("mkdir '{}'", path("f").display()), "together": true})
                ),
            ],
            [one(
                json!(7),
                "run",
                json!({"command": format!("(sleep 0.2; mkdir {}) > /dev/null &", path("g").display())})
            )],
            [one(json!(8), "read_file", json!({"path": "/srv/aw-prod/f"}))],
        ]);
        let mut words = vec!["python3".into(), client.into_os_string(), groups.to_string().into()];
        words.extend(["agentwatch", "hook", "mcp", "--", "python3"].map(Into::into));
        words.push(server.into_os_string());
        let mut command = daemon.exec_as("strict", words);
        command.env("TOY_NOTE", path("b"));
        let run = daemon.run_session(command)?;
        ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
        for (name, id, tool, by) in [
            ("a", "-1", "write_file", CallBy::Target),
            ("b", "-\"two\"", "note", CallBy::Only),
            ("c", "-3", "write_file", CallBy::Target),
            ("d", "-4", "write_file", CallBy::Target),
            ("e", "-5", "run", CallBy::Process),
            ("f", "-6", "run", CallBy::Process),
            ("g", "-7", "run", CallBy::Process),
        ] {
            let event = making(&run, &path(name))?;
            let found = call_of(event)?;
            let expected = found.0.starts_with("mcp-") && found.0.ends_with(id);
            ensure!(
                expected && found.1 == format!("mcp__toy__{tool}") && found.2 == by,
                "{name}: {}",
                json(event)
            );
        }
        let refused = refusal(&run)?;
        let (id, ..) = call_of(refused)?;
        ensure!(id.ends_with("-8"), "{}", json(refused));
        let is_its_end = |event: &&Event| {
            event.kind == Kind::ToolEnded && event.tool_call.as_ref().is_some_and(|call| *call.id == *id)
        };
        let ended = run.own().find(is_its_end).context("the log does not say that the call is over")?;
        ensure!(ended.reason.as_deref() == Some("over, and 1 operation was denied"), "{}", json(ended));
        told(&run)
    })
}

/// The answer of the call to which something was refused says so, and no other.
fn told(run: &SessionRun) -> Result<()> {
    let said = String::from_utf8_lossy(&run.stdout);
    let answers: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(answers.len() == 8, "{said}");
    for answer in &answers {
        let told = answer.to_string().contains(SENTENCE);
        ensure!(told == (answer.get("id") == Some(&json!(8))), "{said}");
    }
    let last = answers.last().and_then(|answer| answer.pointer("/result/content/1/text")?.as_str());
    ensure!(last.is_some_and(|text| text.starts_with(SENTENCE)), "{said}");
    Ok(())
}

/// Two tools, and one to which something is refused.
fn script(dir: &Path) -> Script {
    let call = |name: &str, input: Value| ToolCall { name: format!("mcp__toy__{name}"), input };
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let turn = |tools: Vec<ToolCall>| Turn { text: String::new(), tools };
    Script {
        turns: vec![
            turn(vec![
                call("write_file", json!({"path": path("a"), "content": "x"})),
                call("run", json!({"command": format!("mkdir {}", path("b"))})),
            ]),
            turn(vec![call("read_file", json!({"path": "/srv/aw-prod/f"}))]),
            Turn { text: "all done".to_owned(), tools: Vec::new() },
        ],
        ..Script::default()
    }
}

#[test]
fn the_calls_of_claude_code_keep_their_ids_in_an_mcp_server() -> Result<()> {
    let program = claude::program(Path::new(SHARED));
    ensure!(program.is_file(), "no Claude Code at `{}`", program.display());
    for hooks in [true, false] {
        claude_with_a_server(&program, hooks)?;
    }
    Ok(())
}

/// Runs Claude Code with the relay in front of the server, with its own hooks or without.
fn claude_with_a_server(program: &Path, hooks: bool) -> Result<()> {
    Shared::with(|daemon| {
        precious()?;
        let (dir, home) = (work_dir()?, work_dir()?);
        let (record, settings) =
            (home.path().join("record.jsonl"), home.path().join(".claude/settings.json"));
        if hooks {
            let mut install =
                daemon.place().agentwatch(["hook", "install", "claude-code", "--yes", "--settings"]);
            let installed = install.arg(&settings).output()?;
            ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        }
        let (toy, _) = programs(home.path())?;
        let config = json!({"mcpServers": {"toy": {
            "command": "agentwatch",
            "args": ["hook", "mcp", "--", "python3", toy],
            "env": {"AGENTWATCH_RUN": daemon.place().run_dir()},
        }}});
        let server = ModelServer::start(script(dir.path()), &record, 0)?;
        let mut words = claude::words(program, "do the work");
        words.extend(["--mcp-config".into(), config.to_string().into()]);
        let mut command = daemon.exec_as("strict", words);
        command.current_dir(dir.path()).envs(claude::environment(home.path(), &server.url()));
        let run = daemon.run_session(command)?;
        let asked = fs::read_to_string(&record)?;
        ensure!(run.status.success(), "Claude Code ended with {}: {} {asked}", run.status, run.stderr);
        for (name, tool, by) in [("a", 0, CallBy::Target), ("b", 1, CallBy::Process)] {
            let event = making(&run, &dir.path().join(name)).context(asked.clone())?;
            let (id, _, found) = call_of(event)?;
            ensure!(id == tool_use_id(0, tool) && found == by, "{name}: {}", json(event));
        }
        let refused = refusal(&run).context(asked.clone())?;
        ensure!(call_of(refused)?.0 == tool_use_id(1, 0), "{}", json(refused));
        // The result of that call said so, and Claude Code's own hook did not say it again.
        let last = asked.lines().last().unwrap_or_default();
        ensure!(last.matches(SENTENCE).count() == 1, "hooks {hooks}: {last}");
        Ok(())
    })
}
