//! What a real agent left behind, and cron runs an hour later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agentwatch::event::{Event, Kind, UsedBy};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::compare::{json, json_lines};
use tests::daemon::Shared;
use tests::model_server::{Script, Turn, tool_use_id};
use tests::session::work_dir;

use crate::calls::{call, run};
use crate::caused::blame;
use crate::contract::Forward;
use crate::delegates::wait_for_file;
use crate::jobs::Delegate;
use crate::restarts::is_creation;

/// Case D14: a person's line of long ago runs a file that Claude Code wrote today.
#[test]
fn what_claude_code_left_is_blamed_on_it_an_hour_later() -> Result<()> {
    const TABLE: &str = "/var/spool/cron/crontabs/root";
    const RUNS: &str = "/run/crond.pid";
    const HOUR: Duration = Duration::from_secs(3600);
    Shared::with(|daemon| {
        let (dir, records) = (work_dir()?, work_dir()?);
        let [left, mark] =
            ["cleanup.sh", "mark"].map(|name| dir.path().join(name).to_string_lossy().into_owned());
        fs::write(
            TABLE,
            format!("{} * * * /bin/sh {left} {mark}\n", minute_and_hour(SystemTime::now() + HOUR)?),
        )?;
        fs::set_permissions(TABLE, fs::Permissions::from_mode(0o600))?;
        // It runs all the while, as on a host: one that begins after the hour does not make up for what was due before.
        let _ = fs::remove_file(RUNS);
        let cron = Delegate::start("cron")?;
        wait_for_file(RUNS)?;
        let write = call("Write", json!({"file_path": left, "content": "echo gone > \"$1\"\n"}));
        let turns = vec![
            Turn { text: String::new(), tools: vec![write] },
            Turn { text: "all done".to_owned(), tools: Vec::new() },
        ];
        let script = Script { turns, ..Script::default() };
        let agent = run(daemon, dir.path(), &records.path().join("record.jsonl"), script)?;
        let later = Forward::by(HOUR)?;
        let events = daemon.wait_for("what cron runs", |event| is_creation(event, &mark))?;
        drop((later, cron));
        fs::remove_file(TABLE)?;
        let made = events.last().context("no event")?;
        let is_start = |event: &&Event| event.kind == Kind::SessionStart && event.session == made.session;
        let start = events.iter().find(is_start).with_context(|| json_lines(&events))?;
        let cause = start.cause.as_ref().with_context(|| json(start))?;
        ensure!(cause.by == UsedBy::Read && *cause.session == *agent.session, "{}", json(start));
        let call = cause.tool_call.as_ref().with_context(|| json(start))?;
        let prompt = cause.prompt_id.as_ref().with_context(|| json(start))?;
        ensure!(*call.id == *tool_use_id(0, 0) && &*call.name == "Write", "{}", json(start));
        let said = blame(daemon.place(), &[&mark])?;
        for part in [agent.session.as_str(), &left, &call.id, prompt] {
            ensure!(said.contains(part), "no `{part}` in:\n{said}");
        }
        Ok(())
    })
}

/// The first two fields of a line of cron.
fn minute_and_hour(time: SystemTime) -> Result<String> {
    let at = format!("@{}", time.duration_since(UNIX_EPOCH)?.as_secs());
    let output = Command::new("date").args(["+%M %H", "-d", &at]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
