//! Full disks, failing writes, torn and damaged segments: whole events stay, and what is lost is counted.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::losses::{Losses, Trouble};
use super::storage::{Disk, Storage as _};
use super::testing::{Faulty, SECOND, WIDE, event, read_all, segments, seqs};
use super::*;
use crate::event::{Event, Kind, Op};

fn open_faulty(state: &Path, limits: Limits) -> (Log, Faulty) {
    let faulty = Faulty::default();
    let log = Log::open_on(Box::new(faulty.clone()), state, limits).unwrap().0;
    (log, faulty)
}

/// Event count by session, losses counted in, and that `seq` has no gaps.
fn totals(events: &[Event]) -> BTreeMap<String, u64> {
    assert_eq!(seqs(events), (1..=events.len() as u64).collect::<Vec<_>>());
    let mut totals = BTreeMap::new();
    for event in events {
        let count = event.loss.as_ref().map_or(event.count, |loss| loss.count);
        *totals.entry(event.session.to_string()).or_default() += count;
    }
    totals
}

#[test]
fn a_full_disk_loses_only_what_does_not_fit_in_memory_and_says_how_much_of_which() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, disk) = open_faulty(state.path(), WIDE);
    disk.plan().room = Some(10_000);
    let mut long = event(0, "coding-1");
    long.count = 3;
    let filler = "x".repeat(4000);
    if let Some(process) = &mut long.process {
        process.cwd.0 = filler;
    }
    for _ in 0..2000 {
        log.append(&mut long);
        log.append(&mut event(SECOND, "coding-2"));
    }
    let error = log.flush().err().unwrap();
    assert!(error.to_string().contains("cannot be written"), "{error}");
    let lost = log.lost();
    assert!(lost > 0);
    // Nothing of it can be seen as a half line.
    let before = read_all(state.path(), Start::Oldest);
    assert!((1..=4).contains(&before.len()), "{}", before.len());

    disk.plan().room = None;
    log.flush().unwrap();
    assert_eq!(log.lost(), 0);
    log.append(&mut event(2 * SECOND, "coding-3"));
    log.flush().unwrap();
    let events = read_all(state.path(), Start::Oldest);
    let expected = [("coding-1", 6000), ("coding-2", 2000), ("coding-3", 1)];
    assert_eq!(totals(&events), expected.map(|(session, count)| (session.to_owned(), count)).into());
    let losses: Vec<_> = events.iter().filter(|event| event.kind == Kind::Loss).collect();
    assert_eq!(losses.len(), 2);
    for loss in &losses {
        let counted = loss.loss.as_ref().unwrap();
        assert_eq!((counted.kind.as_str(), counted.reason.as_str()), ("file.open", "disk_full"));
        assert_eq!((loss.op, &*loss.agent, &*loss.host), (Some(Op::Read), "coding", "build-7"));
        let reason = loss.reason.as_deref().unwrap();
        assert!(reason.starts_with("the log could not be written from 20"), "{reason}");
    }
    assert_eq!(losses.iter().map(|event| event.loss.as_ref().unwrap().count).sum::<u64>(), lost);
}

#[test]
fn memory_stays_bounded_while_the_disk_is_full() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, disk) = open_faulty(state.path(), WIDE);
    disk.plan().room = Some(0);
    for number in 0..20_000_u64 {
        log.append(&mut event(0, &format!("coding-{number}")));
    }
    let appended_in_memory = log.next_seq() - 1;
    assert_eq!(appended_in_memory + log.lost(), 20_000);
    disk.plan().room = None;
    log.flush().unwrap();
    let events = read_all(state.path(), Start::Oldest);
    let losses: Vec<_> = events.iter().filter(|event| event.kind == Kind::Loss).collect();
    assert_eq!(losses.len(), 4097, "4096 sessions by name and one sum of all others");
    assert_eq!(losses.iter().filter(|event| event.session.is_empty()).count(), 1);
    assert_eq!(totals(&events).values().sum::<u64>(), 20_000);
}

#[test]
fn another_error_than_a_full_disk_is_told_as_what_it_is_and_a_loss_keeps_its_own_reason() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, disk) = open_faulty(state.path(), WIDE);
    *disk.plan() =
        testing::Plan { room: Some(0), error: Some(io::ErrorKind::ReadOnlyFilesystem), ..Default::default() };
    let mut huge = event(0, "coding-1");
    if let Some(process) = &mut huge.process {
        process.cwd.0 = "x".repeat(5_000_000);
    }
    log.append(&mut huge);
    log.append(&mut event(0, "coding-1"));
    let mut loss = event(0, "coding-1");
    loss.kind = Kind::Loss;
    loss.loss = Some(crate::event::Loss { kind: "net.send".into(), reason: "ring_full".into(), count: 70 });
    log.append(&mut loss);
    disk.plan().room = None;
    log.flush().unwrap();
    let events = read_all(state.path(), Start::Oldest);
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| event.loss.as_ref())
        .map(|loss| (loss.kind.as_str(), loss.reason.as_str(), loss.count))
        .collect();
    assert_eq!(told, [("file.open", "log_unwritable", 1), ("net.send", "ring_full", 70)]);
}

