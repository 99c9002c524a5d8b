use std::sync::Arc;

use agentwatch_common::{limits::WRITTEN, maps::FileKey};
use serde_json::{Value, json};

use super::*;
use crate::event::{Cause, Event, UsedBy};

/// An event of a session on a file.
fn event(seq: u64, session: &str, kind: &str, inode: u64, rest: Value) -> Event {
    let mut event = json!({
        "time": "2026-11-21T03:37:12.000000001Z", "seq": seq, "host": "h", "boot_id": "b", "kind": kind,
        "agent": "coding", "session": session, "verdict": "allowed", "op": "write", "prompt_id": "p-1",
        "file": {"path": "/srv/job.sh", "device": "8:1", "inode": inode, "flags": "O_WRONLY"},
    });
    event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    serde_json::from_value(event).unwrap()
}

fn key(ino: u64) -> FileKey {
    FileKey { ino, dev: 8 << 20 | 1, pad: 0 }
}

fn open(written: &mut Written, seq: u64, session: &str, number: u64, inode: u64) {
    written.note(&event(seq, session, "file.open", inode, json!({})), number, || None);
}

#[test]
fn the_last_writer_is_known_by_its_number_alone() {
    let mut written = Written::default();
    open(&mut written, 1, "coding-a", 7, 12);
    open(&mut written, 2, "coding-a", 7, 12);
    let found = written.by(key(12), 7).unwrap();
    assert_eq!((found.seq, &*found.session, found.prompt_id.as_deref()), (1, "coding-a", Some("p-1")));
    assert!(written.by(key(12), 8).is_none(), "the kernel means another session");
    assert!(written.by(key(13), 7).is_none());
    open(&mut written, 3, "coding-b", 8, 12);
    assert!(written.by(key(12), 7).is_none(), "another one wrote it since");
    assert_eq!(written.by(key(12), past("coding-b")).unwrap().seq, 3, "as it is known after a boot");
    // Made anew, it may be another inode of the same number.
    let made =
        json!({"file": {"path": "/srv/job.sh", "device": "8:1", "inode": 12, "flags": "O_WRONLY|O_CREAT"}});
    written.note(&event(4, "coding-b", "file.open", 12, made), 8, || None);
    assert_eq!(written.by(key(12), 8).unwrap().seq, 4);
    for nothing in [
        event(5, "c", "file.open", 14, json!({"op": "read"})),
        event(6, "c", "file.open", 14, json!({"verdict": "denied"})),
        event(7, "c", "file.delete", 14, json!({})),
        event(8, "c", "file.open", 14, json!({"file": null})),
    ] {
        written.note(&nothing, 9, || None);
    }
    assert!(written.by(key(14), 9).is_none());
}

#[test]
fn what_the_kernel_does_not_remember_is_forgotten() {
    let mut written = Written::default();
    open(&mut written, 1, "coding-a", 7, 12);
    open(&mut written, 2, "coding-a", 7, 13);
    written.confirm(|write| (write.inode == 12).then_some(99));
    assert_eq!(written.by(key(12), 7).unwrap().generation, 99);
    assert!(written.by(key(13), 7).is_none());
    let renamed =
        json!({"file": {"path": "/srv/job.sh", "path_to": "/srv/new.sh", "device": "8:1", "inode": 12}});
    written.note(&event(3, "coding-a", "file.rename", 12, renamed), 7, || None);
    assert_eq!(written.by(key(12), 7).unwrap().path.0, "/srv/new.sh");
}

