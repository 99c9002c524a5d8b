//! Reading from a place, while somebody writes, and following.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::testing::{SECOND, T0, WIDE, event, read_all, segments, seqs};
use super::*;

/// Far beyond what any wait here takes; only a failure waits so long.
const DEADLINE: Duration = Duration::from_secs(60);

fn log_of(state: &Path, seconds: std::ops::Range<u64>, segment_bytes: u64) -> Log {
    let (mut log, _) = Log::open(state, Limits { segment_bytes, ..WIDE }).unwrap();
    for second in seconds {
        log.append(&mut event(second * SECOND, "coding-1"));
        log.flush().unwrap();
    }
    log
}

/// The numbers that a follower sees until `last`.
fn follow_until(follower: &mut Follower, last: u64) -> Vec<u64> {
    let begun = Instant::now();
    let mut seen = Vec::new();
    loop {
        while let Some(item) = follower.next_item().unwrap() {
            let Item::Line(line) = item else { panic!("{item:?} after {:?}", seen.last()) };
            line.event().unwrap();
            seen.push(line.head.seq);
        }
        if seen.last() >= Some(&last) {
            return seen;
        }
        assert!(begun.elapsed() < DEADLINE, "only {:?} of {last} events came", seen.last());
        follower.wait(None, Some(DEADLINE)).unwrap();
    }
}

#[test]
fn reading_begins_at_a_number_or_a_time() {
    for segment_bytes in [1, 2000, u64::MAX] {
        let state = tempfile::tempdir().unwrap();
        let _log = log_of(state.path(), 0..300, segment_bytes);
        let from = |start| seqs(&read_all(state.path(), start));
        for first in [1, 2, 150, 300] {
            let expected: Vec<u64> = (first..=300).collect();
            assert_eq!(from(Start::Seq(first)), expected);
            assert_eq!(from(Start::Time(T0 + (first - 1) * SECOND)), expected);
            assert_eq!(from(Start::Time(T0 + (first - 1) * SECOND - 1)), expected);
        }
        assert_eq!(from(Start::Seq(0)).len(), 300);
        assert_eq!(from(Start::Time(0)).len(), 300);
        assert!(from(Start::Seq(301)).is_empty());
        assert!(from(Start::Time(T0 + 300 * SECOND)).is_empty());
    }
}

#[test]
fn events_written_late_are_found_by_their_time() {
    let state = tempfile::tempdir().unwrap();
    let mut log = log_of(state.path(), 0..10, 1);
    for second in [40, 15, 41] {
        log.append(&mut event(second * SECOND, "coding-1"));
        log.flush().unwrap();
    }
    assert_eq!(seqs(&read_all(state.path(), Start::Time(T0 + 15 * SECOND))), [11, 12, 13]);
}

#[test]
fn a_follower_sees_each_event_once_while_the_writer_rotates() {
    const EVENTS: u64 = 3000;
    let state = tempfile::tempdir().unwrap();
    let mut log = log_of(state.path(), 0..1, 5000);
    let mut follower = Follower::new(Reader::open(state.path(), Start::Oldest).unwrap()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..EVENTS {
                log.append(&mut event(number, "coding-1"));
                if number % 7 == 0 {
                    log.flush().unwrap();
                }
            }
            log.flush().unwrap();
        });
        assert_eq!(follow_until(&mut follower, EVENTS), (1..=EVENTS).collect::<Vec<_>>());
    });
    assert!(segments(state.path()).len() > 100);
}

#[test]
fn a_follower_reads_a_removed_segment_to_its_end_and_reports_those_it_never_had() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1, total_bytes: 1, ..WIDE };
    let (mut log, _) = Log::open(state.path(), limits).unwrap();
    log.append(&mut event(0, "coding-1"));
    log.flush().unwrap();
    let mut follower = Follower::new(Reader::open(state.path(), Start::Oldest).unwrap()).unwrap();
    for number in 1..4 {
        log.append(&mut event(number, "coding-1"));
        log.flush().unwrap();
    }
    let Some(Item::Line(first)) = follower.next_item().unwrap() else { panic!("the first event was there") };
    assert_eq!(first.head.seq, 1);
    let Some(Item::Missing { first, last }) = follower.next_item().unwrap() else {
        panic!("segments are gone")
    };
    assert_eq!(first, 2);
    let Some(Item::Line(next)) = follower.next_item().unwrap() else { panic!("the last segment stays") };
    assert_eq!(next.head.seq, last + 1);
}

#[test]
fn a_follower_goes_on_after_a_restart_that_mended_the_segment() {
    let state = tempfile::tempdir().unwrap();
    drop(log_of(state.path(), 0..3, u64::MAX));
    let path = segments(state.path())[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let mut follower = Follower::new(Reader::open(state.path(), Start::Oldest).unwrap()).unwrap();
    assert_eq!(follow_until(&mut follower, 3), [1, 2, 3]);
    // Garbage before a whole event, so that mending puts another file in the segment's place.
    let fourth =
        String::from_utf8(whole.clone()).unwrap().lines().nth(2).unwrap().replace("\"seq\":3", "\"seq\":4");
    let crashed = path.with_extension("new");
    std::fs::write(&crashed, [&*whole, b"\0\0\n", fourth.as_bytes(), b"\n"].concat()).unwrap();
    std::fs::rename(&crashed, &path).unwrap();
    let _log = log_of(state.path(), 4..6, 1);
    assert_eq!(follow_until(&mut follower, 7), [4, 5, 6, 7]);
}

#[test]
fn a_follower_waits_for_the_first_segment_and_says_when_the_folder_goes() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(state.path(), WIDE).unwrap();
    let mut follower = Follower::new(Reader::open(state.path(), Start::Oldest).unwrap()).unwrap();
    assert!(follower.next_item().unwrap().is_none());
    assert_eq!(follower.wait(None, Some(Duration::ZERO)).unwrap(), Wake::TimedOut);
    log.append(&mut event(0, "coding-1"));
    log.flush().unwrap();
    assert_eq!(follow_until(&mut follower, 1), [1]);
    drop(log);
    std::fs::remove_dir_all(folder(state.path())).unwrap();
    assert_eq!(follower.wait(None, Some(DEADLINE)).unwrap(), Wake::Changed);
    let error = follower.next_item().err().unwrap();
    assert!(matches!(error, LogError::Missing { .. }), "{error:?}");
}

#[test]
fn a_follower_notices_that_nobody_reads_its_output() {
    let state = tempfile::tempdir().unwrap();
    let _log = log_of(state.path(), 0..1, 1);
    let mut follower = Follower::new(Reader::open(state.path(), Start::Oldest).unwrap()).unwrap();
    let (read, write) = io::pipe().unwrap();
    assert_eq!(follower.wait(Some(write.as_fd()), Some(Duration::ZERO)).unwrap(), Wake::TimedOut);
    drop(read);
    assert_eq!(follower.wait(Some(write.as_fd()), Some(DEADLINE)).unwrap(), Wake::OutputClosed);
}
