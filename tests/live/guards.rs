//! What guards refuse: it fails, nothing happened, and one event says so. Outside sessions, and where the guard is off,
//! the same goes through.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{all_attributed, json_lines};
use tests::daemon::{Daemon, Shared};
use tests::session::{SessionRun, act_outside, act_words, truth, work_dir};

const EPERM: u64 = 1;
const EACCES: u64 = 13;
const ENOEXEC: u64 = 8;
const EBUSY: u64 = 16;
const EFAULT: u64 = 14;

/// A process outside every session.
struct Outsider(Child);

impl Outsider {
    fn start() -> Result<Self> {
        let child = Command::new("sleep").arg("10000").stdin(Stdio::null()).spawn();
        Ok(Self(child.context("cannot start sleep")?))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries something as a session of this agent; gives the error's number.
pub fn tried(daemon: &mut Daemon, agent: &str, words: &[&str]) -> Result<(u64, SessionRun)> {
    let dir = work_dir()?;
    let mut args = vec!["try"];
    args.extend(words);
    let run = daemon.run_session(daemon.exec_as(agent, act_words(dir.path(), &args)))?;
    ensure!(run.status.success(), "{words:?}: {}{}", run.stderr, json_lines(&run.events));
    Ok((truth(&run.stdout)?.number("errno")?, run))
}

/// An attempt, and what comes of it.
struct Case<'a> {
    words: &'a [&'a str],
    /// The error's number where it is refused.
    refused: u64,
    /// The error's number else.
    free: u64,
    kind: Kind,
    rule: &'a str,
}

impl<'a> Case<'a> {
    /// An attempt that fails with EPERM where it is refused, and with nothing else.
    fn of(words: &'a [&'a str], kind: Kind, rule: &'a str) -> Self {
        Self { words, refused: EPERM, free: 0, kind, rule }
    }

    /// The events of this case's kind that its attempt gave, told apart from others of the run by the rule or, where it
    /// went through, by the kind alone.
    fn events<'r>(&self, run: &'r SessionRun) -> Vec<&'r Event> {
        run.of_kind(self.kind).filter(|event| event.rule.is_some() || event.guard.is_some()).collect()
    }

    /// Refused in a session; told where the mode enforces nothing; free where the guard is off, and outside.
    fn check(&self, daemon: &mut Daemon) -> Result<Event> {
        let refusal = self.check_refused(daemon)?;
        for (agent, verdict) in [("soft", Verdict::WouldDeny), ("open", Verdict::Allowed)] {
            let (errno, run) = tried(daemon, agent, self.words)?;
            ensure!(errno == self.free, "{:?} as {agent}: errno {errno}", self.words);
            let events = self.events(&run);
            let said = json_lines(events.iter().copied());
            ensure!(events.iter().all(|event| event.verdict == verdict && event.errno.is_none()), "{said}");
            ensure!(verdict == Verdict::Allowed || events.len() == 1, "{:?} as {agent}: {said}", self.words);
        }
        let mut args = vec!["try"];
        args.extend(self.words);
        let (told, _dir) = act_outside(&args)?;
        ensure!(told.number("errno")? == self.free, "{:?} outside: {told:?}", self.words);
        all_attributed(&daemon.sentinel()?)?;
        Ok(refusal)
    }

    /// Refused in a session, and told once.
    fn check_refused(&self, daemon: &mut Daemon) -> Result<Event> {
        self.check_refused_to(daemon, "strict")
    }

    /// The same for any agent.
    fn check_refused_to(&self, daemon: &mut Daemon, agent: &str) -> Result<Event> {
        let (errno, run) = tried(daemon, agent, self.words)?;
        ensure!(errno == self.refused, "{:?}: errno {errno}\n{}", self.words, json_lines(&run.events));
        let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
        let said = json_lines(denied.iter().copied());
        let [event] = denied.as_slice() else { anyhow::bail!("{:?}: {said}", self.words) };
        let name = if self.refused == EACCES { "EACCES" } else { "EPERM" };
        ensure!(event.kind == self.kind && event.rule.as_deref() == Some(self.rule), "{said}");
        ensure!(event.errno.as_deref() == Some(name) && event.policy.is_some(), "{said}");
        ensure!(event.reason.is_some() && event.count == 1, "{said}");
        Ok((*event).clone())
    }
}

