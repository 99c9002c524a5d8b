//! What is done to files.

use agentwatch::event::{Kind, Op};
use anyhow::{Result, ensure};
use tests::daemon::Shared;

use crate::exact;

exact! {
    opens: ["open"],
    creates: ["create"],
    opens_without_a_name: ["tmpfile"],
    no_access_by_o_path: ["path-only"],
    folders: ["mkdir"],
    removals: ["unlink"],
    renames: ["rename"],
    links: ["link"],
    truncations: ["truncate"],
    modes: ["chmod"],
    owners: ["chown"],
    attributes: ["xattr"],
    times: ["times"],
    special_files: ["mknod"],
    failed_calls_without_effect: ["failing"],
    mounts: ["mount-tmpfs"],
    mounts_by_the_newer_calls: ["mount-new"],
}

#[test]
fn operations_are_those_of_the_contract() -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(&["open"])?;
        let dir = run.dir.path().to_string_lossy().into_owned();
        let ops: Vec<_> = run
            .of_kind(Kind::FileOpen)
            .filter(|event| event.file.as_ref().is_some_and(|file| file.path.0.starts_with(&dir)))
            .map(|event| event.op)
            .collect();
        // Created by writing, then read, written, both, appended, truncated.
        let expected = [Op::Write, Op::Read, Op::Write, Op::Write, Op::Write, Op::Write].map(Some);
        ensure!(ops == expected, "{ops:?}");
        let created: Vec<_> = run.of_kind(Kind::FileCreate).map(|event| event.op).collect();
        ensure!(created == [Some(Op::Write)], "{created:?}");
        Ok(())
    })
}