#[test]
fn where_even_cutting_off_fails_nothing_is_written_behind_the_torn_line() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, disk) = open_faulty(state.path(), WIDE);
    log.append(&mut event(0, "coding-1"));
    disk.plan().room = Some(100);
    disk.plan().truncate_fails = true;
    log.flush().unwrap_err();
    disk.plan().room = None;
    log.append(&mut event(1, "coding-1"));
    log.flush().unwrap_err();
    assert_eq!(std::fs::metadata(&segments(state.path())[0]).unwrap().len(), 100);
    disk.plan().truncate_fails = false;
    log.flush().unwrap();
    assert_eq!(seqs(&read_all(state.path(), Start::Oldest)), [1, 2]);
}

#[test]
fn where_no_new_segment_can_be_made_the_old_one_grows() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, disk) = open_faulty(state.path(), Limits { segment_bytes: 1, ..WIDE });
    disk.plan().create_fails = true;
    log.append(&mut event(0, "coding-1"));
    log.flush().unwrap_err();
    disk.plan().create_fails = false;
    log.flush().unwrap();
    disk.plan().create_fails = true;
    log.append(&mut event(1, "coding-1"));
    log.flush().unwrap();
    assert_eq!(segments(state.path()).len(), 1);
    assert_eq!(seqs(&read_all(state.path(), Start::Oldest)), [1, 2]);
}

#[test]
fn the_kernels_own_error_of_a_full_device_is_a_full_disk() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Disk.write(&full, b"{}\n").unwrap_err();
    let mut losses = Losses::default();
    losses.add(&event(0, "coding-1"), &Trouble::new(&error, "now"));
    let loss = losses.take().next().unwrap();
    assert_eq!(loss.loss.unwrap().reason, "disk_full");
    assert_eq!(
        loss.reason.unwrap(),
        "the log could not be written from now on: No space left on device (os error 28)"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever fails when: each event is in the log or in a loss, and `seq` has no gaps.
    #[test]
    fn every_event_is_written_or_counted(
        steps in proptest::collection::vec((0..4_u8, 0..3_usize, 0..20_usize, any::<[bool; 3]>()), 1..12),
        segment_bytes in 1..20_000_u64,
    ) {
        let state = tempfile::tempdir().unwrap();
        let (mut log, disk) = open_faulty(state.path(), Limits { segment_bytes, ..WIDE });
        let mut appended = BTreeMap::<String, u64>::new();
        for (session, size, count, [create_fails, truncate_fails, full]) in steps {
            *disk.plan() = testing::Plan {
                room: full.then_some(count * 333),
                create_fails,
                truncate_fails,
                ..Default::default()
            };
            for _ in 0..count {
                let mut event = event(0, &format!("coding-{session}"));
                event.reason = Some("r".repeat([0, 3000, 600_000][size]));
                log.append(&mut event);
                *appended.entry(event.session.to_string()).or_default() += 1;
            }
            let _ = log.flush();
        }
        *disk.plan() = testing::Plan::default();
        log.flush().unwrap();
        prop_assert_eq!(totals(&read_all(state.path(), Start::Oldest)), appended);
    }
}

/// Five events in one segment, whose bytes are given back.
fn five(state: &Path) -> Vec<u8> {
    let (mut log, _) = Log::open(state, WIDE).unwrap();
    for offset in 0..5 {
        log.append(&mut event(offset, "coding-1"));
    }
    log.flush().unwrap();
    drop(log);
    std::fs::read(&segments(state)[0]).unwrap()
}

/// Opens a log whose segment has these bytes, appends one event, and gives back what is in it then.
fn reopen(state: &Path, bytes: &[u8]) -> (Recovery, Vec<Event>) {
    std::fs::write(&segments(state)[0], bytes).unwrap();
    let (mut log, recovery) = Log::open(state, WIDE).unwrap();
    log.append(&mut event(9, "coding-2"));
    log.flush().unwrap();
    let mut reader = Reader::open(state, Start::Oldest).unwrap();
    let mut events = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Line(line) => events.push(line.event().unwrap()),
            Item::Missing { .. } => {}
            Item::Damaged { .. } => panic!("{item:?} after recovery"),
        }
    }
    (recovery, events)
}