/// Cases B06, D12.
#[test]
fn a_process_outside_is_not_looked_into() -> Result<()> {
    Shared::with(|daemon| {
        let outsider = Outsider::start()?;
        let pid = outsider.pid();
        let ways: [(&[&str], u64, u64); 4] = [
            (&["attach", &pid], EPERM, 0),
            (&["memory", &pid], EACCES, 0),
            (&["write-memory", &pid], EPERM, EFAULT),
            (&["take-descriptor", &pid], EPERM, 0),
        ];
        for (words, refused, free) in ways {
            let case = Case { words, refused, free, kind: Kind::GuardPtrace, rule: "guard: ptrace" };
            let event = case.check(daemon)?;
            let guarded = event.guard.context("no target")?;
            ensure!(guarded.act == "attach" && guarded.pid == Some(outsider.0.id()), "{guarded:?}");
            ensure!(guarded.start_time.is_some_and(|start| start != 0), "{guarded:?}");
        }
        Ok(())
    })
}

#[test]
fn a_child_of_its_own_can_be_traced() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        // A session inside the session.
        let inner = dir.path().join("aw-inner");
        fs::copy("/usr/bin/sleep", &inner)?;
        for program in ["sleep", &inner.display().to_string()] {
            let (errno, run) = tried(daemon, "strict", &["attach-child", program])?;
            ensure!(errno == 0, "{program}: errno {errno}{}", json_lines(&run.events));
            let events: Vec<&Event> = run.of_kind(Kind::GuardPtrace).collect();
            let allowed = |event: &&Event| event.verdict == Verdict::Allowed && event.rule.is_none();
            ensure!(events.len() == 1 && events.iter().all(allowed), "{program}: {events:?}");
            let inside = |event: &Event| &*event.agent == "inner" && event.parent_session.is_some();
            ensure!(run.events.iter().any(inside) == (program != "sleep"), "{}", json_lines(&run.events));
        }
        daemon.sentinel()?;
        Ok(())
    })
}

/// Case E01.
#[test]
fn agentwatch_cannot_be_signalled() -> Result<()> {
    Shared::with(|daemon| {
        let (pid, kind, rule) = (daemon.pid().to_string(), Kind::GuardSignal, "guard: signal");
        for signal in ["9", "15", "19", "1"] {
            let event = Case::of(&["signal", &pid, signal], kind, rule).check_refused(daemon)?;
            let guarded = event.guard.context("no target")?;
            ensure!(
                (guarded.pid, guarded.detail.as_deref()) == (Some(daemon.pid()), Some(signal)),
                "{guarded:?}"
            );
        }
        // It lives, and SIGCONT does nothing to it.
        for words in [&["signal", &pid, "18"][..], &["limit", &pid], &["nice", &pid], &["affinity", &pid]] {
            Case::of(words, kind, rule).check(daemon)?;
        }
        // Whether it is there may be asked.
        let (errno, run) = tried(daemon, "strict", &["signal", &pid, "0"])?;
        ensure!(errno == 0 && run.of_kind(Kind::GuardSignal).next().is_none(), "errno {errno}");
        // Others may be signalled.
        let outsider = Outsider::start()?;
        let (errno, run) = tried(daemon, "strict", &["signal", &outsider.pid(), "15"])?;
        ensure!(errno == 0 && run.of_kind(Kind::GuardSignal).next().is_none(), "errno {errno}");
        Ok(())
    })
}

/// Cases A04, B15, B17, B23.
#[test]
fn nothing_is_mounted() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let place = dir.path().display().to_string();
        let mounts = || fs::read_to_string("/proc/self/mounts").context("no mounts");
        let before = mounts()?;
        let rule = "guard: mount";
        Case::of(&["mount", &place], Kind::Mount, rule).check_refused(daemon)?;
        Case::of(&["mount-nowhere"], Kind::Mount, rule).check_refused(daemon)?;
        ensure!(mounts()? == before, "it was mounted");
        act_outside(&["try", "mount", &place])?;
        let mounted = mounts()?;
        ensure!(mounted != before, "outside it was not");
        Case::of(&["reconfigure", &place], Kind::Mount, rule).check_refused(daemon)?;
        Case::of(&["unmount", &place], Kind::Unmount, rule).check_refused(daemon)?;
        ensure!(mounts()? == mounted, "it was changed");
        let (errno, run) = tried(daemon, "open", &["unmount", &place])?;
        ensure!(errno == 0 && mounts()? == before, "{}", json_lines(&run.events));
        let (errno, run) = tried(daemon, "soft", &["mount-nowhere"])?;
        ensure!(errno == 0, "{}", json_lines(&run.events));
        Ok(())
    })
}

