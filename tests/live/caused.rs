//! What sessions leave behind, used by others: who is told of as `caused`, by whom, and who is not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use agentwatch::event::{Cause, Event, How, Kind, UsedBy};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, Place, Shared};
use tests::session::{SessionRun, work_dir};

use crate::restarts::is_creation;

/// A script that makes the file that it is given as its argument, and one more in a process of its own.
pub const SCRIPT: &str = r#"#!/bin/bash
> "$1"
/bin/sh -c '> "$1.child"' sh "$1"
"#;

/// A folder, with the names of files in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Result<Self> {
        Ok(Self(work_dir()?))
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }
}

/// Runs a session that leaves a file behind.
pub fn leave_behind(daemon: &mut Daemon, agent: &str, path: &str, text: &str) -> Result<SessionRun> {
    let mut command =
        daemon.exec_as(agent, ["bash", "-c", r#"printf %s "$2" > "$1"; chmod 755 "$1""#, "bash", path]);
    command.arg(text);
    let run = daemon.run_session(command)?;
    ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
    Ok(run)
}

/// Runs a command outside every session.
pub fn outside(words: &[&str]) -> Result<()> {
    let (program, rest) = words.split_first().context("no command")?;
    let status = Command::new(program).args(rest).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{words:?}: {status}");
    Ok(())
}

/// The cause of the session that made a file; checks that it is of no other session.
pub fn cause_of<'a>(events: &'a [Event], path: &str, writer: &SessionRun) -> Result<(&'a Event, &'a Cause)> {
    let said = || json_lines(events);
    let made = events.iter().find(|event| is_creation(event, path)).with_context(said)?;
    ensure!(made.attribution == Some(How::Caused), "{}", json(made));
    ensure!(made.parent_session.as_deref() == Some(writer.session.as_str()), "{}", json(made));
    let is_start = |event: &&Event| event.kind == Kind::SessionStart && event.session == made.session;
    let start = events.iter().find(is_start).with_context(said)?;
    let cause = start.cause.as_deref().with_context(said)?;
    ensure!(*cause.session == *writer.session && cause.agent == made.agent, "{}", json(start));
    Ok((start, cause))
}

/// Case D14.
#[test]
fn what_runs_a_script_of_a_session_is_caused_by_it() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let script = folder.path("job.sh");
        let writer = leave_behind(daemon, "test", &script, SCRIPT)?;
        let run_it = |mark: &str| format!("'{script}' '{}'", folder.path(mark));
        let deeper = format!("bash -c \"{}; :\"; :", run_it("hook").replace('"', "\\\""));
        let ways: [(&str, UsedBy, Vec<String>); 4] = [
            ("direct", UsedBy::Exec, vec![script.clone(), folder.path("direct")]),
            ("given", UsedBy::Read, vec!["sh".into(), script.clone(), folder.path("given")]),
            (
                "sourced",
                UsedBy::Read,
                vec![
                    "bash".into(),
                    "-c".into(),
                    format!("set -- '{}'; . '{script}'", folder.path("sourced")),
                ],
            ),
            ("hook", UsedBy::Exec, vec!["bash".into(), "-c".into(), deeper]),
        ];
        for (mark, by, words) in ways {
            outside(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
            let path = folder.path(mark);
            let events = daemon.wait_for(mark, |event| is_creation(event, &format!("{path}.child")))?;
            let (start, cause) = cause_of(&events, &path, &writer)?;
            ensure!(cause.by == by && cause.path.0 == script, "{mark}: {}", json(start));
            let (child, _) = cause_of(&events, &format!("{path}.child"), &writer)?;
            ensure!(child.session == start.session, "{mark}: {}", json_lines(&events));
            // The write is the one that the log tells of.
            let seq = cause.seq.with_context(|| json(start))?;
            let write = writer.own().find(|event| event.seq == seq).with_context(|| json(start))?;
            ensure!(
                write.kind == Kind::FileOpen && Some(&write.time) == cause.time.as_ref(),
                "{}",
                json(write)
            );
            let end = daemon.wait_for("its end", |event| {
                event.kind == Kind::SessionEnd && event.session == start.session
            })?;
            ensure!(!end.is_empty());
        }
        Ok(())
    })
}

/// A session whose shell tells of a prompt and a tool call, as a harness does, and runs the call.
pub fn leave_behind_by_call(daemon: &mut Daemon, path: &str, text: &str) -> Result<SessionRun> {
    let call = r#"printf %s "$2" > "$1"; chmod 755 "$1"; :"#;
    let script = format!(
        r#"hook() {{ agentwatch hook claude-code > /dev/null; }}
        printf '{{"hook_event_name":"UserPromptSubmit","prompt_id":"prompt-7"}}' | hook
        printf '{{"hook_event_name":"PreToolUse","prompt_id":"prompt-7","tool_use_id":"toolu_7","tool_name":"Bash","tool_input":{{"command":"run-the-call"}}}}' | hook
        bash -c '{call}' run-the-call "$1" "$2"; :"#
    );
    let mut command = daemon.exec(["bash", "-c", &script, "bash", path]);
    command.arg(text);
    let run = daemon.run_session(command)?;
    ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
    Ok(run)
}

