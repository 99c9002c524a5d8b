//! Containers of Docker itself, with containerd and runc: what sessions have them do is told of as theirs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use agentwatch::event::UsedBy;
use anyhow::{Context as _, Result, ensure};
use tests::compare::json;
use tests::daemon::{PATIENCE, Shared};

use crate::caused::{Folder, blame, cause_of, outside};
use crate::delegates::until_made;

#[test]
fn a_container_is_of_the_session_that_asked_for_it() -> Result<()> {
    Shared::with(|daemon| {
        let docker = Docker::start()?;
        let (mark, go, later) = (docker.shared("mark"), docker.shared("go"), docker.shared("later"));
        outside(&["mkfifo", &go])?;
        let script = format!("> {mark}; read line < {go}; > {later}");
        let words = docker.words(&["run", "-d"], &["sh", "-c", &script]);
        let asked = daemon.run_session(daemon.exec_as("open", &words))?;
        ensure!(asked.status.success(), "{}: {}", asked.status, asked.stderr);
        let events = until_made(daemon, &asked, &mark)?;
        let (start, cause) = cause_of(&events, &mark, &asked)?;
        ensure!(cause.by == UsedBy::Asked && cause.path.0.ends_with("/containerd"), "{}", json(start));
        ensure!(!cause.others && cause.seq.is_some(), "{}", json(start));
        // The session is over, and its container goes on.
        fs::write(&go, "\n")?;
        let made = daemon.wait_for(&later, |event| crate::restarts::is_creation(event, &later))?;
        ensure!(made.last().is_some_and(|made| made.session == start.session), "{}", json(start));
        let said = blame(daemon.place(), &[&later])?;
        for part in [asked.session.as_str(), "was started by", "/containerd", "asked by session"] {
            ensure!(said.contains(part), "no `{part}` in:\n{said}");
        }
        Ok(())
    })
}

#[test]
fn what_is_done_in_a_persons_container_is_of_the_session_that_asked_for_it() -> Result<()> {
    Shared::with(|daemon| {
        let docker = Docker::start()?;
        let own = docker.shared("own");
        let stays = format!("> {own}; exec sleep 1000");
        let words = docker.words(&["run", "-d", "--name", "aw-own"], &["sh", "-c", &stays]);
        outside(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        crate::delegates::wait_for_file(&own)?;
        let mark = docker.shared("mark");
        let makes = format!("> {mark}");
        let words = ["docker", "-H", &docker.host, "exec", "aw-own", "sh", "-c", &makes];
        let asked = daemon.run_session(daemon.exec_as("open", words))?;
        ensure!(asked.status.success(), "{}: {}", asked.status, asked.stderr);
        let events = until_made(daemon, &asked, &mark)?;
        let (start, cause) = cause_of(&events, &mark, &asked)?;
        let by = cause.path.0.rsplit('/').next().unwrap_or_default();
        ensure!(cause.by == UsedBy::Asked && by.starts_with("containerd-shim"), "{}", json(start));
        Ok(())
    })
}

/// Docker, with an image that has the guest's own programs.
struct Docker {
    engine: Child,
    folder: Folder,
    host: String,
}

impl Docker {
    fn start() -> Result<Self> {
        let folder = Folder::new()?;
        let host = format!("unix://{}", folder.path("docker.sock"));
        fs::create_dir(folder.path("shared"))?;
        let log = fs::File::create(folder.path("log"))?;
        let mut engine = Command::new("dockerd");
        for (option, name) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "pid")] {
            engine.arg(option).arg(folder.path(name));
        }
        // No network, and nothing that needs a module which the guest may not have.
        engine.args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        engine.args(["--storage-driver=vfs", "-H", &host]).stdin(Stdio::null());
        let engine = engine.stdout(log.try_clone()?).stderr(log).spawn().context("no dockerd")?;
        let mut docker = Self { engine, folder, host };
        let deadline = Instant::now() + PATIENCE;
        while outside(&["docker", "-H", &docker.host, "version"]).is_err() {
            let log = || fs::read_to_string(docker.folder.path("log")).unwrap_or_default();
            ensure!(docker.engine.try_wait()?.is_none(), "dockerd ended: {}", log());
            ensure!(Instant::now() < deadline, "dockerd does not answer: {}", log());
        }
        docker.import()?;
        Ok(docker)
    }

    /// An image of links to programs that come with `/usr`.
    fn import(&self) -> Result<()> {
        let (root, image) = (self.folder.path("root"), self.folder.path("image.tar"));
        fs::create_dir_all(format!("{root}/usr"))?;
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), format!("{root}/{name}"))?;
        }
        outside(&["tar", "-C", &root, "-cf", &image, "."])?;
        outside(&["docker", "-H", &self.host, "import", &image, "aw"])
    }

    /// A file that containers and the host see under one name.
    fn shared(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.path("shared"))
    }

    /// A command of Docker that makes a container.
    fn words(&self, how: &[&str], program: &[&str]) -> Vec<String> {
        let shared = format!("{0}:{0}", self.folder.path("shared"));
        let common = [
            "--network",
            "none",
            "--security-opt",
            "apparmor=unconfined",
            "-v",
            "/usr:/usr:ro",
            "-v",
            &shared,
            "aw",
        ];
        let all = [&["docker", "-H", &self.host], how, &common, program].concat();
        all.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let host = &self.host;
        // Containers outlive the engine.
        let _ = outside(&["sh", "-c", &format!("docker -H {host} ps -aq | xargs -r docker -H {host} rm -f")]);
        let _ = outside(&["kill", &self.engine.id().to_string()]);
        let _ = self.engine.wait();
    }
}
