//! Tool calls of a real agent, as its own hooks tell of them: what of its doings belongs to which.

mod share;
mod shown;

use std::fs;
use std::path::Path;

use agentwatch::event::{Alignment, CallBy, Event, Kind, Op, ToolCallRef, Verdict};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::agents::claude;
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, Shared};
use tests::model_server::{ModelServer, Script, ToolCall, Turn, tool_use_id, tool_use_id_of};
use tests::session::{SessionRun, work_dir};

use self::shown::Shown;
use crate::agent::SHARED;

pub fn call(name: &str, input: serde_json::Value) -> ToolCall {
    ToolCall { name: name.to_owned(), input }
}

/// What the prompt of the sub-agent holds, by which the model knows it.
const ERRAND: &str = "run the errand";

/// Shells at once, file edits, what goes on in the background, a sub-agent, and something that is refused.
fn script(dir: &Path) -> Script {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let shell = |command: String| call("Bash", json!({"command": command, "description": "scripted"}));
    let turn = |tools: Vec<ToolCall>| Turn { text: String::new(), tools };
    let said = |text: &str| Turn { text: text.to_owned(), tools: Vec::new() };
    let server = "import socket; s = socket.create_server((\"127.0.0.1\", 0)); s.settimeout(1); s.accept()";
    let errand = vec![turn(vec![shell(format!("echo x > {}", path("errand")))]), said("done that")];
    Script {
        turns: vec![
            turn(vec![
                shell(format!("echo 'one \"two\"' > {}; cat {0} > {}", path("a"), path("a-copy"))),
                shell(format!(
                    "echo x > {}; python3 -c 'import os; os.mkdir(\"{}\")'",
                    path("b"),
                    path("b-dir")
                )),
                call("Write", json!({"file_path": path("written"), "content": "written\n"})),
            ]),
            turn(vec![
                call(
                    "Edit",
                    json!({"file_path": path("written"), "old_string": "written", "new_string": "edited"}),
                ),
                shell(format!("(sleep 0.2; echo late > {}) > /dev/null 2>&1 &", path("late"))),
                call("Bash", json!({"command": format!("python3 -c '{server}'"), "run_in_background": true})),
                // Longer than what a hook tells of it.
                shell(format!("cat > {} <<'END'\n{}END", path("long"), "a line\n".repeat(3_000))),
            ]),
            turn(vec![call(
                "Agent",
                json!({"description": "errand", "prompt": ERRAND, "subagent_type": "general-purpose"}),
            )]),
            turn(vec![shell("cat /srv/aw-prod/f; true".to_owned())]),
            said("all done"),
        ],
        agents: [(ERRAND.to_owned(), errand)].into(),
    }
}

/// Runs Claude Code with the hooks in its settings.
pub fn run(daemon: &mut Daemon, dir: &Path, record: &Path, script: Script) -> Result<SessionRun> {
    let program = claude::program(Path::new(SHARED));
    let home = work_dir()?;
    let settings = home.path().join(".claude/settings.json");
    let settings = settings.to_str().context("the folder is not UTF-8")?;
    let installed = daemon
        .place()
        .agentwatch(["hook", "install", "claude-code", "--yes", "--settings", settings])
        .output()?;
    ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let server = ModelServer::start(script, record, 0)?;
    let mut command = daemon.exec_as("strict", claude::words(&program, "do the work"));
    command.current_dir(dir).envs(claude::environment(home.path(), &server.url()));
    let run = daemon.run_session(command)?;
    ensure!(run.status.success(), "Claude Code ended with {}: {}", run.status, run.stderr);
    Ok(run)
}

/// The call of the event that made a file or folder, and how that is known.
pub fn call_of(run: &SessionRun, path: &Path) -> Result<ToolCallRef> {
    let path = path.to_string_lossy();
    let made = |event: &&Event| {
        let file = event.file.as_ref();
        let is =
            |text: &str| text == path || text.strip_prefix(&*path).is_some_and(|rest| rest.starts_with('.'));
        matches!(event.kind, Kind::FileCreate | Kind::FileMkdir | Kind::FileRename)
            && file.is_some_and(|file| is(&file.path.0) || file.path_to.as_ref().is_some_and(|to| is(&to.0)))
    };
    let event = run.own().find(made).with_context(|| format!("nobody made `{path}`"))?;
    event.tool_call.clone().with_context(|| format!("no call: {}", json(event)))
}