#[test]
fn the_cause_names_tool_call_and_prompt() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let (script, mark) = (folder.path("job.sh"), folder.path("mark"));
        let writer = leave_behind_by_call(daemon, &script, SCRIPT)?;
        outside(&[&script, &mark])?;
        let events = daemon.wait_for("the mark", |event| is_creation(event, &mark))?;
        let (start, cause) = cause_of(&events, &mark, &writer)?;
        let call = cause.tool_call.as_ref().map(|call| (&*call.id, &*call.name));
        ensure!(call == Some(("toolu_7", "Bash")), "{}{}", json(start), json_lines(&writer.events));
        ensure!(cause.prompt_id.as_deref() == Some("prompt-7"), "{}", json(start));
        Ok(())
    })
}

#[test]
fn who_only_reads_is_not_caused() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let (text, data, module) = (folder.path("notes"), folder.path("d.csv"), folder.path("m.py"));
        leave_behind(daemon, "test", &text, "> /dev/null\n")?;
        leave_behind(daemon, "test", &data, "a,b\n")?;
        let writer = leave_behind(daemon, "test", &module, "import sys; open(sys.argv[1], 'w')\n")?;
        outside(&["cat", &text, &data, &module])?;
        outside(&["cp", &module, &folder.path("copy.py")])?;
        outside(&["python3", "-c", &format!("open('{data}').read(); open('{text}', 'r+').read()")])?;
        outside(&["bash", "-c", &format!("while read -r line; do :; done < '{data}'")])?;
        let events = daemon.sentinel()?.events;
        let caused = events.iter().find(|event| event.attribution == Some(How::Caused));
        ensure!(caused.is_none(), "{}", json_lines(caused));
        // The same file, run.
        let mark = folder.path("by-python");
        outside(&["python3", &module, &mark])?;
        let events = daemon.wait_for("the mark", |event| is_creation(event, &mark))?;
        let (start, cause) = cause_of(&events, &mark, &writer)?;
        ensure!(cause.by == UsedBy::Read && cause.path.0 == module, "{}", json(start));
        Ok(())
    })
}

#[test]
fn who_loads_a_library_of_a_session_is_caused() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let (library, mark) = (folder.path("evil.so"), folder.path("mark"));
        let run = format!("cp /lib/x86_64-linux-gnu/libm.so.6 '{library}'");
        let writer = daemon.session(["bash", "-c", &run])?;
        ensure!(writer.status.success(), "{}", writer.stderr);
        outside(&["env", &format!("LD_PRELOAD={library}"), "touch", &mark])?;
        let events = daemon.wait_for("the mark", |event| is_creation(event, &mark))?;
        let (start, cause) = cause_of(&events, &mark, &writer)?;
        ensure!(cause.by == UsedBy::Load && cause.path.0 == library, "{}", json(start));
        Ok(())
    })
}

#[test]
fn another_file_of_the_same_inode_number_is_nobodys() -> Result<()> {
    /// Files made until the number is used again.
    const TRIES: usize = 2_000;
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let old = folder.path("old.sh");
        leave_behind(daemon, "test", &old, SCRIPT)?;
        let ino = fs::metadata(&old)?.ino();
        fs::remove_file(&old)?;
        let mut found = None;
        for number in 0..TRIES {
            let path = folder.path(&format!("new-{number}"));
            fs::write(&path, SCRIPT)?;
            if fs::metadata(&path)?.ino() == ino {
                found = Some(path);
                break;
            }
        }
        let new = found.context("this file system did not use the number again")?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        outside(&[&new, &folder.path("mark")])?;
        let events = daemon.sentinel()?.events;
        let caused = events.iter().find(|event| event.attribution == Some(How::Caused));
        ensure!(caused.is_none(), "{}", json_lines(caused));
        Ok(())
    })
}

