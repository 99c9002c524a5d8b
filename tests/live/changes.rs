//! What counts as which operation: a rule about one of them keeps from that, and from nothing else.

use std::fs;

use agentwatch::event::{Event, Verdict};
use anyhow::{Result, ensure};
use tests::compare::json_lines;
use tests::daemon::Daemon;
use tests::policy::with_policy;
use tests::session::SessionRun;

/// Folder that the policies here are about.
const FOLDER: &str = "/srv/aw-changes";

/// Runs a script in a session of the agent `held`.
pub fn script(daemon: &mut Daemon, script: &str) -> Result<SessionRun> {
    let command = daemon.exec_as("held", ["sh", "-c", script]);
    daemon.run_session(command)
}

/// It goes through, and nothing is refused.
pub fn passes(daemon: &mut Daemon, text: &str) -> Result<()> {
    let run = script(daemon, text)?;
    let said = format!("`{text}`: {} {}", run.stderr, json_lines(&run.events));
    ensure!(run.status.success() && run.own().all(|event| event.verdict != Verdict::Denied), "{said}");
    Ok(())
}

/// It fails with EPERM, by one refusal at least; gives these.
pub fn fails(daemon: &mut Daemon, text: &str) -> Result<Vec<Event>> {
    let run = script(daemon, text)?;
    let said = format!("`{text}`: {} {}", run.stderr, json_lines(&run.events));
    ensure!(!run.status.success() && run.stderr.contains("Operation not permitted"), "{said}");
    let denied: Vec<Event> = run.own().filter(|event| event.verdict == Verdict::Denied).cloned().collect();
    ensure!(!denied.is_empty(), "{said}");
    Ok(denied)
}

/// An empty folder, and a policy whose one rule keeps the agent `held` from an operation there.
fn kept_from(op: &str, path: &str) -> Result<String> {
    let _ = fs::remove_dir_all(FOLDER);
    fs::create_dir_all(FOLDER)?;
    Ok(format!(
        "version: 1
agents:
  test: {{owner: tests@example.com}}
  held: {{owner: tests@example.com, mode: enforce}}
rules:
  - {{name: kept, agents: [held], deny: {{{op}: ['{path}']}}}}
"
    ))
}

#[test]
fn only_what_has_content_can_be_emptied() -> Result<()> {
    let policy = kept_from("delete", FOLDER)?;
    with_policy(&policy, |daemon| {
        let file = format!("{FOLDER}/f");
        passes(daemon, &format!("> {file}"))?;
        passes(daemon, &format!("echo first > {file}"))?;
        passes(daemon, &format!("echo second >> {file}"))?;
        for emptied in [format!(": > {file}"), format!("truncate -s 0 {file}"), format!("rm {file}")] {
            let denied = fails(daemon, &emptied)?;
            ensure!(
                denied.iter().all(|event| event.rule.as_deref() == Some("kept")),
                "{}",
                json_lines(&denied)
            );
            ensure!(fs::read_to_string(&file)? == "first\nsecond\n", "`{emptied}` changed it");
        }
        Ok(())
    })
}

#[test]
fn the_mode_plan_only_reads() -> Result<()> {
    let (scratch, elsewhere) = (format!("{FOLDER}/scratch"), format!("{FOLDER}/elsewhere"));
    let _ = fs::remove_dir_all(FOLDER);
    fs::create_dir_all(&scratch)?;
    fs::create_dir_all(&elsewhere)?;
    fs::write(format!("{elsewhere}/kept"), "kept")?;
    let policy = format!(
        "version: 1
agents:
  test: {{owner: tests@example.com}}
  held: {{owner: tests@example.com, mode: plan, scratch: ['{scratch}']}}
rules:
  - {{name: by name, agents: [held], allow: {{connect: ['127.0.0.1:9']}}}}
"
    );
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    with_policy(&policy, |daemon| {
        passes(daemon, &format!("cat {elsewhere}/kept > {scratch}/copy; cat {scratch}/copy > /dev/null"))?;
        for write in [
            format!("echo x > {elsewhere}/new"),
            format!("echo x >> {elsewhere}/kept"),
            format!("mkdir {elsewhere}/folder"),
            format!("chmod 700 {elsewhere}/kept"),
            "echo x > /tmp/aw-plan".to_owned(),
            format!("rm {elsewhere}/kept"),
            format!("rm {scratch}/copy"),
            format!("mv {scratch}/copy {scratch}/moved"),
        ] {
            let denied = fails(daemon, &write)?;
            ensure!(
                denied.iter().all(|event| event.rule.as_deref() == Some("default")),
                "{}",
                json_lines(&denied)
            );
        }
        fails(daemon, &format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'"))?;
        let run = script(daemon, "bash -c 'exec 3<>/dev/tcp/127.0.0.1/9'")?;
        ensure!(run.stderr.contains("Connection refused"), "what a rule allows by name: {}", run.stderr);
        ensure!(fs::read_to_string(format!("{elsewhere}/kept"))? == "kept");
        ensure!(fs::read_dir(&elsewhere)?.count() == 1, "something was made");
        Ok(())
    })
}

#[test]
fn attributes_are_kept_as_well_as_content() -> Result<()> {
    let policy = kept_from("write", &format!("{FOLDER}/f"))?;
    with_policy(&policy, |daemon| {
        for name in ["f", "free"] {
            fs::write(format!("{FOLDER}/{name}"), name)?;
        }
        let file = format!("{FOLDER}/f");
        let python =
            |text: &str, path: &str| format!("exec python3 -c 'import os, fcntl; p = \"{path}\"; {text}'");
        let tries = [
            ("os.setxattr(p, \"trusted.aw\", b\"x\")", "file.xattr"),
            ("os.removexattr(p, \"trusted.none\")", "file.xattr"),
            (
                "os.setxattr(p, \"system.posix_acl_access\", bytes.fromhex(\"0200000001000600ffffffff04000400ffffffff20000400ffffffff\"))",
                "file.xattr",
            ),
            ("os.utime(p, (1, 1))", "file.times"),
            ("os.utime(os.open(p, os.O_RDONLY), (1, 1))", "file.times"),
            (
                "d = os.open(p, os.O_RDONLY); b = fcntl.ioctl(d, 0x80086601, bytes(8)); fcntl.ioctl(d, 0x40086602, b)",
                "file.flags",
            ),
        ];
        let before = fs::metadata(&file)?.modified()?;
        for (text, kind) in tries {
            let denied = fails(daemon, &python(text, &file))?;
            let told = denied.iter().all(|event| {
                event.kind.name() == kind
                    && event.rule.as_deref() == Some("kept")
                    && event.file.as_ref().is_some_and(|one| one.path.0 == file)
            });
            ensure!(told && denied.len() == 1, "`{text}`: {}", json_lines(&denied));
            ensure!(fs::metadata(&file)?.modified()? == before, "`{text}` set a time");
            if !text.contains("removexattr") {
                passes(daemon, &python(text, &format!("{FOLDER}/free")))?;
            }
        }
        // The same file by another name, where the kernel asks by the name alone.
        std::os::unix::fs::symlink(&file, format!("{FOLDER}/link"))?;
        fails(daemon, &python("os.utime(p, (1, 1))", &format!("{FOLDER}/link")))?;
        Ok(())
    })
}
