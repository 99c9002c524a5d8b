//! Where the daemon cannot come up, it says why, and leaves nothing.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use tests::daemon::{PINS, Place, Shared};

use crate::failures::{ended, outcome};

/// `agentwatch` with these words, in a mount namespace of its own that a shell command changes first.
fn with_mounts(change: &str, place: &Place, words: &[&str]) -> Result<Output> {
    let like = place.agentwatch(words);
    let script = format!("set -e; {change}; exec agentwatch \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).args(like.get_args());
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outcome(&mut command)
}

/// A daemon that cannot come up leaves nothing in the kernel.
fn nothing_is_pinned() -> Result<()> {
    let left: Vec<_> =
        std::fs::read_dir(PINS).into_iter().flatten().flatten().map(|one| one.path()).collect();
    ensure!(left.is_empty(), "left in the kernel: {left:?}");
    Ok(())
}

#[test]
fn without_root_it_says_how_to_start_it() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let tries = |place: &Place| {
        [&["run"][..], &["doctor"]].into_iter().try_for_each(|words| {
            let like = place.agentwatch(words);
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--clear-groups", "agentwatch"]).args(like.get_args());
            command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
            ended(&outcome(&mut command)?, 6, &["must run as root", "sudo"])
        })
    };
    tries(&place)?;
    ensure!(!place.state().exists(), "it made a state folder");
    // One that an earlier daemon left cannot be read.
    std::fs::create_dir(place.state())?;
    std::fs::set_permissions(place.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    tries(&place)?;
    nothing_is_pinned()
}

/// Case E08.
#[test]
fn without_the_bpf_security_module_it_says_what_to_add() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let hide = "echo lockdown,capability > /tmp/aw-lsm; mount --bind /tmp/aw-lsm /sys/kernel/security/lsm";
    for words in [&["run"][..], &["doctor"]] {
        let output = with_mounts(hide, &place, words)?;
        ended(&output, 6, &["`lockdown,capability`", "add `bpf` to the kernel's `lsm=`"])?;
    }
    ensure!(!place.state().exists(), "it made a state folder");
    nothing_is_pinned()
}

/// Case E08.
#[test]
fn without_type_information_it_says_what_the_kernel_lacks() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let none = "mount -t tmpfs none /sys/kernel/btf";
    let damaged = "head -c 4096 /sys/kernel/btf/vmlinux > /tmp/aw-btf; \
                   mount --bind /tmp/aw-btf /sys/kernel/btf/vmlinux";
    for (hide, words) in [(none, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"][..]), (damaged, &[])] {
        for command in ["run", "doctor"] {
            let output = with_mounts(hide, &place, &[command])?;
            ended(&output, 6, &[&["this kernel's type information"], words].concat())?;
            nothing_is_pinned()?;
        }
    }
    Ok(())
}

#[test]
fn a_state_folder_that_cannot_be_written_is_refused() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let state = place.state();
    std::fs::create_dir(&state)?;
    let at = state.display();
    let read_only = format!("mount -t tmpfs -o ro none '{at}'");
    let full = format!("mount -t tmpfs -o size=16k none '{at}'; cat /dev/zero > '{at}/fill' 2>&- || :");
    let file = format!("mount -t tmpfs none '{at}'; touch '{at}/log'");
    for change in [read_only, full, file] {
        let output = with_mounts(&change, &place, &["run"])?;
        ended(&output, 1, &["the state folder cannot be used", &at.to_string(), "--state"])
            .with_context(|| change)?;
        nothing_is_pinned()?;
    }
    Ok(())
}

#[test]
fn without_a_daemon_questions_are_refused() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    for words in [&["agents"][..], &["tree", "test-000000"], &["events"]] {
        ended(&outcome(&mut place.agentwatch(words))?, 5, &["agentwatch run"])?;
    }
    Ok(())
}
