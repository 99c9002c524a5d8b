//! Tool calls of the other real agents, Codex CLI and Gemini CLI, as their own hooks tell of them.

use std::fs;
use std::path::Path;

use agentwatch::event::{CallBy, Event, Kind, Op, Verdict};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::agents::{codex, gemini};
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, Shared};
use tests::model_server::{ModelServer, Script, ToolCall, Turn, tool_use_id};
use tests::session::{SessionRun, work_dir};

use crate::agent::SHARED;
use crate::calls::call_of;

fn call(name: &str, input: Value) -> ToolCall {
    ToolCall { name: name.to_owned(), input }
}

fn turn(tools: Vec<ToolCall>) -> Turn {
    Turn { text: String::new(), tools }
}

fn said(text: &str) -> Turn {
    Turn { text: text.to_owned(), tools: Vec::new() }
}

/// What the agent must be told of the call to which something was refused.
const TOLD: &str = "agentwatch refused 1 of what this tool call tried";

/// Puts the hooks where the harness has its settings, runs it, and gives what it asked the model as well.
fn run(
    daemon: &mut Daemon,
    harness: &str,
    script: Script,
    dir: &Path,
    home: &Path,
    command: impl FnOnce(&mut Daemon, &str) -> Result<std::process::Command>,
) -> Result<(SessionRun, String)> {
    fs::create_dir_all("/srv/aw-prod")?;
    fs::write("/srv/aw-prod/f", "precious")?;
    let mut install = daemon.place().agentwatch(["hook", "install", harness, "--yes"]);
    let installed = install.env("HOME", home).env("CODEX_HOME", home).output()?;
    ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let record = home.join("record.jsonl");
    let server = ModelServer::start(script, &record, 0)?;
    let mut command = command(daemon, &server.url())?;
    command.current_dir(dir);
    let run = daemon.run_session(command)?;
    let asked = fs::read_to_string(&record)?;
    ensure!(run.status.success(), "{harness} ended with {}: {} {asked}", run.status, run.stderr);
    ensure!(String::from_utf8_lossy(&run.stdout).contains("all done"), "it said {:?}: {asked}", run.stdout);
    Ok((run, asked))
}

/// The id that a call was told by, of which the input holds a text.
fn told(run: &SessionRun, text: &str) -> Result<String> {
    let of = |event: &&Event| {
        let call = event.tool_call.as_ref();
        call.and_then(|call| call.input.as_deref()).is_some_and(|input| input.contains(text))
    };
    let found = run.of_kind(Kind::ToolStarted).find(of).and_then(|event| event.tool_call.as_ref());
    Ok(found.with_context(|| format!("no call with `{text}`: {}", json_lines(&run.events)))?.id.to_string())
}

/// Prompt and calls were told, and what came of these: `refused` is the one to which something was refused.
fn whole(run: &SessionRun, refused: &str, asked: &str, dir: &Path) -> Result<()> {
    let prompt = run.of_kind(Kind::PromptSubmitted).next().context("no prompt")?;
    ensure!(prompt.prompt.as_deref().is_some_and(|text| text.contains("do the work")), "{}", json(prompt));
    let denied = run.own().find(|event| event.verdict == Verdict::Denied).context("nothing was refused")?;
    ensure!(denied.tool_call.as_ref().map(|call| &*call.id) == Some(refused), "{}", json(denied));
    ensure!(denied.prompt_id == prompt.prompt_id && denied.prompt_id.is_some(), "{}", json(denied));
    let of = |event: &&Event| event.tool_call.as_ref().map(|call| &*call.id) == Some(refused);
    let ended = run.of_kind(Kind::ToolEnded).find(of).context("no end of that call")?;
    let outcome = ended.outcome.as_ref().context("nothing came of it")?;
    ensure!(outcome.denied == 1, "{}", json(ended));
    ensure!(asked.contains(TOLD), "the agent was not told: {asked}");
    let done = run.of_kind(Kind::PromptEnded).next().context("it is not told that the agent is done")?;
    ensure!(done.outcome.is_some() && done.prompt_id == prompt.prompt_id, "{}", json(done));
    all_below(run, dir)
}