#[test]
fn what_is_kept_is_read_again() {
    let state = tempfile::tempdir().unwrap();
    let mut written = Written::default();
    let mut kept = Kept::new(state.path());
    for inode in 1..=3 {
        open(&mut written, inode, "coding-a", 7, inode);
    }
    written.confirm(|_| Some(5));
    kept.keep(&mut written).unwrap();
    open(&mut written, 9, "coding-b", 8, 2);
    written.confirm(|_| Some(6));
    kept.keep(&mut written).unwrap();
    let path = state.path().join("written.jsonl");
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4, "changes are appended");
    // A crash cuts the last line.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{{\"written\":{{\"dev")).unwrap();
    let (all, damaged) = read(state.path()).unwrap();
    let found: Vec<_> = all.iter().map(|write| (write.inode, &*write.session, write.generation)).collect();
    assert_eq!((found, damaged), (vec![(1, "coding-a", 5), (2, "coding-b", 6), (3, "coding-a", 5)], 1));
    // The next daemon writes all anew.
    let mut next = Written::default();
    all.into_iter().for_each(|write| next.restore(write));
    let mut kept = Kept::new(state.path());
    kept.keep(&mut next).unwrap();
    open(&mut next, 10, "coding-c", 9, 4);
    next.confirm(|_| Some(7));
    kept.keep(&mut next).unwrap();
    assert_eq!(read(state.path()).unwrap().0.len(), 4);
    assert_eq!(read(state.path()).unwrap().1, 0);
    assert_eq!(read(tempfile::tempdir().unwrap().path()).unwrap(), (Vec::new(), 0));
}

#[test]
fn what_is_gone_gives_way_first_and_then_the_oldest_of_who_has_most() {
    let mut written = Written::default();
    let many = u64::from(WRITTEN);
    open(&mut written, 0, "coding-quiet", 1, 1);
    for inode in 2..many {
        open(&mut written, inode, "coding-busy", 2, inode);
        if inode % 1_000 == 0 {
            written.confirm(|_| Some(5));
        }
    }
    written.confirm(|_| Some(5));
    let (forgotten, told) = written.make_room(|write| write.inode % 2 == 0);
    assert!(told.is_empty() && forgotten.len() as u64 == many / 2 - 1, "{}", forgotten.len());
    assert!(written.make_room(|_| true).0.is_empty(), "not again before there are more");
    for inode in many..many + many / 2 {
        open(&mut written, inode, "coding-busy", 2, inode);
        if inode % 1_000 == 0 {
            written.confirm(|_| Some(5));
        }
    }
    written.confirm(|_| Some(5));
    let (forgotten, told) = written.make_room(|_| false);
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [(2, forgotten.len() as u64)]);
    assert!(forgotten.contains(&key(3)), "the oldest");
    assert!(written.by(key(1), 1).is_some(), "whoever wrote little keeps it");
}

#[test]
fn chains_of_causes_stay_short() {
    let mut cause: Option<Arc<Cause>> = None;
    let mut written = Written::default();
    for turn in 0..20_u64 {
        let made = event(turn, &format!("coding-{turn}"), "file.open", turn, json!({}));
        written.note(&made, turn, || cause.clone());
        let write = written.by(key(turn), turn).unwrap();
        cause = Some(Arc::new(write.cause(write.path.clone(), None, UsedBy::Exec)));
    }
    let chain: Vec<_> = std::iter::successors(cause.as_deref(), |one| one.cause.as_deref()).collect();
    assert!(chain.len() <= 6, "{}", chain.len());
    assert_eq!(&*chain.first().unwrap().session, "coding-19");
    assert_eq!(&*chain.last().unwrap().session, "coding-0", "where it began is not forgotten");
}

#[test]
fn who_asked_is_known_by_its_last_connection() {
    let mut asked = Asked::default();
    let mut connect = |seq: u64, pid: u32, family: &str, verdict: &str| {
        let rest = json!({
            "verdict": verdict, "op": "connect",
            "process": {
                "pid": pid, "start_time": 1, "ppid": 1, "command_args": ["tmux"],
            },
            "network": {"transport": "unix", "type": family, "peer.address": "/run/tmux"},
        });
        asked.note(&event(seq, "coding-a", "net.connect", 12, rest), 7, || None);
        asked.by(7, pid).map(|known| known.seq)
    };
    assert_eq!(connect(1, 40, "unix", "allowed"), Some(1));
    assert_eq!(connect(2, 40, "unix", "allowed"), Some(2));
    assert_eq!(connect(3, 40, "unix", "denied"), Some(2), "it did not get there");
    assert_eq!(connect(4, 40, "ipv4", "allowed"), Some(2), "nobody is asked by it");
    for pid in 100..4_195 {
        assert_eq!(connect(5, pid, "unix", "allowed"), Some(5));
    }
    assert!(connect(6, 40, "ipv4", "allowed").is_some(), "there is room for so many");
    assert_eq!(connect(7, 5_000, "unix", "allowed"), Some(7));
    assert!(connect(8, 40, "ipv4", "allowed").is_none(), "the oldest went");
    assert!(asked.by(8, 5_000).is_none(), "another session's");
}

