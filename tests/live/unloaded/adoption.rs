//! What ran before the daemon.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use agentwatch::event::{How, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::daemon::{Daemon, Place, Shared};
use tests::session::{copy_actor, wait, work_dir};

/// An agent that ran before the daemon: a program of a given name with children, until its input ends.
struct Before {
    child: Child,
    dir: tempfile::TempDir,
}

impl Before {
    fn start(children: u32) -> Result<Self> {
        let dir = work_dir()?;
        let program = copy_actor(&dir.path().join("aw-before"))?;
        let mut child = Command::new(program)
            .args(["--dir", &dir.path().to_string_lossy(), "processes", &children.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the actor")?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no output")?).read_line(&mut line)?;
        ensure!(line.contains("live"), "the actor said `{line}`");
        Ok(Self { child, dir })
    }

    fn end(mut self) -> Result<u32> {
        drop(self.child.stdin.take());
        ensure!(wait(&mut self.child)?.success(), "the actor failed in {}", self.dir.path().display());
        Ok(self.child.id())
    }
}

/// Case D17.
#[test]
fn what_ran_before_is_adopted_whole() -> Result<()> {
    const CHILDREN: u32 = 50;
    let machine = Shared::none()?;
    let before = Before::start(CHILDREN)?;
    let mut daemon = Daemon::start(&Place::new()?)?;
    let root = before.end()?;
    let events = crate::recognition::next_session(&mut daemon, "before", How::Adopted)?;
    let exits: Vec<_> = events.iter().filter(|event| event.kind == Kind::ProcessExit).collect();
    ensure!(exits.len() == usize::try_from(CHILDREN)? + 1, "{} exits", exits.len());
    let processes = exits.iter().filter_map(|event| event.process.as_ref());
    ensure!(
        processes.filter(|process| process.pid == root).count() == 1,
        "the first process's exit is missing"
    );
    daemon.stop()?;
    drop(machine);
    Ok(())
}
