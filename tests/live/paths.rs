//! Paths that are right: odd, long, renamed, removed, within a chroot, a container or an overlay.

use agentwatch::event::Kind;
use anyhow::{Context as _, Result, ensure};
use tests::compare::{all_told, bytes, same_acts};
use tests::daemon::Shared;
use tests::session::ActRun;
use tests::truth::Bytes;

use crate::exact;

exact! {
    /// Case B22.
    hostile_names: ["odd-names"],
    more_than_32_components: ["deep", "60"],
    long_names: ["deep", "10", "--len", "255"],
    /// 100 names of 60 bytes: over 4,096 bytes, within the 128 components that are followed.
    more_than_4096_bytes: ["deep", "100", "--len", "60"],
    /// Case F02.
    renamed_while_open: ["open-renamed"],
    removed_while_open: ["open-deleted"],
    many_spellings_of_one_file: ["spellings"],
    within_a_chroot: ["chroot"],
    through_a_bind_mount: ["mount-bind"],
}

/// Case E14.
#[test]
fn what_is_too_deep_says_that_names_are_missing() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["deep", "200"])?;
        same_acts(&run)?;
        let leaf = run.of_kind(Kind::FileCreate).find_map(|event| event.file.as_ref());
        let leaf = leaf.context("the file in the deepest folder is missing")?;
        ensure!(leaf.path_truncated, "cut in silence: {leaf:?}");
        ensure!(leaf.path.0.ends_with("/leaf"), "cut at the wrong end: {leaf:?}");
        // Where everything fits, nothing is said to be missing.
        let first = run.of_kind(Kind::FileMkdir).find_map(|event| event.file.as_ref());
        ensure!(first.is_some_and(|file| !file.path_truncated), "{first:?}");
        Ok(())
    })
}

#[test]
fn on_an_overlay_by_the_merged_path() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["overlay"])?;
        // The overlay's own work on the layers below may be told too, by their paths.
        all_told(&run)
    })
}

#[test]
fn in_a_mount_namespace_with_its_root_named() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["container"])?;
        let namespace = run.truth.facts.get("mount_namespace").and_then(|value| value.as_str());
        let root =
            format!("mnt:{}", namespace.context("the actor named no namespace")?.trim_start_matches("mnt:"));
        for kind in [Kind::FileCreate, Kind::FileDelete] {
            let told = inside(&run, kind)?;
            ensure!(told.0 == Bytes::from("/inside"), "{told:?}");
            ensure!(told.1.as_deref() == Some(root.as_str()), "{told:?} instead of {root}");
        }
        Ok(())
    })
}

/// Path and root of the only event of a kind in the container.
fn inside(run: &ActRun, kind: Kind) -> Result<(Bytes, Option<String>)> {
    let files: Vec<_> = run.of_kind(kind).filter_map(|event| event.file.as_ref()).collect();
    ensure!(files.len() == 1, "{} events of {kind:?} instead of one: {files:#?}", files.len());
    let file = files.first().context("no event")?;
    Ok((bytes(&file.path, file.path_encoding)?, file.root.clone()))
}