/// Cases A04, D07.
#[test]
fn there_is_no_other_root() -> Result<()> {
    Shared::with(|daemon| {
        let (kind, rule) = (Kind::GuardNamespace, "guard: namespace");
        Case::of(&["user-namespace"], kind, rule).check(daemon)?;
        for (act, free) in [("chroot", 0), ("pivot-root", EBUSY)] {
            let event = Case { free, ..Case::of(&[act, "/usr"], kind, rule) }.check(daemon)?;
            ensure!(event.file.is_some_and(|file| file.path.0 == "/usr"), "another place");
            ensure!(event.guard.is_some_and(|guarded| guarded.act == act), "another act");
        }
        Ok(())
    })
}

/// Case E05.
#[test]
fn no_module_is_loaded() -> Result<()> {
    Shared::with(|daemon| {
        let (kind, rule) = (Kind::GuardModule, "guard: module");
        let case = Case { free: ENOEXEC, ..Case::of(&["module", "/etc/hostname"], kind, rule) };
        let event = case.check(daemon)?;
        ensure!(event.file.is_some_and(|file| file.path.0 == "/etc/hostname"), "another file");
        Case { free: ENOEXEC, ..Case::of(&["module-bytes"], kind, rule) }.check(daemon)?;
        Ok(())
    })
}

/// Cases E03, E05.
#[test]
fn bpf_is_not_used() -> Result<()> {
    Shared::with(|daemon| {
        let event = Case::of(&["bpf"], Kind::GuardBpf, "guard: bpf").check(daemon)?;
        ensure!(event.guard.is_some_and(|guarded| guarded.detail.as_deref() == Some("BPF_MAP_CREATE")));
        Ok(())
    })
}

/// Cases C09, C18.
#[test]
fn raw_packets_are_not_sent() -> Result<()> {
    Shared::with(|daemon| {
        for (family, name) in [("2", "ipv4"), ("10", "ipv6"), ("17", "packet")] {
            let (kind, rule) = (Kind::GuardRawSocket, "guard: raw-socket");
            let event = Case::of(&["raw-socket", family], kind, rule).check(daemon)?;
            ensure!(event.guard.is_some_and(|guarded| guarded.detail.as_deref() == Some(name)), "{name}");
        }
        Ok(())
    })
}

/// Case B18.
#[test]
fn disks_and_memory_are_not_opened() -> Result<()> {
    Shared::with(|daemon| {
        for device in ["/dev/mem", "/dev/vda"] {
            ensure!(Path::new(device).exists(), "no {device} here");
            let event = Case::of(&["device", device], Kind::FileOpen, "guard: raw-device").check(daemon)?;
            ensure!(event.file.is_some_and(|file| file.path.0 == device), "another file");
        }
        let (errno, run) = tried(daemon, "strict", &["device", "/dev/zero"])?;
        ensure!(errno == 0, "{}", json_lines(&run.events));
        Ok(())
    })
}

/// Case D13.
#[test]
fn nothing_is_typed_for_others() -> Result<()> {
    Shared::with(|daemon| {
        let ways: [(&[&str], &str, &str); 2] =
            [(&["keys"], "/dev/pts/", "TIOCSTI"), (&["console", "/dev/tty1"], "/dev/tty1", "TIOCLINUX")];
        for (words, place, command) in ways {
            let event = Case::of(words, Kind::GuardDelegate, "guard: delegate").check(daemon)?;
            ensure!(event.file.is_some_and(|file| file.path.0.starts_with(place)), "another place");
            let guarded = event.guard.context("no act")?;
            ensure!((guarded.act.as_str(), guarded.detail.as_deref()) == ("keys", Some(command)));
        }
        Ok(())
    })
}