#[test]
fn a_last_line_torn_at_any_byte_costs_that_line_only() {
    let state = tempfile::tempdir().unwrap();
    let whole = five(state.path());
    let last = memchr::memrchr(b'\n', &whole[..whole.len() - 1]).unwrap() + 1;
    for cut in last..=whole.len() {
        let (recovery, events) = reopen(state.path(), &whole[..cut]);
        let complete = cut >= whole.len() - 1;
        let kept = if complete { 5 } else { 4 };
        let torn = cut > last && !complete;
        // A torn line's number is used again: nobody has seen it.
        let notes = u64::from(torn);
        assert_eq!(seqs(&events), (1..=kept + 1 + notes).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(recovery.next_seq, kept + 1, "cut at {cut}");
        assert_eq!(recovery.damaged.is_some(), torn, "cut at {cut}");
        if let Some(damaged) = recovery.damaged {
            assert_eq!((damaged.lines, damaged.offset), (1, last as u64));
            assert_eq!(std::fs::read(&damaged.side_file).unwrap(), &whole[last..cut]);
            let said = events.last().unwrap();
            assert_eq!(
                (said.kind, said.reason.as_deref()),
                (Kind::LogRecovered, Some(&*damaged.to_string()))
            );
        }
    }
}

#[test]
fn garbage_in_the_middle_is_moved_aside_and_what_stands_around_it_stays() {
    let state = tempfile::tempdir().unwrap();
    let whole = five(state.path());
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    let garbage: [&[u8]; 4] = [&[0; 4096], b"\xff\xfe{}", b"{\"time\":\"x\"}", &whole[..100]];
    for bad in garbage {
        let bad = [bad, b"\n"].concat();
        let bytes = [lines[0], lines[1], &bad, lines[3], &bad, lines[4]].concat();
        let (recovery, events) = reopen(state.path(), &bytes);
        assert_eq!(seqs(&events), [1, 2, 4, 5, 6, 7]);
        let damaged = recovery.damaged.unwrap();
        assert_eq!((damaged.lines, damaged.bytes), (2, 2 * bad.len() as u64));
        assert_eq!(damaged.offset, (lines[0].len() + lines[1].len()) as u64);
        assert_eq!(std::fs::read(&damaged.side_file).unwrap(), [&*bad, &*bad].concat());
    }
    let side_files = std::fs::read_dir(folder(state.path())).unwrap();
    let damaged = side_files.filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "damaged");
    assert_eq!(damaged.count(), 4, "no side file is ever overwritten");
}

#[test]
fn a_segment_of_which_nothing_is_left_keeps_its_number() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1, ..WIDE };
    let (mut log, _) = Log::open(state.path(), limits).unwrap();
    for offset in 0..2 {
        log.append(&mut event(offset, "coding-1"));
        log.flush().unwrap();
    }
    drop(log);
    std::fs::write(&segments(state.path())[1], [0; 10_000]).unwrap();
    let (mut log, recovery) = Log::open(state.path(), limits).unwrap();
    assert_eq!((recovery.next_seq, recovery.damaged.unwrap().bytes), (2, 10_000));
    log.append(&mut event(3, "coding-1"));
    log.flush().unwrap();
    assert_eq!(seqs(&read_all(state.path(), Start::Oldest)), [1, 2, 3]);
}

#[test]
fn damage_in_an_older_segment_is_reported_by_the_reader_and_the_rest_is_read() {
    let state = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(state.path(), Limits { segment_bytes: 1, ..WIDE }).unwrap();
    for offset in 0..3 {
        log.append(&mut event(offset, "coding-1"));
        log.flush().unwrap();
    }
    let second = &segments(state.path())[1];
    let length = std::fs::metadata(second).unwrap().len();
    OpenOptions::new().write(true).open(second).unwrap().set_len(length - 7).unwrap();
    let file = OpenOptions::new().write(true).open(&segments(state.path())[0]).unwrap();
    file.write_all_at(b"\0\0", 80).unwrap();
    let mut reader = Reader::open(state.path(), Start::Oldest).unwrap();
    let first = segments(state.path())[0].clone();
    let whole = std::fs::metadata(&first).unwrap().len();
    assert_eq!(reader.next_item().unwrap(), Some(Item::Damaged { segment: first, offset: 0, bytes: whole }));
    let torn = Item::Damaged { segment: second.clone(), offset: 0, bytes: length - 7 };
    assert_eq!(reader.next_item().unwrap(), Some(torn));
    let Some(Item::Line(line)) = reader.next_item().unwrap() else { panic!("the third event is whole") };
    assert_eq!(line.head.seq, 3);
    assert_eq!(reader.next_item().unwrap(), None);
}
