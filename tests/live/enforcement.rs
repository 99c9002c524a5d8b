//! What rules refuse: the call fails with EPERM, nothing happened, and one event says so.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use agentwatch::event::{Event, Kind, Op, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Shared};
use tests::session::{SessionRun, work_dir};

/// Folders that the rules of the tests' policy name.
const PROTECTED: &str = "/srv/aw-prod";
const PROGRAMS: &str = "/srv/aw-bin";
const SOCKETS: &str = "/srv/aw-run";

/// Makes the protected file anew.
fn protected() -> Result<String> {
    fs::create_dir_all(PROTECTED)?;
    let file = format!("{PROTECTED}/f");
    fs::write(&file, "precious")?;
    Ok(file)
}

pub fn session(daemon: &mut Daemon, agent: &str, script: &str) -> Result<SessionRun> {
    let command = daemon.exec_as(agent, ["sh", "-c", script]);
    daemon.run_session(command)
}

/// Events of a session with this verdict.
pub fn judged(run: &SessionRun, verdict: Verdict) -> Vec<&Event> {
    run.own().filter(|event| event.verdict == verdict).collect()
}

/// Runs a script that must fail with EPERM, by one refusal of this rule; gives its event.
pub fn refused(daemon: &mut Daemon, script: &str, rule: &str) -> Result<Event> {
    let run = session(daemon, "strict", script)?;
    let said = format!("`{script}`: {} {}{}", run.status, run.stderr, json_lines(&run.events));
    ensure!(
        !run.status.success() && run.stderr.contains("Operation not permitted"),
        "it went through: {said}"
    );
    let denied = judged(&run, Verdict::Denied);
    ensure!(denied.len() == 1, "{} refusals: {said}", denied.len());
    let event = denied.first().context("no refusal")?;
    ensure!(event.rule.as_deref() == Some(rule) && event.errno.as_deref() == Some("EPERM"), "{said}");
    ensure!(event.policy.is_some() && event.reason.is_some(), "{said}");
    Ok((*event).clone())
}

#[test]
fn a_refusal_is_explained_by_its_rule_its_hook_and_its_ancestors() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let run = session(daemon, "strict", &format!("sh -c 'cat {file}; true'; true"))?;
        let last = ["policy", "explain", "--event", "last", "--session", &run.session];
        let output = daemon.place().agentwatch(last).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() == Some(3), "{}: {said}", output.status);
        for wanted in [
            "\n  rule      protected (version ",
            "\n  hook      file_open\n",
            "\n  agent     strict of tests@example.com",
        ] {
            ensure!(said.contains(wanted), "no `{wanted}`: {said}");
        }
        ensure!(said.contains(&format!("process {} was started by `agentwatch exec`", run.pid)), "{said}");
        // From the session's first process down, each made by the one before.
        let chain: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("  ancestry")).collect();
        let [first, .., last] = chain.as_slice() else { anyhow::bail!("no ancestry: {said}") };
        ensure!(
            first.contains(&format!(" {} sh -c", run.pid)) && last.ends_with(&format!("cat {file}")),
            "{said}"
        );
        ensure!(chain.len() == 3, "{said}");
        Ok(())
    })
}

#[test]
fn a_protected_file_is_refused_by_every_name() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let dir = work_dir()?;
        let link = dir.path().join("link");
        symlink(PROTECTED, &link)?;
        for name in [
            file.clone(),
            "/srv/./aw-prod/../aw-prod//f".to_owned(),
            format!("/proc/self/root{file}"),
            format!("{}/f", link.display()),
        ] {
            let event = refused(daemon, &format!("exec cat {name}"), "protected")?;
            ensure!(event.kind == Kind::FileOpen && event.op == Some(Op::Read), "{event:?}");
            ensure!(event.file.as_ref().is_some_and(|told| told.path.0 == file), "{event:?}");
            ensure!(event.reason.as_deref() == Some("ask tests@example.com"), "{event:?}");
        }
        refused(daemon, &format!("exec ls {PROTECTED}"), "protected")?;
        refused(daemon, "cd /srv/aw-prod && exec cat f", "protected")?;
        Ok(())
    })
}

