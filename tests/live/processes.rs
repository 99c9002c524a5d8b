//! The life of processes.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use agentwatch::event::{Event, How, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{all_attributed, json, same_acts, same_processes};
use tests::daemon::Shared;
use tests::session::ActRun;

use crate::exact;

exact! {
    fork_and_exec: ["fork-exec", "5"],
    a_session_of_its_own: ["setsid"],
    /// Case A18.
    vfork: ["vfork-exec"],
    /// Case D07.
    a_new_pid_namespace: ["pidns"],
    /// Case D05.
    a_fork_storm: ["fork-storm", "300"],
    /// Case A16.
    odd_arguments: ["exec-args", "2000", "--hostile"],
    /// More than one record holds, less than the bound of 2 MiB.
    /// Case A16.
    long_arguments: ["exec-args", "1500000"],
    a_script_by_its_interpreter: ["script"],
    /// Case A17.
    exec_by_another_thread: ["exec-thread"],
    /// Case D03.
    the_first_thread_ends_before_the_others: ["leader-exits"],
}

#[test]
fn a_session_begins_and_ends_once() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["mkdir"])?;
        let kinds: Vec<_> = run.own().map(|event| event.kind).collect();
        ensure!(kinds.first() == Some(&Kind::SessionStart), "{kinds:?}");
        ensure!(kinds.last() == Some(&Kind::SessionEnd), "{kinds:?}");
        ensure!(kinds.iter().filter(|kind| **kind == Kind::SessionStart).count() == 1, "{kinds:?}");
        let hows: BTreeSet<_> = run.own().filter_map(|event| event.attribution).collect();
        ensure!(hows == BTreeSet::from([How::Launched]), "{hows:?}");
        // The session is the command, from its exec on.
        let exec = run.of_kind(Kind::ProcessExec).next().context("no exec")?;
        let process = exec.process.as_ref().context("no process")?;
        ensure!(process.pid == run.pid && run.truth.pid == run.pid, "{process:?} is not {}", run.pid);
        let args: Vec<_> = process.command_args.iter().map(|arg| arg.0.as_str()).collect();
        let dir = run.dir.path().to_string_lossy();
        ensure!(args == ["aw-act", "--dir", &dir, "mkdir"], "{args:?}");
        let command = exec.command.as_ref().map(|command| command.0.clone());
        ensure!(command == Some(format!("aw-act --dir {dir} mkdir")), "{command:?}");
        Ok(())
    })
}

/// Case D01.
#[test]
fn a_reparented_grandchild_stays() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["double-fork"])?;
        same_processes(&run)?;
        same_acts(&run)?;
        let created = run.of_kind(Kind::FileCreate).next().context("the grandchild did nothing")?;
        let parent = created.process.as_ref().and_then(|process| process.ppid).map(u64::from);
        ensure!(parent == Some(run.truth.number("new_parent")?), "{}", json(created));
        Ok(())
    })
}

/// Case D02.
#[test]
fn a_child_of_another_parent_stays() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["clone-parent"])?;
        same_processes(&run)?;
        same_acts(&run)?;
        let created = run.of_kind(Kind::FileCreate).next().context("the sibling did nothing")?;
        // The actor's parent is this test.
        let parent = created.process.as_ref().and_then(|process| process.ppid);
        ensure!(parent == Some(std::process::id()), "{}", json(created));
        Ok(())
    })
}

/// Case D03.
#[test]
fn threads_act_under_their_own_ids() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["threads", "8"])?;
        same_processes(&run)?;
        same_acts(&run)?;
        let did: BTreeSet<_> = run.truth.of_kind("file.create").map(|did| Some(did.tid)).collect();
        let told: BTreeSet<_> = run.of_kind(Kind::FileCreate).map(tid).collect();
        ensure!(did == told, "{told:?} instead of {did:?}");
        // A thread is no process.
        ensure!(run.of_kind(Kind::ProcessFork).next().is_none(), "a thread was told as a fork");
        Ok(())
    })
}

fn tid(event: &Event) -> Option<u32> {
    event.process.as_ref().and_then(|process| process.tid)
}

#[test]
fn an_exit_status_is_told_and_passed_on() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act_ending(&["exit-code", "42"])?;
        ensure!(run.status.code() == Some(42), "`agentwatch exec` ended with {}", run.status);
        same_processes(&run)
    })
}

#[test]
fn a_deadly_signal_is_told_and_passed_on() -> Result<()> {
    Shared::with(|daemon| {
        for signal in ["15", "9"] {
            let run = daemon.act_ending(&["killed-by", signal])?;
            ensure!(
                run.status.signal() == Some(signal.parse()?),
                "`agentwatch exec` ended with {}",
                run.status
            );
            same_processes(&run)?;
        }
        Ok(())
    })
}

/// Case E14.
#[test]
fn arguments_past_the_bound_are_said_to_be_cut() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["exec-args", "3000000"])?;
        same_processes(&run)?;
        let cut: Vec<_> = run.of_kind(Kind::ProcessExec).filter_map(|event| event.process.as_ref()).collect();
        let flags: Vec<_> = cut.iter().map(|process| process.command_args_truncated).collect();
        ensure!(flags == [false, true], "{flags:?}");
        let kept =
            cut.last().map(|process| process.command_args.iter().map(|arg| arg.0.len() + 1).sum::<usize>());
        ensure!(kept.is_some_and(|kept| kept > 1_900_000), "only {kept:?} of 2 MiB were kept");
        Ok(())
    })
}

#[test]
fn a_program_in_memory_is_named() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["memfd-exec"])?;
        same_processes(&run)?;
        let exec = run.of_kind(Kind::ProcessExec).last().context("no exec")?;
        let path = exec.process.as_ref().map(|process| process.executable_path.0.clone());
        ensure!(path.as_ref().is_some_and(|path| path.contains("memfd:aw-memfd")), "{path:?}");
        Ok(())
    })
}

/// Case D06.
#[test]
fn a_reused_pid_is_another_process() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["pid-reuse", "10"])?;
        same_acts(&run)?;
        all_attributed(&run)?;
        let pid = u32::try_from(run.truth.number("pid")?)?;
        let born: Vec<_> = run.of_kind(Kind::ProcessFork).filter_map(|event| event.child.as_ref()).collect();
        let starts: BTreeSet<_> = born.iter().map(|child| child.start_time).collect();
        ensure!(born.len() == 10 && starts.len() == 10, "{born:?}");
        for kind in [Kind::FileCreate, Kind::ProcessExit] {
            ensure!(
                lives(&run, kind, pid) == starts,
                "{kind:?}: {:?} instead of {starts:?}",
                lives(&run, kind, pid)
            );
        }
        Ok(())
    })
}

/// Start times of the processes with this id that have an event of a kind.
fn lives(run: &ActRun, kind: Kind, pid: u32) -> BTreeSet<u64> {
    let processes = run.of_kind(kind).filter_map(|event| event.process.as_ref());
    processes.filter(|process| process.pid == pid).map(|process| process.start_time).collect()
}