#[test]
fn a_caused_process_is_judged_by_nobody_and_an_agent_is() -> Result<()> {
    Shared::with(|daemon| {
        fs::create_dir_all("/srv/aw-prod")?;
        fs::write("/srv/aw-prod/f", "precious")?;
        let folder = Folder::new()?;
        let (script, agent, mark) = (folder.path("job.sh"), folder.path("start.sh"), folder.path("mark"));
        let text = "#!/bin/bash\ncat /srv/aw-prod/f && chroot / true && > \"$1\"\n";
        let writer = leave_behind(daemon, "strict", &script, text)?;
        outside(&[&script, &mark])?;
        let events = daemon.wait_for("the mark", |event| is_creation(event, &mark))?;
        let (start, _) = cause_of(&events, &mark, &writer)?;
        ensure!(&*start.agent == "strict", "{}", json(start));
        let judged = |event: &&Event| event.session == start.session && event.policy.is_some();
        ensure!(!events.iter().any(|event| judged(&event)), "{}", json_lines(&events));
        // What a session left behind starts an agent: that one is a session as it always is, and judged.
        let refused = "#!/bin/bash\nagentwatch exec --agent strict -- cat /srv/aw-prod/f\n[ $? != 0 ]\n";
        leave_behind(daemon, "test", &agent, refused)?;
        let place = daemon.place().clone();
        let mut command = place.agentwatch(["--version"]);
        let environment: Vec<_> =
            command.get_envs().map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned))).collect();
        drop(command.output()?);
        let mut by_script = Command::new(&agent);
        for (key, value) in environment {
            if let Some(value) = value {
                by_script.env(key, value);
            }
        }
        let status = by_script.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "the agent was not refused: {status}");
        let events = daemon.wait_for("a refusal", |event| {
            event.verdict == agentwatch::event::Verdict::Denied && event.attribution == Some(How::Launched)
        })?;
        ensure!(events.last().is_some_and(|event| event.parent_session.is_some()), "{}", json_lines(&events));
        // And one that is known by its program.
        let program = folder.path("aw-matched");
        let copied = daemon.session(["bash", "-c", &format!("cp \"$(command -v aw-act)\" '{program}'")])?;
        ensure!(copied.status.success(), "{}", copied.stderr);
        outside(&[&program, "noop"])?;
        let events = daemon.wait_for("the agent", |event| {
            event.kind == Kind::SessionStart && &*event.agent == "by-program"
        })?;
        ensure!(
            events.last().is_some_and(|event| event.attribution == Some(How::Matched)),
            "{}",
            json_lines(&events)
        );
        Ok(())
    })
}

/// Runs `agentwatch blame`, and gives what it says.
pub fn blame(place: &Place, args: &[&str]) -> Result<String> {
    let output = place.agentwatch(["blame"].iter().chain(args)).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "blame {args:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// Waits until the daemon keeps something of a session on disk.
fn wait_for_kept(place: &Place, session: &str) -> Result<String> {
    let path = place.state().join("written.jsonl");
    let deadline = std::time::Instant::now() + tests::daemon::PATIENCE;
    loop {
        let kept = fs::read_to_string(&path).unwrap_or_default();
        if kept.contains(session) {
            return Ok(kept);
        }
        ensure!(std::time::Instant::now() < deadline, "nothing of {session} is kept in `{}`", path.display());
        std::thread::yield_now();
    }
}

/// Runs a script that a session of an earlier daemon left, and checks whom that is told of.
fn run_after(daemon: &mut Daemon, script: &str, mark: &str, writer: &SessionRun) -> Result<()> {
    outside(&[script, mark])?;
    let events = daemon.wait_for("the mark", |event| is_creation(event, mark))?;
    let (start, cause) = cause_of(&events, mark, writer)?;
    ensure!(cause.prompt_id.as_deref() == Some("prompt-7") && cause.seq.is_some(), "{}", json(start));
    ensure!(&*start.agent == "test", "{}", json(start));
    Ok(())
}

#[test]
fn what_was_left_behind_is_known_over_restarts_of_daemon_and_host() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let folder = Folder::new()?;
    let script = folder.path("job.sh");
    let mut daemon = Daemon::start(&place)?;
    let writer = leave_behind_by_call(&mut daemon, &script, SCRIPT)?;
    wait_for_kept(&place, &writer.session)?;
    daemon.kill()?;
    // Used while no daemon runs.
    outside(&[&script, &folder.path("unwatched")])?;
    let mut daemon = Daemon::start(&place)?;
    let unwatched = folder.path("unwatched");
    let all = crate::restarts::all_events(&place)?;
    cause_of(&all, &unwatched, &writer)?;
    run_after(&mut daemon, &script, &folder.path("after-restart"), &writer)?;
    daemon.stop()?;

    // After a boot nothing of agentwatch is in the kernel, and the boot has another id.
    fs::remove_dir_all(tests::daemon::PINS)?;
    let path = place.state().join("written.jsonl");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let earlier = fs::read_to_string(&path)?.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000");
    fs::write(&path, earlier)?;
    let sessions = place.state().join("sessions.json");
    fs::remove_file(sessions)?;
    let mut daemon = Daemon::start(&place)?;
    run_after(&mut daemon, &script, &folder.path("after-boot"), &writer)?;
    let said = blame(&place, &[&script])?;
    ensure!(said.contains(&writer.session) && said.contains("prompt-7"), "{said}");
    daemon.stop()?;
    drop(machine);
    Ok(())
}

#[test]
fn blame_tells_who_connected_and_what_it_looked_through() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let socket = folder.path("s.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket)?;
        let connect = format!("import socket; socket.socket(socket.AF_UNIX).connect('{socket}')");
        let run = daemon.session(["python3", "-c", &connect])?;
        ensure!(run.status.success(), "{}", run.stderr);
        drop(listener);
        let said = blame(daemon.place(), &["--socket", &socket])?;
        ensure!(said.contains(&run.session) && said.contains("connected"), "{said}");
        let own = std::process::id().to_string();
        let output = daemon.place().agentwatch(["blame", "--pid", &own]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && said.contains("looked through"),
            "{}: {said}",
            output.status
        );
        Ok(())
    })
}