#[test]
fn each_effect_of_claude_code_has_its_tool_call() -> Result<()> {
    Shared::with(|daemon| {
        fs::create_dir_all("/srv/aw-prod")?;
        fs::write("/srv/aw-prod/f", "precious")?;
        let (dir, records) = (work_dir()?, work_dir()?);
        let record = records.path().join("record.jsonl");
        let follower = Shown::follow(daemon, records.path())?;
        let run = run(daemon, dir.path(), &record, script(dir.path()))?;
        let shown = follower.up_to_the_end_of(&run.session)?;
        let prompt = run.of_kind(Kind::PromptSubmitted).next().context("no prompt")?;
        let prompt = prompt.prompt_id.as_ref().with_context(|| json(prompt))?;
        for (name, id, by) in [
            ("a", tool_use_id(0, 0), CallBy::Process),
            ("a-copy", tool_use_id(0, 0), CallBy::Process),
            ("b", tool_use_id(0, 1), CallBy::Process),
            ("b-dir", tool_use_id(0, 1), CallBy::Process),
            ("written", tool_use_id(0, 2), CallBy::Target),
            ("late", tool_use_id(1, 1), CallBy::Process),
            ("long", tool_use_id(1, 3), CallBy::Process),
            ("errand", tool_use_id_of(0, 0, 0), CallBy::Process),
        ] {
            let call = call_of(&run, &dir.path().join(name))?;
            ensure!((&*call.id, call.by) == (&*id, Some(by)), "{name}: {call:?} {}", json_lines(&run.events));
            let parent = (name == "errand").then(|| tool_use_id(2, 0));
            ensure!(call.parent.as_deref() == parent.as_deref(), "{name}: {call:?}");
            // And so it is shown to whoever follows the log.
            let (path, of) = (format!("{}/{name}", dir.path().display()), format!(" {id} prompt {prompt}"));
            let is_shown = shown.lines().any(|line| line.contains(&path) && line.ends_with(&of));
            ensure!(is_shown, "no `{path}` with `{of}` in:\n{shown}");
        }
        let by_tcp =
            |event: &&Event| event.network.as_ref().is_some_and(|network| network.transport == "tcp");
        let listens = run.own().filter(|event| event.kind == Kind::NetListen).find(by_tcp);
        let listens = listens.context("nobody listened")?;
        let call = listens.tool_call.as_ref().map(|call| call.id.to_string());
        ensure!(call == Some(tool_use_id(1, 2)), "{}", json(listens));
        let refused =
            run.own().find(|event| event.verdict == Verdict::Denied).context("nothing was refused")?;
        let call = refused.tool_call.as_ref().map(|call| call.id.to_string());
        ensure!(call == Some(tool_use_id(3, 0)), "{}", json(refused));
        what_was_told(&run)?;
        as_told(&run)?;
        // The agent was told, in the result of that call.
        let asked = fs::read_to_string(&record)?;
        ensure!(
            asked.contains("agentwatch refused 1 of what this tool call tried"),
            "the agent was not told: {asked}"
        );
        share::share(&run, dir.path())
    })
}

/// The log has the prompt, each call with what it was told, and what came of it.
fn what_was_told(run: &SessionRun) -> Result<()> {
    let find = |kind: Kind, id: Option<&str>| {
        let of = |event: &&Event| event.tool_call.as_ref().map(|call| &*call.id) == id;
        let found = run.own().filter(|event| event.kind == kind).find(of);
        found.with_context(|| format!("no {} of {id:?}: {}", kind.name(), json_lines(&run.events)))
    };
    let prompt = find(Kind::PromptSubmitted, None)?;
    ensure!(
        prompt.prompt.as_deref() == Some("do the work") && prompt.prompt_id.is_some(),
        "{}",
        json(prompt)
    );
    let written = tool_use_id(0, 2);
    let started = find(Kind::ToolStarted, Some(&written))?;
    let input = started.tool_call.as_ref().and_then(|call| call.input.as_deref()).unwrap_or_default();
    ensure!(input.contains("/written") && started.prompt_id == prompt.prompt_id, "{}", json(started));
    let ended = find(Kind::ToolEnded, Some(&written))?;
    let outcome = ended.outcome.as_ref().context("nothing came of it")?;
    ensure!(outcome.reported.as_deref() == Some("success") && outcome.writes > 0, "{}", json(ended));
    let refused = find(Kind::ToolEnded, Some(&tool_use_id(3, 0)))?;
    let reason = refused.reason.as_deref().unwrap_or_default();
    ensure!(reason == "reported success, and 1 operation was denied", "{}", json(refused));
    let done = find(Kind::PromptEnded, None)?;
    ensure!(done.prompt_id == prompt.prompt_id, "{}", json(done));
    Ok(())
}

/// What a command names is aligned with what the harness told, and an edit of the file that it told.
fn as_told(run: &SessionRun) -> Result<()> {
    let of = |id: &str, op: Op| {
        // Of what is known by being the only call at the time nothing is said.
        let is_known = |by| matches!(by, Some(CallBy::Process | CallBy::Target));
        let is_of = |event: &&Event| {
            event.tool_call.as_ref().is_some_and(|call| *call.id == *id && is_known(call.by))
        };
        let found = run.own().filter(|event| event.op == Some(op)).filter(is_of);
        found.map(|event| event.intent.as_ref().and_then(|intent| intent.alignment)).collect::<Vec<_>>()
    };
    for (id, op) in
        [(tool_use_id(0, 2), Op::Write), (tool_use_id(0, 0), Op::Exec), (tool_use_id(0, 1), Op::Exec)]
    {
        let found = of(&id, op);
        let aligned =
            !found.is_empty() && found.iter().all(|alignment| *alignment == Some(Alignment::Aligned));
        ensure!(aligned, "{id} {}: {found:?} {}", op.name(), json_lines(&run.events));
    }
    Ok(())
}
