//! Compares the log with the truth: each thing done has its event, and nothing else happened.

use std::net::IpAddr;
use std::path::Path;

use agentwatch::event::bytes::decode;
use agentwatch::event::{Encoding, Event, Kind, Network, ObservedText};
use anyhow::{Context as _, Result, bail, ensure};

use crate::session::{ActRun, SessionRun};
use crate::truth::{Bytes, Did, DidNet};

/// The bytes of a text of the log.
///
/// # Errors
/// If it is said to be encoded and is not.
pub fn bytes(text: &ObservedText, encoding: Option<Encoding>) -> Result<Bytes> {
    let bytes = decode(text, encoding.is_some()).with_context(|| format!("not well encoded: {text:?}"))?;
    Ok(Bytes(bytes))
}

/// Checks that the events on the actor's folder and on the network are what the actor did, no more and no
/// less, with all that it knows of each.
///
/// # Errors
/// At the first difference, with what was expected and what is there.
pub fn same_acts(run: &ActRun) -> Result<()> {
    all_attributed(run)?;
    let mut left = Vec::new();
    for event in run.own().filter(|event| concerns(event, &run.truth.dir)) {
        // Folded events stand for several.
        left.extend(std::iter::repeat_n(event, usize::try_from(event.count)?));
    }
    for did in run.truth.did.iter().filter(|did| !did.kind.starts_with("process.")) {
        match left.iter().position(|event| tells(event, did)) {
            Some(index) => drop(left.remove(index)),
            None if did.optional => {}
            None => bail!("no event for {}\nleft over:\n{}", json(did), json_lines(left)),
        }
    }
    ensure!(left.is_empty(), "events of nothing that was done:\n{}", json_lines(left));
    Ok(())
}

/// Checks that each thing that the actor did has an event, whatever else there is.
///
/// # Errors
/// At the first that has none.
pub fn all_told(run: &ActRun) -> Result<()> {
    all_attributed(run)?;
    for did in run.truth.did.iter().filter(|did| !did.optional && !did.kind.starts_with("process.")) {
        let found = run.own().any(|event| tells(event, did));
        ensure!(found, "no event for {}\nof this kind:\n{}", json(did), json_lines(of_kind(run, did)));
    }
    Ok(())
}

/// Checks the processes: each fork, exec and exit that the actor knows of, and each process known by a fork.
///
/// # Errors
/// At the first difference.
pub fn same_processes(run: &ActRun) -> Result<()> {
    all_attributed(run)?;
    for did in run.truth.did.iter().filter(|did| did.kind.starts_with("process.")) {
        let told = run.own().filter(|event| process_event_tells(event, did)).count();
        let same = || json_lines(of_kind(run, did));
        ensure!(told == 1, "{told} events instead of one for {}\nof this kind:\n{}", json(did), same());
    }
    let forks = run.of_kind(Kind::ProcessFork).count();
    let known = run.truth.of_kind("process.fork").count();
    ensure!(forks == known, "{forks} forks in the log, {known} were made");
    // Each process ends once, the actor itself included.
    let exits = run.of_kind(Kind::ProcessExit).count();
    ensure!(exits == known + 1, "{exits} exits in the log, {} processes lived", known + 1);
    Ok(())
}

/// Checks that what the run's events say of themselves is whole: agent, owner, session, process.
///
/// # Errors
/// At the first event that lacks something, or that belongs to nobody.
pub fn all_attributed(run: &SessionRun) -> Result<()> {
    for event in &run.events {
        match event.kind {
            Kind::DaemonStart
            | Kind::DaemonStop
            | Kind::LogRecovered
            | Kind::PolicyApplied
            | Kind::SelfTest => continue,
            _ => {}
        }
        ensure!(
            *event.session == *run.session,
            "an event from outside the session {}: {}",
            run.session,
            json(event)
        );
        ensure!(event.kind != Kind::Loss, "something was lost: {}", json(event));
        ensure!(&*event.agent == "test", "not the agent's: {}", json(event));
        ensure!(event.owner.as_deref() == Some("tests@example.com"), "not the owner's: {}", json(event));
        if !matches!(event.kind, Kind::SessionStart | Kind::SessionEnd) {
            let process =
                event.process.as_ref().with_context(|| format!("without a process: {}", json(event)))?;
            ensure!(process.pid != 0 && process.start_time != 0, "without an identity: {}", json(event));
        }
    }
    Ok(())
}

