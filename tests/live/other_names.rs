//! What a rule is about has other names: other mounts, links, the paths of a container.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Shared};
use tests::session::{SessionRun, work_dir};

const PROTECTED: &str = "/srv/aw-prod";

/// Something shown at another place as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// Shows it, and waits until the rules know of it.
    fn at(daemon: &mut Daemon, what: &str, place: PathBuf) -> Result<Self> {
        if Path::new(what).is_dir() {
            fs::create_dir_all(&place)?;
        } else {
            fs::write(&place, "")?;
        }
        mount_bind(what, &place).with_context(|| format!("cannot show `{what}` at `{}`", place.display()))?;
        let mounted = Self(place);
        told_of_mounts(daemon)?;
        Ok(mounted)
    }

    fn name(&self, below: &str) -> String {
        format!("{}{below}", self.0.display())
    }

    fn gone(self, daemon: &mut Daemon) -> Result<()> {
        unmount(&self.0, UnmountFlags::empty())?;
        std::mem::forget(self);
        told_of_mounts(daemon)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn told_of_mounts(daemon: &mut Daemon) -> Result<()> {
    let by_mounts = |event: &Event| event.reason.as_deref().is_some_and(|reason| reason.contains("mounted"));
    daemon
        .wait_for("rules for other mounts", |event| event.kind == Kind::PolicyApplied && by_mounts(event))?;
    Ok(())
}

/// Makes the protected file anew.
fn protected() -> Result<String> {
    fs::create_dir_all(PROTECTED)?;
    let file = format!("{PROTECTED}/f");
    fs::write(&file, "precious")?;
    Ok(file)
}

fn refusals(run: &SessionRun) -> Vec<&Event> {
    run.own().filter(|event| event.verdict == Verdict::Denied).collect()
}

/// Runs a script that must fail by one refusal of this rule.
fn refused(daemon: &mut Daemon, script: &str, rule: &str) -> Result<()> {
    let command = daemon.exec_as("strict", ["sh", "-c", script]);
    refused_to(daemon, command, rule)
}

fn refused_to(daemon: &mut Daemon, command: Command, rule: &str) -> Result<()> {
    let run = daemon.run_session(command)?;
    let said = format!("{} {}{}", run.status, run.stderr, json_lines(&run.events));
    ensure!(
        !run.status.success() && run.stderr.contains("Operation not permitted"),
        "it went through: {said}"
    );
    let denied = refusals(&run);
    ensure!(denied.len() == 1, "{} refusals: {said}", denied.len());
    ensure!(denied.iter().all(|event| event.rule.as_deref() == Some(rule)), "{said}");
    Ok(())
}

/// Runs a script that must succeed without a refusal.
fn free(daemon: &mut Daemon, script: &str) -> Result<()> {
    let command = daemon.exec_as("strict", ["sh", "-c", script]);
    let run = daemon.run_session(command)?;
    ensure!(run.status.success() && refusals(&run).is_empty(), "{}{}", run.stderr, json_lines(&run.events));
    Ok(())
}

/// The same command behind others.
fn behind(words: &[&str], command: &Command) -> Command {
    let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
    all.push(command.get_program().to_owned());
    all.extend(command.get_args().map(ToOwned::to_owned));
    let mut behind = Command::new(all.remove(0));
    behind.args(all);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            behind.env(name, value);
        }
    }
    behind.stdin(std::process::Stdio::null());
    behind
}

/// Case B15.
#[test]
fn a_protected_folder_is_refused_wherever_it_is_mounted() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let dir = work_dir()?;
        let elsewhere = Mounted::at(daemon, PROTECTED, dir.path().join("elsewhere"))?;
        let name = elsewhere.name("/f");
        for script in [
            format!("exec cat {name}"),
            format!("exec dd if=/dev/null of={name} conv=notrunc"),
            format!("exec rm {name}"),
            format!("exec mv {name} {}", elsewhere.name("/g")),
            format!("exec ls {}", elsewhere.name("")),
        ] {
            refused(daemon, &script, "protected")?;
            ensure!(fs::read(&file)? == b"precious", "`{script}` changed it");
        }
        elsewhere.gone(daemon)?;
        let alone = Mounted::at(daemon, &file, dir.path().join("alone"))?;
        refused(daemon, &format!("exec cat {}", alone.name("")), "protected")?;
        alone.gone(daemon)
    })
}

