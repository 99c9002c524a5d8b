//! Whose an event is: sessions beside and within each other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use agentwatch::event::{Event, How, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, Shared};
use tests::session::{act_words, copy_actor, wait, work_dir};

#[test]
fn two_sessions_at_once_stay_apart() -> Result<()> {
    Shared::with(|daemon| {
        let dirs = [work_dir()?, work_dir()?];
        let mut children = Vec::new();
        for dir in &dirs {
            let mut command = daemon.exec(act_words(dir.path(), &["fork-storm", "100"]));
            children.push(command.stdout(Stdio::null()).spawn()?);
        }
        for child in &mut children {
            ensure!(wait(child)?.success(), "an actor failed");
        }
        let events = until_ended(daemon, 2)?;
        let mut sessions = BTreeMap::<String, BTreeSet<usize>>::new();
        let mut created = 0;
        for event in events.iter().filter(|event| event.kind == Kind::FileCreate) {
            let path = event.file.as_ref().map(|file| file.path.0.as_str()).context("no file")?;
            let of = dirs.iter().position(|dir| path.starts_with(&*dir.path().to_string_lossy()));
            sessions.entry(event.session.to_string()).or_default().insert(of.context("of neither")?);
            created += 1;
        }
        ensure!(created == 200, "{created} files instead of 200");
        ensure!(sessions.len() == 2 && sessions.values().all(|dirs| dirs.len() == 1), "{sessions:?}");
        Ok(())
    })
}

/// All events until so many sessions have ended.
fn until_ended(daemon: &mut Daemon, count: usize) -> Result<Vec<Event>> {
    let (mut events, mut ended) = (Vec::new(), 0);
    daemon.until("end of all sessions", |event| {
        ended += usize::from(event.kind == Kind::SessionEnd);
        events.push(event);
        Ok(ended == count)
    })?;
    Ok(events)
}

#[test]
fn a_session_in_a_session_has_a_parent() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let inner = copy_actor(&dir.path().join("aw-inner"))?;
        let run = format!("{} noop; aw-act noop", inner.display());
        let mut child = daemon.exec(["bash", "-c", &run]).spawn()?;
        ensure!(wait(&mut child)?.success(), "bash failed");
        let events = until_ended(daemon, 2)?;
        let starts: Vec<_> = events.iter().filter(|event| event.kind == Kind::SessionStart).collect();
        ensure!(starts.len() == 2, "{}", json_lines(starts.iter().copied()));
        let (outer, inner) = (starts.first().context("none")?, starts.last().context("none")?);
        ensure!((&*outer.agent, outer.attribution) == ("test", Some(How::Launched)), "{}", json(outer));
        ensure!((&*inner.agent, inner.attribution) == ("inner", Some(How::Matched)), "{}", json(inner));
        ensure!(inner.owner.as_deref() == Some("inner@example.com"), "{}", json(inner));
        ensure!(
            outer.parent_session.is_none() && inner.parent_session.as_ref() == Some(&outer.session),
            "{}",
            json(inner)
        );
        // The sub-agent's exec is its own; the shell's later ones are the outer session's.
        let execs =
            |agent: &str| events.iter().filter(|e| e.kind == Kind::ProcessExec && &*e.agent == agent).count();
        ensure!((execs("test"), execs("inner")) == (2, 1), "{:?}", (execs("test"), execs("inner")));
        Ok(())
    })
}
