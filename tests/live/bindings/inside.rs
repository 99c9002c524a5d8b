//! Sessions inside one that is bound.

use std::{fs, path::Path, process::Command};

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::{compare::json_lines, daemon::Shared};

use super::{bind, close, goes, is_refusal, refusals};
use crate::{
    intents::{Setting, declared},
    restarts::is_creation,
};

#[test]
fn a_session_inside_is_held_too() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let inner = setting.path("in/aw-inner");
        fs::copy("/bin/sh", &inner)?;
        let agentwatch = String::from_utf8(Command::new("which").arg("agentwatch").output()?.stdout)?;
        let shell = fs::canonicalize("/bin/sh")?.to_string_lossy().into_owned();
        // One that was there before.
        let gate = setting.path("in/gate");
        ensure!(Command::new("mkfifo").arg(&gate).status()?.success(), "no fifo");
        let earlier = setting.path("out/earlier");
        setting
            .shell
            .ask(&format!("{inner} -c 'read go < {gate}; echo x > {earlier}' 2> /dev/null & echo done"))?;
        daemon.wait_for("the session inside", |event| {
            event.kind == Kind::SessionStart && &*event.agent == "inner"
        })?;
        // What is emptied first is deleted, as in rules.
        let files = ["--write", "@in", "--delete", "@in"];
        let words =
            [&files[..], &["--exec", agentwatch.trim(), "--exec", &shell, "--exec", "@in/aw-inner"]].concat();
        let id = bind(&place, &setting, &words)?;
        fs::write(&gate, "go\n")?;
        ensure!(
            goes(&mut setting, "wait")? && !Path::new(&earlier).exists(),
            "a session that was inside before"
        );
        let (within, outside) = (setting.path("in/n"), setting.path("out/n"));
        for by in [
            format!("agentwatch exec --agent open -- {shell}"),
            inner.clone(),
            format!("{inner} -c '{shell} \"$0\" \"$1\"'"),
        ] {
            let runs = |path: &str| format!("{by} -c 'echo x > {path}' 2> /dev/null");
            if !by.contains("$0") {
                ensure!(goes(&mut setting, &runs(&within))?, "{by}: {}", refusals(&place)?);
            }
            let _ = goes(&mut setting, &runs(&outside))?;
            ensure!(!Path::new(&outside).exists(), "{by}: it was written outside");
        }
        let told = daemon.wait_for("the refusal", |event| {
            is_creation(event, &outside) && is_refusal(event, &id, Verdict::Denied)
        })?;
        ensure!(told.last().is_some_and(|event| *event.session != *setting.session));
        setting.shell.end()
    })
}

#[test]
fn a_session_inside_is_held_by_its_own_intent_and_by_the_one_around_it() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        fs::create_dir(setting.path("in/sub"))?;
        let gates = [setting.path("in/first"), setting.path("in/second")];
        ensure!(Command::new("mkfifo").args(&gates).status()?.success(), "no fifos");
        let path = |name: &str| setting.path(name);
        let script = format!(
            "read go < {}; echo x > {}; echo x > {}; echo x > {}; read go < {}; echo x > {}; echo x > {}",
            gates[0],
            path("in/sub/a"),
            path("in/a"),
            path("out/a"),
            gates[1],
            path("out/b"),
            path("in/b"),
        );
        let [within, around_only, own_only] = ["in/sub/a", "in/a", "out/a"].map(path);
        let [freed, still_held] = ["out/b", "in/b"].map(path);
        setting
            .shell
            .ask(&format!("agentwatch exec --agent open -- bash -c '{script}' 2> /dev/null & echo done"))?;
        let outer = setting.session.clone();
        let is_inner = |event: &Event| {
            event.kind == Kind::SessionStart && event.parent_session.as_deref() == Some(&*outer)
        };
        let begun = daemon.wait_for("the session inside", is_inner)?;
        let inner = begun.last().context("no event")?.session.clone();
        let around = bind(&place, &setting, &["--write", "@in"])?;
        let words = [
            "--session",
            &*inner,
            "--binding",
            "--write",
            &setting.path("in/sub"),
            "--write",
            &setting.path("out"),
        ];
        let own = declared(&place, &words)?;
        fs::write(&gates[0], "go\n")?;
        for (path, id) in [(&around_only, &own), (&own_only, &around)] {
            let told = daemon.wait_for("the refusal", |event| is_creation(event, path))?;
            ensure!(
                told.last().is_some_and(|event| is_refusal(event, id, Verdict::Denied)),
                "{}",
                json_lines(&told)
            );
        }
        ensure!(
            Path::new(&within).exists()
                && !Path::new(&around_only).exists()
                && !Path::new(&own_only).exists()
        );
        close(&place, &around)?;
        fs::write(&gates[1], "go\n")?;
        let told = daemon.wait_for("the refusal", |event| is_creation(event, &still_held))?;
        ensure!(
            told.last().is_some_and(|event| is_refusal(event, &own, Verdict::Denied)),
            "{}",
            json_lines(&told)
        );
        ensure!(Path::new(&freed).exists(), "what was closed holds the session inside");
        setting.shell.ask("wait; echo done")?;
        setting.shell.end()
    })
}

#[test]
fn what_is_inside_one_that_ended_is_held_still() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let other = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let [inner, gate, script, late] =
            ["in/aw-inner", "in/gate", "in/script", "out/late"].map(|name| setting.path(name));
        fs::copy("/bin/sh", &inner)?;
        ensure!(Command::new("mkfifo").arg(&gate).status()?.success(), "no fifo");
        bind(&place, &setting, &["--write", "@in", "--exec", "/usr/**", "--exec", "@in/aw-inner"])?;
        // One in between, which leaves one inside it and ends.
        fs::write(&script, format!("{inner} -c 'read go < {gate}; echo x > {late}' 2> /dev/null &\n"))?;
        setting.shell.ask(&format!("agentwatch exec --agent open -- sh {script}; echo done"))?;
        let mut between = None;
        let (mut begun, mut ended) = (false, false);
        daemon.until("the end of the one in between", |event| {
            let of_outer = event.parent_session.as_deref() == Some(&*setting.session);
            if event.kind == Kind::SessionStart && of_outer && &*event.agent == "open" {
                between = Some(event.session.clone());
            }
            begun |= event.kind == Kind::SessionStart && between.is_some() && event.parent_session == between;
            ended |= event.kind == Kind::SessionEnd && Some(&event.session) == between.as_ref();
            Ok(begun && ended)
        })?;
        // With each of these the daemon works out anew who is held.
        let id = bind(&place, &other, &["--write", "@in"])?;
        close(&place, &id)?;
        fs::write(&gate, "go\n")?;
        let told = daemon.wait_for("the refusal", |event| is_creation(event, &late))?;
        ensure!(told.last().is_some_and(|event| event.verdict == Verdict::Denied), "{}", json_lines(&told));
        ensure!(!Path::new(&late).exists());
        setting.shell.end()?;
        other.shell.end()
    })
}