#[test]
fn what_is_below_another_mount_of_the_root_is_known() -> Result<()> {
    Shared::with(|daemon| {
        protected()?;
        fs::create_dir_all("/srv/aw-bin")?;
        fs::copy("/usr/bin/true", "/srv/aw-bin/tool")?;
        fs::create_dir_all("/srv/aw-run")?;
        let socket = "/srv/aw-run/.s.PGSQL.5432";
        let _ = fs::remove_file(socket);
        let _listener = UnixListener::bind(socket)?;
        let dir = work_dir()?;
        let root = Mounted::at(daemon, "/", dir.path().join("root"))?;
        refused(daemon, &format!("exec cat {}", root.name("/srv/aw-prod/f")), "protected")?;
        refused(daemon, &format!("exec env {}", root.name("/srv/aw-bin/tool")), "programs")?;
        let connect = format!("socket.socket(socket.AF_UNIX).connect(\"{}\")", root.name(socket));
        refused(daemon, &format!("exec python3 -c 'import socket; {connect}'"), "database")?;
        let (srv, away) = (root.name("/srv"), root.name("/aw-away"));
        refused(daemon, &format!("exec mv -T {srv} {away}"), "protected")?;
        free(daemon, &format!("exec cat {}", root.name("/etc/hostname")))?;
        root.gone(daemon)
    })
}

/// Cases A04, A20, B17.
#[test]
fn in_another_mount_namespace_and_root_it_is_the_same_thing() -> Result<()> {
    Shared::with(|daemon| {
        protected()?;
        let dir = work_dir()?;
        let new_root = dir.path().join("root");
        fs::create_dir_all(&new_root)?;
        // What a container has: a root of its own, into which a folder of the host is mounted.
        let make = format!(
            "mount -t tmpfs none {0} && mkdir -p {0}/usr {0}/proc {0}/data {0}/own && mount --bind /usr {0}/usr && \
             for link in bin lib lib64; do ln -s usr/$link {0}/$link; done && mount --bind {PROTECTED} {0}/data && \
             echo mine > {0}/own/f && exec \"$@\"",
            new_root.display()
        );
        let inside = |daemon: &Daemon, script: &str| {
            let chroot = ["chroot".into(), new_root.clone().into_os_string()];
            let words = chroot.into_iter().chain(["sh", "-c", script].map(OsString::from));
            let command = daemon.exec_as("open", words);
            behind(&["unshare", "-m", "sh", "-c", &make, "sh"], &command)
        };
        // The agent may do what the guards forbid, since the namespace's root is changed inside the session here.
        let command = inside(daemon, "cat /own/f");
        let run = daemon.run_session(command)?;
        ensure!(
            run.stdout == b"mine\n" && refusals(&run).is_empty(),
            "{}{}",
            run.stderr,
            json_lines(&run.events)
        );
        let command = inside(daemon, "exec cat /data/f");
        refused_to(daemon, command, "everywhere")?;
        ensure!(fs::read(format!("{PROTECTED}/f"))? == b"precious");
        Ok(())
    })
}

/// Opens a folder as a mount that is nowhere, before the session begins.
const DETACHED: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
folder = libc.syscall(428, -100, sys.argv[1].encode(), 1)
assert folder >= 0, os.strerror(ctypes.get_errno())
os.set_inheritable(folder, True)
os.environ['FOLDER'] = f'/proc/self/fd/{folder}'
os.execvp(sys.argv[2], sys.argv[2:])";

/// Cases A04, B15.
#[test]
fn a_mount_that_is_nowhere_is_no_way_in() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let words = ["python3", "-c", DETACHED, PROTECTED];
        for script in ["exec cat $FOLDER/f", "exec rm $FOLDER/f"] {
            let command = behind(&words, &daemon.exec_as("strict", ["sh", "-c", script]));
            refused_to(daemon, command, "protected")?;
            ensure!(fs::read(&file)? == b"precious", "`{script}` changed it");
        }
        Ok(())
    })
}

#[test]
fn a_rule_that_names_a_link_is_about_what_it_leads_to() -> Result<()> {
    Shared::with(|daemon| {
        for folder in ["/srv/aw-links/open", "/srv/aw-real/run"] {
            fs::create_dir_all(folder)?;
        }
        fs::copy("/usr/bin/true", "/srv/aw-real/wrapper")?;
        let socket = "/srv/aw-real/run/x.sock";
        let _ = fs::remove_file(socket);
        let _listener = UnixListener::bind(socket)?;
        for (link, to) in [
            ("/srv/aw-links/dropdb", "../aw-real/wrapper"),
            ("/srv/aw-links/run", "/srv/aw-real/run"),
            ("/srv/aw-links/open/secret", "/etc/passwd"),
        ] {
            let _ = fs::remove_file(link);
            symlink(to, link)?;
        }
        // A link that another user made in a folder of theirs says nothing about what is not theirs.
        fs::set_permissions("/srv/aw-links/open", fs::Permissions::from_mode(0o777))?;
        lchown("/srv/aw-links/open/secret", Some(65_534), Some(65_534))?;
        daemon.reload()?;
        daemon.wait_for("the policy anew", |event| event.kind == Kind::PolicyApplied)?;
        refused(daemon, "exec env /srv/aw-real/wrapper", "linked")?;
        refused(daemon, "exec env /srv/aw-links/dropdb", "linked")?;
        let connect = format!("socket.socket(socket.AF_UNIX).connect(\"{socket}\")");
        refused(daemon, &format!("exec python3 -c 'import socket; {connect}'"), "linked")?;
        free(daemon, "exec cat /etc/passwd")
    })
}