/// Case E15.
#[test]
fn the_clock_is_not_set() -> Result<()> {
    Shared::with(|daemon| {
        let case = Case::of(&["clock"], Kind::GuardAgentwatch, "guard: agentwatch");
        let event = case.check_refused(daemon)?;
        ensure!(event.guard.is_some_and(|guarded| guarded.act == "clock"), "another act");
        let (errno, run) = tried(daemon, "soft", case.words)?;
        let told = case.events(&run);
        ensure!(errno == 0 && told.len() == 1, "errno {errno}: {}", json_lines(&run.events));
        ensure!(told.iter().all(|event| event.verdict == Verdict::WouldDeny), "{told:?}");
        let (told, _dir) = act_outside(&["try", "clock"])?;
        ensure!(told.number("errno")? == 0, "outside: {told:?}");
        Ok(())
    })
}

/// Cases B17, D09, D10, D13.
#[test]
fn delegates_are_not_asked() -> Result<()> {
    Shared::with(|daemon| {
        let rule = "guard: delegate";
        for socket in ["/run/docker.sock", "/run/aw-broker.sock"] {
            let _ = fs::remove_file(socket);
            let listener = UnixListener::bind(socket)?;
            listener.set_nonblocking(true)?;
            for name in [socket.to_owned(), format!("/proc/self/root{socket}"), format!("/var{socket}")] {
                Case::of(&["connect", &name], Kind::NetConnect, rule).check_refused(daemon)?;
                ensure!(listener.accept().is_err(), "{name} was reached");
            }
            // Others do not have the list of `strict`.
            if socket == "/run/docker.sock" {
                let event = Case::of(&["connect", socket], Kind::NetConnect, rule).check(daemon)?;
                let peer = event.network.and_then(|network| network.peer_address);
                ensure!(peer.is_some_and(|peer| peer.0 == socket), "another socket");
                ensure!(listener.accept().is_ok(), "outside it was not reached");
            }
            fs::remove_file(socket)?;
        }
        let order = "/etc/cron.d/aw-order";
        fs::create_dir_all("/etc/cron.d")?;
        Case::of(&["create", order], Kind::FileCreate, rule).check_refused(daemon)?;
        ensure!(!Path::new(order).exists(), "it was left");
        act_outside(&["try", "create", order])?;
        Case::of(&["remove", order], Kind::FileDelete, rule).check_refused(daemon)?;
        let (errno, run) = tried(daemon, "open", &["remove", order])?;
        ensure!(errno == 0 && !Path::new(order).exists(), "{}", json_lines(&run.events));
        Ok(())
    })
}

/// Cases E03, E06, E12, E19.
#[test]
fn what_is_agentwatchs_own_is_left_alone() -> Result<()> {
    Shared::with(|daemon| {
        let rule = "guard: agentwatch";
        let place = daemon.place().clone();
        let pins = fs::read_dir("/sys/fs/bpf/agentwatch")?.next().context("no pins")??.path().join("links");
        let pin = fs::read_dir(pins)?.next().context("no links")??.path();
        let segment = fs::read_dir(place.state().join("log"))?.next().context("no log")??.path();
        // It cannot be switched off.
        for agent in ["strict", "open"] {
            for file in [&place.policy(), &pin, &segment] {
                let name = file.display().to_string();
                Case::of(&["remove", &name], Kind::FileDelete, rule).check_refused_to(daemon, agent)?;
                ensure!(file.exists(), "{name} was removed");
            }
            let new = place.state().join("new");
            let name = new.display().to_string();
            Case::of(&["create", &name], Kind::FileCreate, rule).check_refused_to(daemon, agent)?;
            ensure!(!new.exists(), "{name} was made");
            // Another folder in its place would be another policy.
            let folder = place.policy().parent().context("no folder")?.display().to_string();
            let away = format!("{folder}-away");
            Case::of(&["rename", &folder, &away], Kind::FileRename, rule).check_refused_to(daemon, agent)?;
            ensure!(place.policy().exists(), "the folder was moved away");
            let socket = place.run_dir().join("control.sock").display().to_string();
            Case::of(&["connect", &socket], Kind::NetConnect, rule).check_refused_to(daemon, agent)?;
        }
        // That for declarations is for everybody.
        let socket = place.run_dir().join("declare.sock").display().to_string();
        let (errno, run) = tried(daemon, "strict", &["connect", &socket])?;
        ensure!(errno == 0, "{}", json_lines(&run.events));
        Ok(())
    })
}
