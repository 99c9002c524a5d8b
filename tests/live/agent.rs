//! A real agent: Claude Code, driven by a scripted model.

use std::path::{Path, PathBuf};

use agentwatch::event::{Event, How, Kind};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::agents::claude;
use tests::compare::{all_attributed, json};
use tests::daemon::Shared;
use tests::model_server::{ModelServer, Script, ToolCall, Turn, read_record};
use tests::session::{SessionRun, work_dir};

/// Where the guest has what [`tests::agents::install`] made.
pub const SHARED: &str = "/share/agents";

fn call(name: &str, input: serde_json::Value) -> ToolCall {
    ToolCall { name: name.to_owned(), input }
}

/// Two tools at once, one that reads, one that edits beside a shell with a child in the background, an end.
fn script(dir: &Path) -> Script {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let shell = |command: String| call("Bash", json!({"command": command, "description": "scripted"}));
    let turn = |tools: Vec<ToolCall>| Turn { text: String::new(), tools };
    Script {
        turns: vec![
            turn(vec![
                shell(format!("id -u; echo shell > {}", path("by-shell"))),
                call("Write", json!({"file_path": path("by-write"), "content": "written\n"})),
            ]),
            turn(vec![call("Read", json!({"file_path": path("by-write")}))]),
            turn(vec![
                call(
                    "Edit",
                    json!({"file_path": path("by-write"), "old_string": "written", "new_string": "edited"}),
                ),
                shell(format!(
                    "(echo late > {}) & wait; python3 -c 'import os; os.mkdir(\"{}\")'",
                    path("late"),
                    path("py")
                )),
            ]),
            Turn { text: "all done".to_owned(), tools: Vec::new() },
        ],
        ..Script::default()
    }
}

#[test]
fn everything_that_claude_code_does_is_its_sessions() -> Result<()> {
    let program = claude::program(Path::new(SHARED));
    ensure!(
        program.is_file(),
        "no Claude Code at `{}`: share what `aw-agents DIR` installs",
        program.display()
    );
    Shared::with(|daemon| {
        let (home, dir) = (work_dir()?, work_dir()?);
        let record = home.path().join("record.jsonl");
        let server = ModelServer::start(script(dir.path()), &record, 0)?;
        let mut command = daemon.exec(claude::words(&program, "do the work"));
        command.current_dir(dir.path());
        command.envs(claude::environment(home.path(), &server.url()));
        let run = daemon.run_session(command)?;
        ensure!(run.status.success(), "Claude Code ended with {}: {}", run.status, run.stderr);
        ensure!(String::from_utf8_lossy(&run.stdout).contains("all done"), "it said {:?}", run.stdout);
        tools_worked(&record)?;
        all_attributed(&run)?;
        is_whole(&run)?;
        by_itself_and_its_children(&run, dir.path())?;
        connected_to(&run, server.address().port())
    })
}

fn tools_worked(record: &Path) -> Result<()> {
    let requests = read_record(record)?;
    let results: Vec<_> = requests.iter().flat_map(|request| &request.tool_results).collect();
    ensure!(results.len() == 5, "{} results of 5 tools: {results:#?}", results.len());
    ensure!(results.iter().all(|result| !result.is_error), "a tool failed: {results:#?}");
    Ok(())
}

/// Each process of the session was made by one of it, and each that was made has ended.
fn is_whole(run: &SessionRun) -> Result<()> {
    let identity = |event: &Event| event.process.as_ref().map(|process| (process.pid, process.start_time));
    let born = |event: &Event| event.child.as_ref().map(|child| (child.pid, child.start_time));
    let mut known: Vec<_> = run.of_kind(Kind::ProcessFork).filter_map(born).collect();
    // The first one is the launcher, which became the agent.
    known.extend(run.own().find_map(identity));
    known.sort_unstable();
    let mut ended: Vec<_> = run.of_kind(Kind::ProcessExit).filter_map(identity).collect();
    ended.sort_unstable();
    ensure!(known == ended, "processes {known:?}, ends {ended:?}");
    for event in run.own().filter(|event| event.process.is_some()) {
        ensure!(
            identity(event).is_some_and(|one| known.contains(&one)),
            "by an unknown process: {}",
            json(event)
        );
        ensure!(event.attribution == Some(How::Launched), "{}", json(event));
    }
    Ok(())
}

/// Its tools' effects are there, each by the right program.
fn by_itself_and_its_children(run: &SessionRun, dir: &Path) -> Result<()> {
    let by = |kind: Kind, name: &str| -> Result<PathBuf> {
        let path = dir.join(name).to_string_lossy().into_owned();
        let event =
            run.of_kind(kind).find(|event| event.file.as_ref().is_some_and(|file| file.path.0 == path));
        let process = event.and_then(|event| event.process.as_ref());
        let process = process.with_context(|| format!("no {kind:?} of `{path}`"))?;
        Ok(PathBuf::from(&process.executable_path.0))
    };
    ensure!(by(Kind::FileCreate, "by-shell")?.ends_with("bash"), "not by the shell");
    ensure!(by(Kind::FileCreate, "late")?.ends_with("bash"), "not by the shell");
    let python = by(Kind::FileMkdir, "py")?;
    ensure!(python.to_string_lossy().contains("python3"), "not by Python: {}", python.display());
    // Written in place or by a temporary file that is renamed: the agent's own program in any case.
    let path = dir.join("by-write").to_string_lossy().into_owned();
    let touched = run.own().find(|event| {
        let file = event.file.as_ref();
        file.is_some_and(|file| file.path.0 == path || file.path_to.as_ref().is_some_and(|to| to.0 == path))
    });
    let process = touched.and_then(|event| event.process.as_ref()).context("nobody wrote `by-write`")?;
    ensure!(process.executable_path.0.ends_with("/claude"), "not by Claude Code: {process:?}");
    let execs: Vec<_> = run.of_kind(Kind::ProcessExec).filter_map(|event| event.command.as_ref()).collect();
    ensure!(execs.iter().any(|command| command.0 == "id -u"), "no `id -u` among {execs:?}");
    Ok(())
}

/// Its only peers on the network are the model, which it reaches once or more.
fn connected_to(run: &SessionRun, port: u16) -> Result<()> {
    let mut model = 0;
    for event in run.of_kind(Kind::NetConnect) {
        let network = event.network.as_ref().context("without a network")?;
        if network.transport != "tcp" {
            continue;
        }
        let peer = network.peer_address.as_ref().map(|address| address.0.as_str());
        ensure!(
            peer == Some("127.0.0.1") && network.peer_port == Some(port.into()),
            "another peer: {}",
            json(event)
        );
        model += 1;
    }
    ensure!(model > 0, "no connection to the model");
    Ok(())
}