/// Something as a line of JSON, for messages; the middle of a long one is left out.
pub fn json(value: &impl serde::Serialize) -> String {
    const END: usize = 700;
    let text = serde_json::to_string(value).unwrap_or_else(|error| format!("(cannot be shown: {error})"));
    let cut = |at: usize| text.char_indices().map(|(index, _)| index).find(|index| *index >= at);
    match (cut(END), cut(text.len().saturating_sub(END))) {
        (Some(from), Some(to)) if from < to => {
            let (front, back) = (text.get(..from).unwrap_or_default(), text.get(to..).unwrap_or_default());
            format!("{front} [...] {back}")
        }
        _ => text,
    }
}

/// The first events as lines of JSON, for messages.
pub fn json_lines<'a>(events: impl IntoIterator<Item = &'a Event>) -> String {
    const LINES: usize = 20;
    let mut events = events.into_iter();
    let mut text: String = events.by_ref().take(LINES).map(|event| json(event) + "\n").collect();
    let more = events.count();
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn of_kind<'a>(run: &'a SessionRun, did: &Did) -> Vec<&'a Event> {
    run.own().filter(|event| kind_is(event.kind, did)).collect()
}

fn kind_is(kind: Kind, did: &Did) -> bool {
    let name = serde_json::to_value(kind).ok();
    let name = name.as_ref().and_then(serde_json::Value::as_str);
    name == Some(&did.kind) || (did.or_kind.is_some() && name == did.or_kind.as_deref())
}

/// Whether an event is about the folder, or about the network.
fn concerns(event: &Event, dir: &Bytes) -> bool {
    let below = |text: &ObservedText, encoding| {
        bytes(text, encoding).is_ok_and(|path| path.0.starts_with(&dir.0) && path.0 != dir.0)
    };
    if let Some(file) = &event.file {
        // What has no place in the initial namespace is in the actor's own.
        let elsewhere = file.root.is_some() && !is_system(&file.path.0);
        let to = file.path_to.as_ref().is_some_and(|path| below(path, file.path_to_encoding));
        return elsewhere || to || file.path_truncated || below(&file.path, file.path_encoding);
    }
    event.network.is_some()
}

/// What a loader or libc opens in any root.
fn is_system(path: &str) -> bool {
    ["/proc", "/sys", "/dev", "/etc", "/lib", "/usr"].iter().any(|folder| Path::new(path).starts_with(folder))
}

/// Whether the event is that of what was done. What the truth does not know is not compared.
fn tells(event: &Event, did: &Did) -> bool {
    let pid = event.process.as_ref().map(|process| process.pid);
    kind_is(event.kind, did)
        && pid == Some(did.pid)
        && match (&event.file, &event.network, &did.network) {
            (Some(file), None, None) => file_tells(event.kind, file, did),
            (None, Some(network), Some(known)) => network_tells(network, known),
            _ => false,
        }
}

fn file_tells(kind: Kind, file: &agentwatch::event::File, did: &Did) -> bool {
    let same = |known: &Option<Bytes>, text: Option<&ObservedText>, encoding| match (known, text) {
        (None, _) => true,
        (Some(known), Some(text)) => bytes(text, encoding).is_ok_and(|bytes| bytes == *known),
        (Some(_), None) => false,
    };
    // When these are asked for, the file does not exist yet.
    let is_new = matches!(kind, Kind::FileCreate | Kind::FileMkdir | Kind::FileSymlink);
    let inode = did.inode.is_none_or(|known| file.inode == Some(known) || (is_new && file.inode.is_none()));
    let size = did.size.is_none_or(|known| file.size.is_none_or(|size| size == known));
    let path = if file.path_truncated {
        path_end(file, did)
    } else {
        same(&did.path, Some(&file.path), file.path_encoding)
    };
    path && same(&did.path_to, file.path_to.as_ref(), file.path_to_encoding)
        && same(&did.argument, file.argument.as_ref(), file.argument_encoding)
        && inode
        && size
        && did.device.as_ref().is_none_or(|known| *known == file.device)
        && did.deleted == file.deleted
        && did.flags.as_ref().is_none_or(|known| same_flags(known, file.flags.as_deref()))
        && did.mode.is_none_or(|known| octal(file.mode.as_deref()) == Some(known))
        && did.uid.is_none_or(|known| file.uid == Some(known))
        && did.gid.is_none_or(|known| file.gid == Some(known))
}