/// Case B03.
#[test]
fn a_folder_above_a_protected_one_stays_where_it_is() -> Result<()> {
    Shared::with(|daemon| {
        protected()?;
        fs::create_dir_all("/srv/aw-other")?;
        refused(daemon, "mv -T /srv /srv-away", "protected")?;
        ensure!(Path::new(PROTECTED).is_dir() && !Path::new("/srv-away").exists(), "it was moved");
        // A program that a rule keeps from being started would have another name.
        fs::create_dir_all(PROGRAMS)?;
        let program = format!("{PROGRAMS}/true");
        fs::copy("/bin/true", &program)?;
        refused(daemon, &format!("mv {program} /tmp/aw-true"), "programs")?;
        ensure!(Path::new(&program).exists() && !Path::new("/tmp/aw-true").exists(), "it was renamed");
        // Another folder beside it moves freely, and the same one elsewhere does too.
        let run = session(daemon, "strict", "mv -T /srv/aw-other /srv/aw-moved && rmdir /srv/aw-moved")?;
        ensure!(run.status.success() && judged(&run, Verdict::Denied).is_empty(), "{}", run.stderr);
        let run = session(daemon, "soft", "mv -T /srv /srv-away && mv -T /srv-away /srv")?;
        ensure!(run.status.success(), "{}", run.stderr);
        let told = judged(&run, Verdict::WouldDeny);
        ensure!(
            told.iter()
                .any(|event| event.kind == Kind::FileRename && event.rule.as_deref() == Some("protected")),
            "{}",
            json_lines(&run.events)
        );
        Ok(())
    })
}

#[test]
fn a_protected_file_cannot_be_changed() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let dir = work_dir()?;
        let away = dir.path().join("away").display().to_string();
        let other = dir.path().join("other");
        fs::write(&other, "other")?;
        for script in [
            format!("exec rm {file}"),
            format!("exec mv {file} {away}"),
            format!("exec mv {} {file}", other.display()),
            format!("exec mv {PROTECTED} {away}"),
            format!("exec ln {file} {away}"),
            format!("exec truncate -s 0 {file}"),
            format!("exec chmod 777 {file}"),
            format!("exec python3 -c 'import os; os.truncate(\"{file}\", 0)'"),
            format!("exec mkdir {PROTECTED}/new"),
            format!("exec ln -s /etc/passwd {PROTECTED}/new"),
            format!("echo more | exec dd of={PROTECTED}/new conv=notrunc"),
        ] {
            refused(daemon, &script, "protected")?;
            ensure!(fs::read(&file)? == b"precious", "`{script}` changed it");
            ensure!(!Path::new(&away).exists(), "`{script}` made another name");
            ensure!(fs::read_dir(PROTECTED)?.count() == 1, "`{script}` made something there");
        }
        Ok(())
    })
}

/// Cases A01, A05.
#[test]
fn a_refused_program_does_not_run_by_any_name() -> Result<()> {
    Shared::with(|daemon| {
        fs::create_dir_all(PROGRAMS)?;
        let tool = format!("{PROGRAMS}/tool");
        fs::copy("/usr/bin/true", &tool)?;
        let dir = work_dir()?;
        let link = dir.path().join("link");
        symlink(&tool, &link)?;
        for name in [tool.clone(), format!("/proc/self/root{tool}"), link.display().to_string()] {
            let event = refused(daemon, &format!("exec env {name}"), "programs")?;
            ensure!(event.kind == Kind::ProcessExec && event.op == Some(Op::Exec), "{event:?}");
            ensure!(event.file.as_ref().is_some_and(|told| told.path.0 == tool), "{event:?}");
        }
        // The loader maps what it is told to run.
        let run = session(daemon, "strict", &format!("exec /lib64/ld-linux-x86-64.so.2 {tool}"))?;
        let denied = judged(&run, Verdict::Denied);
        ensure!(!run.status.success() && denied.len() == 1, "{}{}", run.stderr, json_lines(&run.events));
        ensure!(denied.iter().all(|event| event.kind == Kind::FileMap), "{denied:?}");
        Ok(())
    })
}