/// All that was changed in the folder where the tools work is of a call. What else the harness starts is its own affair: it
/// looks around with programs of its own.
fn all_below(run: &SessionRun, dir: &Path) -> Result<()> {
    let is_below =
        |event: &&Event| event.file.as_ref().is_some_and(|file| Path::new(&file.path.0).starts_with(dir));
    let changes = |event: &&Event| matches!(event.op, Some(Op::Write | Op::Delete));
    let of_none: Vec<&Event> =
        run.own().filter(changes).filter(is_below).filter(|event| event.tool_call.is_none()).collect();
    ensure!(of_none.is_empty(), "of no call: {}", json_lines(of_none));
    Ok(())
}

#[test]
fn each_effect_of_codex_has_its_tool_call() -> Result<()> {
    Shared::with(|daemon| {
        let (dir, home) = (work_dir()?, work_dir()?);
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let shell = |command: String| call("exec_command", json!({"cmd": command}));
        let patch = |name: &str| format!("*** Begin Patch\n*** Add File: {name}\n+hello\n*** End Patch");
        let turns = vec![
            turn(vec![
                shell(format!("echo x > {}; cat {0} > {}", path("a"), path("a-copy"))),
                shell(format!("sleep 0.2; mkdir {}", path("b-dir"))),
            ]),
            turn(vec![call("apply_patch", json!(patch("patched")))]),
            turn(vec![shell("cat /srv/aw-prod/f; true".to_owned())]),
            // It does that itself, and its hook tells of a command.
            turn(vec![shell(format!("apply_patch <<'EOF'\n{}\nEOF", patch("by-word")))]),
            said("all done"),
        ];
        let script = Script { turns, ..Script::default() };
        let (run, asked) = run(daemon, "codex", script, dir.path(), home.path(), |daemon, url| {
            fs::write(home.path().join("config.toml"), codex::config(url))?;
            let program = codex::program(Path::new(SHARED));
            let mut command = daemon.exec_as("strict", codex::words(&program, "do the work"));
            command.envs(codex::environment(home.path()));
            Ok(command)
        })?;
        for (name, id, by) in [
            ("a", tool_use_id(0, 0), CallBy::Process),
            ("a-copy", tool_use_id(0, 0), CallBy::Process),
            ("b-dir", tool_use_id(0, 1), CallBy::Process),
            ("patched", tool_use_id(1, 0), CallBy::Target),
            ("by-word", tool_use_id(3, 0), CallBy::Target),
        ] {
            let call = call_of(&run, &dir.path().join(name))?;
            ensure!((&*call.id, call.by) == (&*id, Some(by)), "{name}: {call:?} {}", json_lines(&run.events));
        }
        whole(&run, &tool_use_id(2, 0), &asked, dir.path())
    })
}

#[test]
fn each_effect_of_gemini_has_its_tool_call() -> Result<()> {
    Shared::with(|daemon| {
        let (dir, home) = (work_dir()?, work_dir()?);
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let shell = |command: String| call("run_shell_command", json!({"command": command}));
        let turns = vec![
            turn(vec![
                shell(format!("echo x > {}; cat {0} > {}", path("a"), path("a-copy"))),
                shell(format!("sleep 0.2; mkdir {}", path("b-dir"))),
                call("write_file", json!({"file_path": "written", "content": "written\n"})),
            ]),
            turn(vec![shell("cat /srv/aw-prod/f; true".to_owned())]),
            said("all done"),
        ];
        let script = Script { turns, ..Script::default() };
        fs::create_dir(home.path().join(".gemini"))?;
        fs::write(home.path().join(".gemini/settings.json"), gemini::SETTINGS)?;
        let (run, asked) = run(daemon, "gemini", script, dir.path(), home.path(), |daemon, url| {
            let words = gemini::words(Path::new(SHARED), "do the work");
            let mut command = daemon.exec_as("strict", words);
            command.envs(gemini::environment(home.path(), url));
            Ok(command)
        })?;
        for (name, text, by) in [
            ("a", "a-copy", CallBy::Process),
            ("a-copy", "a-copy", CallBy::Process),
            ("b-dir", "b-dir", CallBy::Process),
            ("written", "written", CallBy::Target),
        ] {
            let call = call_of(&run, &dir.path().join(name))?;
            let id = told(&run, text)?;
            ensure!((&*call.id, call.by) == (&*id, Some(by)), "{name}: {call:?} {}", json_lines(&run.events));
        }
        whole(&run, &told(&run, "aw-prod")?, &asked, dir.path())
    })
}
