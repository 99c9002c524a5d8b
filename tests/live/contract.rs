//! The policy of the contract, as it stands there: it loads, and each of its rules is at work.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentwatch::event::{Event, Op, Verdict};
use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, Timespec, clock_settime};
use tests::compare::json_lines;
use tests::daemon::{Daemon, PATIENCE};
use tests::policy::with_policy;
use tests::session::work_dir;

use crate::enforcement::{judged, python, session};

/// The same file that `policy check` is tried with.
const POLICY: &str = include_str!("../../agentwatch/tests/golden/policy/contract.yaml");
/// The rule on databases, and the sentence that it gives.
const DATABASES: &str = "keep away from production databases";
const WHY: &str = "payments-db is a live failover target: ask payments-oncall";

/// Runs a script that is refused once, by this rule or default; gives the event.
fn refused(daemon: &mut Daemon, script: &str, rule: &str) -> Result<Event> {
    let run = session(daemon, "coding", script)?;
    let said = format!("`{script}`: {} {}{}", run.status, run.stderr, json_lines(&run.events));
    ensure!(!run.status.success(), "it went through: {said}");
    let denied = judged(&run, Verdict::Denied);
    ensure!(denied.len() == 1, "{} refusals: {said}", denied.len());
    let event = denied.first().context("no refusal")?;
    ensure!(event.rule.as_deref() == Some(rule), "{said}");
    Ok((*event).clone())
}

/// Runs a script in which nothing is refused; gives its events.
fn goes_on(daemon: &mut Daemon, script: &str) -> Result<Vec<Event>> {
    let run = session(daemon, "coding", script)?;
    let said = format!("`{script}`: {} {}{}", run.status, run.stderr, json_lines(&run.events));
    ensure!(run.status.success() && judged(&run, Verdict::Denied).is_empty(), "{said}");
    Ok(run.own().cloned().collect())
}

#[test]
fn databases_are_out_of_reach_and_other_hosts_too() -> Result<()> {
    with_policy(POLICY, |daemon| {
        let folder = Path::new("/run/postgresql");
        fs::create_dir_all(folder)?;
        let socket = folder.join(".s.PGSQL.5432");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let calls = [
            ("AF_UNIX", format!("connect(\"{}\")", socket.display())),
            ("AF_INET", "connect((\"10.20.3.4\", 5432))".to_owned()),
            // One port of the list is enough, although loopback is allowed as such: the strictest rule counts.
            ("AF_INET", "connect((\"127.0.0.1\", 3306))".to_owned()),
            ("AF_INET6", "connect((\"::ffff:10.20.3.4\", 27017))".to_owned()),
        ];
        for (family, call) in calls {
            let event = refused(daemon, &python(family, &call), DATABASES)?;
            ensure!(event.op == Some(Op::Connect) && event.errno.as_deref() == Some("EPERM"), "{event:?}");
            ensure!(event.reason.as_deref() == Some(WHY), "{event:?}");
        }
        let arrived = listener.accept();
        ensure!(arrived.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "the socket was reached");
        fs::remove_file(&socket)?;
        // What no rule lets it reach is refused by default.
        let event = refused(daemon, &python("AF_INET", "connect((\"192.0.2.1\", 443))"), "default")?;
        ensure!(event.op == Some(Op::Connect), "{event:?}");
        let server = TcpListener::bind("127.0.0.1:0")?;
        let port = server.local_addr()?.port();
        goes_on(daemon, &python("AF_INET", &format!("connect((\"127.0.0.1\", {port}))")))?;
        Ok(())
    })
}

#[test]
fn what_no_rule_is_about_tells_the_policy_that_judged_it() -> Result<()> {
    with_policy(POLICY, |daemon| {
        let events = goes_on(daemon, "cat /etc/hostname")?;
        let program =
            |event: &&Event| event.command.as_ref().is_some_and(|line| line.0 == "cat /etc/hostname");
        let file = |event: &&Event| event.file.as_ref().is_some_and(|file| file.path.0 == "/etc/hostname");
        for event in [events.iter().find(program), events.iter().find(file)] {
            let event = event.with_context(|| format!("an event is missing: {}", json_lines(&events)))?;
            ensure!(event.verdict == Verdict::Allowed && event.rule.is_none(), "{event:?}");
            ensure!(event.policy.as_ref().is_some_and(|policy| policy.version > 0), "{event:?}");
        }
        Ok(())
    })
}

#[test]
fn destructive_programs_and_commands_do_not_run() -> Result<()> {
    with_policy(POLICY, |daemon| {
        let dir = work_dir()?;
        let path = dir.path().display();
        let file = dir.path().join("kept");
        fs::write(&file, "kept")?;
        let event =
            refused(daemon, &format!("exec /usr/bin/shred {}", file.display()), "destructive binaries")?;
        ensure!(event.op == Some(Op::Exec) && event.errno.as_deref() == Some("EPERM"), "{event:?}");
        ensure!(fs::read(&file)? == b"kept", "it was overwritten");
        // Tools that are not there are told by what they are called.
        for tool in ["terraform", "kubectl", "git"] {
            fs::copy("/usr/bin/true", dir.path().join(tool))?;
        }
        for command in [
            format!("{path}/terraform -chdir=prod destroy -auto-approve"),
            format!("{path}/kubectl delete namespace payments"),
            format!("{path}/git push origin main --force"),
            "rm -rf /aw-not-there".to_owned(),
        ] {
            let event = refused(daemon, &command, "destructive commands")?;
            ensure!(event.op == Some(Op::Run), "{event:?}");
        }
        for command in ["terraform plan", "kubectl get pods", "git status"] {
            goes_on(daemon, &format!("{path}/{command}"))?;
        }
        Ok(())
    })
}