/// Case A12.
#[test]
fn a_refused_command_line_ends_before_its_first_instruction() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let file = dir.path().join("forbidden");
        let run = session(daemon, "strict", &format!("touch {}; echo $?", file.display()))?;
        ensure!(run.stdout == b"137\n" && !file.exists(), "{}{}", run.stderr, json_lines(&run.events));
        let denied = judged(&run, Verdict::Denied);
        ensure!(denied.len() == 1, "{denied:?}");
        let told = |event: &&Event| event.command.as_ref().is_some_and(|line| line.0.starts_with("touch /"));
        ensure!(denied.iter().all(told), "{denied:?}");
        ensure!(
            denied.iter().all(|event| event.op == Some(Op::Run) && event.rule.as_deref() == Some("commands"))
        );
        let fine = dir.path().join("fine");
        let run = session(daemon, "strict", &format!("touch {}", fine.display()))?;
        ensure!(run.status.success() && fine.exists() && judged(&run, Verdict::Denied).is_empty());
        Ok(())
    })
}

/// A script that connects, or listens.
pub fn python(family: &str, call: &str) -> String {
    format!("exec python3 -c 'import socket; s = socket.socket(socket.{family}); s.{call}'")
}

/// Cases C01, C16.
#[test]
fn a_refused_address_is_not_reached() -> Result<()> {
    Shared::with(|daemon| {
        fs::create_dir_all(SOCKETS)?;
        let socket = format!("{SOCKETS}/.s.PGSQL.5432");
        let _ = fs::remove_file(&socket);
        let (tcp, unix) = (TcpListener::bind("127.0.0.1:54321")?, UnixListener::bind(&socket)?);
        tcp.set_nonblocking(true)?;
        unix.set_nonblocking(true)?;
        for (family, call) in [
            ("AF_INET", r#"connect(("127.0.0.1", 54321))"#.to_owned()),
            ("AF_INET", r#"connect(("0.0.0.0", 54321))"#.to_owned()),
            ("AF_INET6", r#"connect(("::ffff:127.0.0.1", 54321))"#.to_owned()),
            ("AF_UNIX", format!(r#"connect("{socket}")"#)),
            ("AF_UNIX", format!(r#"connect("/proc/self/root{socket}")"#)),
        ] {
            let event = refused(daemon, &python(family, &call), "database")?;
            ensure!(event.kind == Kind::NetConnect && event.op == Some(Op::Connect), "{event:?}");
            ensure!(tcp.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{call} arrived");
            ensure!(
                unix.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
                "{call} arrived"
            );
        }
        refused(daemon, &python("AF_INET", r#"bind(("127.0.0.1", 54322))"#), "database")?;
        // Others are reached.
        let free = TcpListener::bind("127.0.0.1:0")?;
        let port = free.local_addr()?.port();
        let run =
            session(daemon, "strict", &python("AF_INET", &format!(r#"connect(("127.0.0.1", {port}))"#)))?;
        ensure!(run.status.success() && judged(&run, Verdict::Denied).is_empty(), "{}", run.stderr);
        Ok(())
    })
}

#[test]
fn where_nothing_is_enforced_it_is_told_and_happens() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let run = session(daemon, "soft", &format!("cat {file}; rm {file}"))?;
        ensure!(run.status.success() && run.stdout == b"precious", "{}", run.stderr);
        ensure!(!Path::new(&file).exists());
        let told = judged(&run, Verdict::WouldDeny);
        ensure!(told.len() == 2 && told.iter().all(|event| event.errno.is_none()), "{told:?}");
        let run = session(daemon, "soft", "cat /etc/hostname")?;
        let logged = judged(&run, Verdict::Logged);
        ensure!(logged.len() == 1 && logged.iter().all(|event| event.rule.as_deref() == Some("watched")));
        Ok(())
    })
}

#[test]
fn rules_for_others_are_not_for_this_agent() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let run = session(daemon, "test", &format!("cat {file}"))?;
        ensure!(run.status.success() && run.own().all(|event| event.verdict == Verdict::Allowed));
        Ok(())
    })
}