#[test]
fn a_line_is_whose_it_was_when_it_came() {
    const TABLE: &str = "/etc/cron.d/x";
    let mut written = Written::default();
    open(&mut written, 1, "coding-a", 7, 12);
    open(&mut written, 2, "coding-b", 8, 13);
    let [a, b] = [12, 13].map(|inode| written.of(key(inode)));
    let keys = |keys: &[u64]| keys.iter().copied().collect();
    let mut jobs = Jobs::default();
    assert!(jobs.take(TABLE, Some((Table::SystemCrontab, keys(&[1]), None))));
    assert!(jobs.take(TABLE, Some((Table::SystemCrontab, keys(&[1, 2]), a))));
    assert!(jobs.take(TABLE, Some((Table::SystemCrontab, keys(&[1, 2, 3]), b))));
    assert!(!jobs.take(TABLE, Some((Table::SystemCrontab, keys(&[1, 2, 3]), b))), "nothing new");
    assert_eq!(jobs.numbers("b"), [(2, 7), (3, 8)].into());
    assert_eq!(jobs.numbers("later"), [(2, past("coding-a")), (3, past("coding-b"))].into());
    assert!(jobs.by(1).is_none() && &*jobs.by(2).unwrap().session == "coding-a");
    // A person's own table has none of it.
    assert!(jobs.take(TABLE, Some((Table::SystemCrontab, keys(&[1]), None))));
    assert!(jobs.numbers("b").is_empty());
    // A unit is whose its file is.
    assert!(jobs.take("/u", Some((Table::Unit, keys(&[4]), a))));
    assert!(jobs.take("/u", Some((Table::Unit, keys(&[4]), b))));
    assert_eq!(jobs.numbers("b"), [(4, 8)].into());
    let kept = serde_json::to_string(&jobs).unwrap();
    assert_eq!(serde_json::from_str::<Jobs>(&kept).unwrap().numbers("b"), [(4, 8)].into());
    assert!(jobs.take("/u", Some((Table::Unit, keys(&[4]), None))) && jobs.numbers("b").is_empty());
    assert!(jobs.take(TABLE, None) && jobs.paths().next().is_none());
}

#[test]
fn files_of_jobs_are_looked_at_when_sessions_change_them() {
    let mut jobs = Jobs::default();
    let at = |path: &str| json!({"file": {"path": path, "device": "8:1", "inode": 14}});
    jobs.note(&event(1, "a", "file.open", 14, at("/etc/cron.d/x")));
    jobs.note(&event(2, "a", "file.open", 14, at("/srv/x")));
    let mut renamed = at("/etc/cron.d/tmp");
    renamed["file"]["path_to"] = "/etc/crontab".into();
    jobs.note(&event(3, "a", "file.rename", 14, renamed));
    let mut elsewhere = at("/etc/cron.d/y");
    elsewhere["file"]["root"] = "mnt:1".into();
    jobs.note(&event(4, "a", "file.open", 14, elsewhere));
    let all = ["/etc/cron.d/tmp", "/etc/cron.d/x", "/etc/crontab"];
    assert!(jobs.take_fresh().iter().eq(all) && jobs.take_fresh().is_empty());
    let times = std::iter::repeat_with(|| jobs.due()).take_while(|due| !due.is_empty());
    assert!(times.inspect(|due| assert_eq!(due, &all)).count() > 2);
}
