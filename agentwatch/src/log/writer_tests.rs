//! Numbers, rotation, limits, and who may write.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::testing::{Faulty, SECOND, T0, WIDE, event, read_all, segments, seqs};
use super::*;
use crate::event::Kind;

fn open(state: &Path, limits: Limits) -> Log {
    Log::open(state, limits).unwrap().0
}

fn append(log: &mut Log, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        log.append(&mut event(offset * SECOND, "coding-1"));
    }
}

#[test]
fn what_is_appended_comes_back_with_numbers_that_go_on_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let mut first = event(1, "coding-1");
    for round in 0..3 {
        let (mut log, recovery) = Log::open(state.path(), WIDE).unwrap();
        assert_eq!((recovery.next_seq, recovery.damaged), (round * 10 + 1, None));
        for _ in 0..10 {
            log.append(&mut first);
        }
        assert_eq!(log.next_seq(), round * 10 + 11);
        log.flush().unwrap();
        log.sync().unwrap();
    }
    let events = read_all(state.path(), Start::Oldest);
    assert_eq!(seqs(&events), (1..=30).collect::<Vec<_>>());
    assert_eq!(events.last(), Some(&first));
    assert_eq!(segments(state.path()).len(), 1);
}

#[test]
fn only_its_owner_can_read_the_log() {
    let above = tempfile::tempdir().unwrap();
    let state = above.path().join("new");
    let mut log = open(&state, WIDE);
    append(&mut log, 0..1);
    log.flush().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&folder(&state)), 0o700);
    assert_eq!(mode(&segments(&state)[0]), 0o600);
}

#[test]
fn segments_end_by_size_and_by_age_and_a_reader_sees_no_seam() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 2000, segment_age: Duration::from_secs(100), ..WIDE };
    let mut log = open(state.path(), limits);
    for offset in 0..20 {
        append(&mut log, offset..offset + 1);
        log.flush().unwrap();
    }
    let by_size = segments(state.path()).len();
    assert!((4..=10).contains(&by_size), "{by_size}");
    append(&mut log, 200..201);
    log.flush().unwrap();
    append(&mut log, 300..301);
    log.flush().unwrap();
    assert_eq!(segments(state.path()).len(), by_size + 1);
    append(&mut log, 301..302);
    log.flush().unwrap();
    assert_eq!(segments(state.path()).len(), by_size + 2);
    assert_eq!(seqs(&read_all(state.path(), Start::Oldest)), (1..=23).collect::<Vec<_>>());
    // Each is named after its first event.
    for (path, first) in segments(state.path()).iter().zip(Reader::segments(state.path()).unwrap()) {
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(Line::parse(text.lines().next().unwrap().as_bytes()).unwrap().head.seq, first);
    }
}

#[test]
fn the_oldest_segments_go_when_the_log_is_too_large_and_the_log_says_so() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 2000, total_bytes: 6000, ..WIDE };
    let mut log = open(state.path(), limits);
    for offset in 0..40 {
        append(&mut log, offset..offset + 1);
        log.flush().unwrap();
    }
    let total: u64 = segments(state.path()).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(total <= 6000 + 3000, "{total}");
    let events = read_all(state.path(), Start::Oldest);
    let first = events[0].seq;
    assert!(first > 20);
    let said = events.iter().rfind(|event| event.kind == Kind::LogRemoved).unwrap();
    let reason = said.reason.as_deref().unwrap();
    assert!(reason.contains(&format!("to {}, were removed", first - 1)), "{reason}");
    assert_eq!((said.verdict, &*said.session), (crate::event::Verdict::Allowed, ""));
}

#[test]
fn old_segments_go_with_time_also_when_nothing_happens_and_the_present_one_stays() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1, max_age: Duration::from_secs(100), ..WIDE };
    let mut log = open(state.path(), limits);
    for offset in 0..3 {
        append(&mut log, offset..offset + 1);
        log.flush().unwrap();
    }
    log.tend(T0 + 101 * SECOND);
    assert_eq!(segments(state.path()).len(), 3, "the last event of the oldest segment is from second 1");
    log.tend(T0 + 102 * SECOND);
    assert_eq!(segments(state.path()).len(), 2);
    log.tend(T0 + 1000 * SECOND);
    assert_eq!(segments(state.path()).len(), 1);
    append(&mut log, 3..4);
    log.flush().unwrap();
    let events = read_all(state.path(), Start::Oldest);
    let removed: Vec<_> = events.iter().filter(|event| event.kind == Kind::LogRemoved).collect();
    assert_eq!(removed.len(), 2);
}

#[test]
fn a_segment_that_cannot_be_removed_is_kept_and_tried_again() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1, max_age: Duration::from_secs(1), ..WIDE };
    let faulty = Faulty::default();
    let mut log = Log::open_on(Box::new(faulty.clone()), state.path(), limits).unwrap().0;
    faulty.plan().remove_fails = true;
    for offset in 0..3 {
        append(&mut log, offset..offset + 1);
        log.flush().unwrap();
    }
    log.tend(T0 + 100 * SECOND);
    assert_eq!(segments(state.path()).len(), 3);
    faulty.plan().remove_fails = false;
    log.tend(T0 + 100 * SECOND);
    assert_eq!(segments(state.path()).len(), 1);
}

#[test]
fn a_segment_that_somebody_moved_away_is_replaced_without_a_gap() {
    let state = tempfile::tempdir().unwrap();
    let mut log = open(state.path(), WIDE);
    append(&mut log, 0..3);
    log.flush().unwrap();
    let moved = state.path().join("moved");
    std::fs::rename(&segments(state.path())[0], &moved).unwrap();
    log.tend(T0);
    append(&mut log, 3..5);
    log.flush().unwrap();
    assert_eq!(seqs(&read_all(state.path(), Start::Oldest)), [4, 5, 6]);
    assert_eq!(std::fs::read_to_string(moved).unwrap().lines().count(), 3);
}

#[test]
fn a_second_writer_is_refused_with_the_first_ones_process_id() {
    let state = tempfile::tempdir().unwrap();
    let log = open(state.path(), WIDE);
    let error = Log::open(state.path(), WIDE).err().unwrap();
    let LogError::Locked { pid, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    drop(log);
    Log::open(state.path(), WIDE).unwrap();
}

#[test]
fn a_state_folder_that_cannot_be_used_is_named() {
    let above = tempfile::tempdir().unwrap();
    let missing = above.path().join("no/such");
    let error = Log::open(&missing, WIDE).err().unwrap();
    assert!(matches!(&error, LogError::State { path, .. } if *path == missing), "{error:?}");
    let file = above.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Log::open(&file, WIDE).err().unwrap();
    assert!(error.to_string().contains(&format!("`{}`", file.display())), "{error}");
    // On /proc nobody can make anything, not even root.
    let error = Log::open(Path::new("/proc/agentwatch"), WIDE).err().unwrap();
    assert!(matches!(error, LogError::State { .. }), "{error:?}");
}

#[test]
fn a_log_that_is_not_there_is_named() {
    let state = tempfile::tempdir().unwrap();
    let error = Reader::open(state.path(), Start::Oldest).err().unwrap();
    assert!(matches!(&error, LogError::Missing { path } if *path == folder(state.path())), "{error:?}");
}