#[test]
fn nothing_ships_while_the_window_is_open() -> Result<()> {
    // The year of the contract's window is not that of the test.
    let during = |from: &str, to: &str| {
        let window = "code-freeze: {from: 2026-12-20T00:00:00Z, to: 2027-01-04T00:00:00Z}";
        ensure!(POLICY.contains(window), "the contract has another window");
        Ok(POLICY.replace(window, &format!("code-freeze: {{from: {from}, to: {to}}}")))
    };
    let dir = work_dir()?;
    fs::copy("/usr/bin/true", dir.path().join("git"))?;
    let push = format!("{}/git push origin main", dir.path().display());
    with_policy(&during("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z")?, |daemon| {
        let event = refused(daemon, &push, "nothing ships during the freeze")?;
        ensure!(event.op == Some(Op::Run), "{event:?}");
        Ok(())
    })?;
    with_policy(&during("2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z")?, |daemon| {
        goes_on(daemon, &push)?;
        Ok(())
    })
}

/// The host's clock, put forward. It is put back at the end.
pub struct Forward {
    before: SystemTime,
    since: Instant,
}

impl Forward {
    pub fn by(much: Duration) -> Result<Self> {
        let (before, since) = (SystemTime::now(), Instant::now());
        set_clock(before + much)?;
        Ok(Self { before, since })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Err(error) = set_clock(self.before + self.since.elapsed()) {
            eprintln!("the clock stays wrong: {error:#}");
        }
    }
}

fn set_clock(to: SystemTime) -> Result<()> {
    let since = to.duration_since(UNIX_EPOCH)?;
    let time = Timespec { tv_sec: i64::try_from(since.as_secs())?, tv_nsec: since.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, time).context("cannot set the clock")
}

/// Case E15.
#[test]
fn windows_follow_the_clock() -> Result<()> {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let text = |time: SystemTime| -> Result<String> {
        let output = Command::new("date")
            .args(["-u", "+%FT%TZ", "-d", &format!("@{}", time.duration_since(UNIX_EPOCH)?.as_secs())])
            .output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let now = SystemTime::now();
    let window = format!("{{from: {}, to: {}}}", text(now + hours(1))?, text(now + hours(3))?);
    let rule = "{name: later, deny: {read: [/etc/hostname]}, during: w}";
    let policy = format!(
        "version: 1\nagents:\n  coding: {{owner: o, mode: enforce}}\nwindows:\n  w: {window}\nrules:\n  - {rule}\n"
    );
    let is_read = |daemon: &mut Daemon| -> Result<bool> {
        Ok(session(daemon, "coding", "exec cat /etc/hostname")?.status.success())
    };
    with_policy(&policy, |daemon| {
        let until = |daemon: &mut Daemon, wanted: bool| -> Result<()> {
            let deadline = Instant::now() + PATIENCE;
            while is_read(daemon)? != wanted {
                ensure!(Instant::now() < deadline, "the window is not that of the clock");
            }
            Ok(())
        };
        ensure!(is_read(daemon)?, "refused before its time");
        let forward = Forward::by(hours(2))?;
        until(daemon, false)?;
        drop(forward);
        until(daemon, true)
    })
}

#[test]
fn secrets_are_not_read_and_writing_is_told() -> Result<()> {
    with_policy(POLICY, |daemon| {
        let home = tempfile::Builder::new().prefix("aw-").tempdir_in("/home")?;
        let (ssh, aws) = (home.path().join(".ssh"), home.path().join(".aws"));
        fs::create_dir_all(&ssh)?;
        fs::create_dir_all(&aws)?;
        let project = work_dir()?;
        for secret in [ssh.join("id_ed25519"), aws.join("credentials"), project.path().join(".env")] {
            fs::write(&secret, "secret")?;
            let event = refused(daemon, &format!("exec cat {}", secret.display()), "secrets")?;
            ensure!(event.op == Some(Op::Read) && event.errno.as_deref() == Some("EPERM"), "{event:?}");
        }
        let public = ssh.join("config");
        fs::write(&public, "public")?;
        goes_on(daemon, &format!("exec cat {}", public.display()))?;
        // Where it may write, and where that is told as something to look at.
        let work = home.path().join("work");
        fs::create_dir(&work)?;
        let events =
            goes_on(daemon, &format!("echo x > {}/new; echo x > {}", work.display(), public.display()))?;
        let verdict_of = |end: &str| {
            let of = events.iter().find(|event| {
                event.op == Some(Op::Write)
                    && event.file.as_ref().is_some_and(|file| file.path.0.ends_with(end))
            });
            of.map(|event| (event.verdict, event.rule.clone()))
        };
        ensure!(
            verdict_of("work/new").is_some_and(|(verdict, _)| verdict == Verdict::Allowed),
            "{}",
            json_lines(&events)
        );
        ensure!(
            verdict_of("config").is_some_and(|(verdict, _)| verdict == Verdict::Logged),
            "{}",
            json_lines(&events)
        );
        Ok(())
    })
}