/// A path with names missing in front is whole names at the end of the real one.
fn path_end(file: &agentwatch::event::File, did: &Did) -> bool {
    let Some(known) = &did.path else { return true };
    bytes(&file.path, file.path_encoding)
        .is_ok_and(|path| path.0.len() > 1 && known.0.ends_with(&[b"/", path.0.as_slice()].concat()))
}

fn octal(mode: Option<&str>) -> Option<u32> {
    u32::from_str_radix(mode?, 8).ok().map(|mode| mode & 0o7777)
}

/// The same flags in any order. The kernel adds `O_LARGEFILE` itself, and `O_CLOEXEC` is the descriptor's.
fn same_flags(known: &str, given: Option<&str>) -> bool {
    let set = |text: &str| {
        let mut names: Vec<String> = text.split('|').map(str::to_owned).collect();
        let is_tmpfile = names.iter().any(|name| name == "O_TMPFILE");
        // O_TMPFILE holds O_DIRECTORY.
        names.retain(|name| !(is_tmpfile && name == "O_DIRECTORY"));
        names.retain(|name| !matches!(name.as_str(), "O_LARGEFILE" | "O_CLOEXEC"));
        names.sort();
        names
    };
    given.is_some_and(|given| set(given) == set(known))
}

fn network_tells(network: &Network, known: &DidNet) -> bool {
    let same = |known: &Option<Bytes>, text: Option<&ObservedText>, encoding| match (known, text) {
        (None, _) => true,
        (Some(known), Some(text)) => bytes(text, encoding).is_ok_and(|bytes| same_address(known, &bytes)),
        (Some(_), None) => false,
    };
    network.transport == known.transport
        && network.family == known.family
        && same(&known.peer, network.peer_address.as_ref(), network.peer_address_encoding)
        && same(&known.local, network.local_address.as_ref(), network.local_address_encoding)
        && known.peer_port.is_none_or(|port| network.peer_port == Some(port))
        && known.local_port.is_none_or(|port| network.local_port == Some(port))
}

/// IP addresses by value, a mapped one as what it maps; all else byte by byte.
fn same_address(one: &Bytes, other: &Bytes) -> bool {
    let ip = |bytes: &Bytes| {
        std::str::from_utf8(&bytes.0)
            .ok()
            .and_then(|text| text.parse::<IpAddr>().ok())
            .map(|ip| ip.to_canonical())
    };
    match (ip(one), ip(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn process_event_tells(event: &Event, did: &Did) -> bool {
    let Some(process) = &event.process else { return false };
    kind_is(event.kind, did)
        && process.pid == did.pid
        && match event.kind {
            Kind::ProcessFork => event.child.as_ref().is_some_and(|child| {
                Some(child.pid) == did.child
                    && child.start_time != 0
                    && child.namespace_pid == did.namespace_pid
            }),
            Kind::ProcessExec => exec_tells(process, did),
            Kind::ProcessExit => {
                event.exit.as_ref().is_some_and(|exit| exit.code == did.code && exit.signal == did.signal)
            }
            _ => false,
        }
}

fn exec_tells(process: &agentwatch::event::Process, did: &Did) -> bool {
    let path = did.path.as_ref().is_none_or(|known| {
        bytes(&process.executable_path, process.executable_path_encoding).is_ok_and(|path| path == *known)
    });
    let args = || -> Result<Vec<Bytes>> {
        process.command_args.iter().map(|arg| bytes(arg, process.command_args_encoding)).collect()
    };
    let same_args = did.args.as_ref().is_none_or(|known| {
        args().is_ok_and(
            |args| if process.command_args_truncated { is_front(&args, known) } else { args == *known },
        )
    });
    path && same_args
}

/// Arguments that are missing at the end are the front of all, the last of them perhaps in part.
fn is_front(args: &[Bytes], known: &[Bytes]) -> bool {
    args.split_last().is_some_and(|(last, whole)| {
        known.starts_with(whole) && known.get(whole.len()).is_some_and(|known| known.0.starts_with(&last.0))
    })
}