/// Other names of files that rules cover, made outside.
struct Links;

impl Links {
    const FOLDER: &str = "/srv/aw-other";

    fn new() -> Result<Self> {
        let this = Self;
        let _ = fs::remove_dir_all(Self::FOLDER);
        fs::create_dir_all(Self::FOLDER)?;
        Ok(this)
    }

    fn add(&self, of: &str, name: &str) -> Result<String> {
        let link = format!("{}/{name}", Self::FOLDER);
        fs::hard_link(of, &link).with_context(|| format!("cannot link `{of}` to `{link}`"))?;
        Ok(link)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Self::FOLDER);
    }
}

/// Makes the program anew that is not to be started.
fn program() -> Result<String> {
    fs::create_dir_all("/srv/aw-bin")?;
    let tool = "/srv/aw-bin/tool".to_owned();
    fs::copy("/usr/bin/true", &tool)?;
    Ok(tool)
}

/// Cases A03, B14, B20.
#[test]
fn a_hard_link_that_was_there_before_is_judged_as_what_it_names() -> Result<()> {
    Shared::with(|daemon| {
        let (file, tool) = (protected()?, program()?);
        let links = Links::new()?;
        let name = links.add(&file, "f")?;
        let other = links.add(&file, "g")?;
        let run = links.add(&tool, "tool")?;
        fs::write("/srv/aw-other/own", "mine")?;
        let own = links.add("/srv/aw-other/own", "own-too")?;
        daemon.reload()?;
        daemon.wait_for("the policy anew", |event| event.kind == Kind::PolicyApplied)?;
        let mode = fs::metadata(&file)?.mode();
        for script in [
            format!("exec cat {name}"),
            format!("exec dd if=/dev/null of={name} conv=notrunc"),
            format!("exec python3 -c 'import os; os.truncate(\"{name}\", 0)'"),
            format!("exec python3 -c 'import os; os.utime(\"{name}\", (1, 1))'"),
            format!("exec chmod 777 {name}"),
            format!("exec ln {name} /srv/aw-other/h"),
            format!("ln -s {name} /srv/aw-other/l && exec cat /srv/aw-other/l"),
        ] {
            refused(daemon, &script, "protected")?;
            let found = fs::metadata(&file)?;
            let same = fs::read(&file)? == b"precious" && found.mode() == mode && found.mtime() > 1;
            ensure!(same && !Path::new("/srv/aw-other/h").exists(), "`{script}` did something");
        }
        refused(daemon, &format!("exec env {run}"), "programs")?;
        // The name by which a rule knows a file stays as long as there are others.
        refused(daemon, &format!("exec rm {tool}"), "programs")?;
        refused(daemon, &format!("cp /usr/bin/false {run}-new && exec mv {run}-new {tool}"), "programs")?;
        ensure!(fs::read(&tool)? == fs::read("/usr/bin/true")?);
        // Names alone are nobody's.
        free(daemon, &format!("mv {other} {other}-too && exec rm {other}-too"))?;
        free(daemon, &format!("exec rm {run}"))?;
        free(daemon, &format!("exec rm {tool}"))?;
        free(daemon, &format!("cat {own} && echo more >> {own} && exec rm {own}"))?;
        ensure!(fs::read("/srv/aw-other/own")? == b"minemore\n");
        // Outside it is a file like others.
        fs::write(&name, "changed")?;
        ensure!(fs::read(&file)? == b"changed" && fs::metadata(&file)?.nlink() == 2);
        Ok(())
    })
}

/// Cases A03, B14, B20.
#[test]
fn a_hard_link_that_is_made_outside_is_found() -> Result<()> {
    Shared::with(|daemon| {
        let file = protected()?;
        let links = Links::new()?;
        let name = links.add(&file, "f")?;
        // Nobody tells of a link: it is found when next is looked, each minute, and as soon as something is mounted.
        let folder = work_dir()?;
        let mounted = Mounted::at(daemon, "/usr/share", folder.path().join("there"))?;
        refused(daemon, &format!("exec cat {name}"), "protected")?;
        mounted.gone(daemon)?;
        // What takes the place of the protected file is another one, and so is what is left of the old one.
        fs::write("/srv/aw-other/new", "newer")?;
        fs::rename("/srv/aw-other/new", &file)?;
        free(daemon, &format!("exec cat {name}"))?;
        refused(daemon, &format!("exec cat {file}"), "protected")
    })
}
