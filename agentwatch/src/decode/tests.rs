use agentwatch_common::{
    ABI,
    kind::RecordKind,
    record::{PathDesc, path_flag},
};
use proptest::prelude::*;

use super::*;

/// A record with this kind and these bytes behind the header.
fn record(kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((56 + rest.len() as u32).to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(ABI.to_le_bytes());
    for word in [1_u64, 7, 3] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [10_u32, 11, 1, 1000] {
        bytes.extend(word.to_le_bytes());
    }
    // Not judged.
    bytes.extend([0; 8]);
    bytes.extend(rest);
    bytes
}

fn file_rest(path: &[u8], claimed: u32) -> Vec<u8> {
    let mut rest = vec![0; 32];
    for len in [claimed, 0, 0, 0] {
        rest.extend(len.to_le_bytes());
        rest.extend([0; 12]);
    }
    rest.extend(path);
    rest
}

#[test]
fn reads_a_file_record() {
    let bytes = record(RecordKind::FileOpen.raw(), &file_rest(b"f\0dir\0", 6));
    let record = decode(&bytes).unwrap();
    assert_eq!((record.header.session, record.header.pid, record.header.uid), (7, 10, 1000));
    let Body::File(act) = record.body else { panic!("not a file: {record:?}") };
    assert_eq!(act.path.path(), b"/dir/f");
}

#[test]
fn refuses_what_does_not_hold() {
    let kind = RecordKind::FileOpen.raw();
    assert_eq!(
        decode(&record(kind, &file_rest(b"f\0", 3))),
        Err(DecodeError::Short { have: 2, need: 3 }),
        "a path that reaches past the record"
    );
    assert_eq!(decode(&record(999, &[])), Err(DecodeError::Kind(999)));
    let mut other = record(kind, &file_rest(b"", 0));
    other[6] ^= 0x55;
    assert!(matches!(decode(&other), Err(DecodeError::Abi(_))));
    let mut long = record(kind, &file_rest(b"", 0));
    long.push(0);
    assert!(matches!(decode(&long), Err(DecodeError::Length { .. })));
    let mut nobody = record(kind, &file_rest(b"", 0));
    nobody[16..24].fill(0);
    assert_eq!(decode(&nobody), Err(DecodeError::NoSession));
}

#[test]
fn paths_keep_every_byte_and_say_when_their_front_is_missing() {
    let text =
        |bytes: &'static [u8], flags| PathText { desc: PathDesc { flags, ..PathDesc::default() }, bytes };
    assert_eq!(text(b"", 0).path(), b"/");
    assert_eq!(text(b"b\xff\n\0a\0", 0).path(), b"/a/b\xff\n");
    assert_eq!(text(b"b\0a\0", path_flag::TRUNCATED).path(), b"a/b");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_never_grow(
        kind in 0_u16..64,
        rest in proptest::collection::vec(any::<u8>(), 0..600),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = record(kind, &rest);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(Record { body: Body::File(act), .. }) = decode(&bytes) {
            prop_assert!(act.path.path().len() <= bytes.len() + 1);
        }
    }

    #[test]
    fn every_cut_of_a_record_is_refused(cut in 0_usize..150) {
        let whole = record(RecordKind::FileOpen.raw(), &file_rest(b"f\0dir\0", 6));
        if cut < whole.len() {
            prop_assert!(decode(&whole[..cut]).is_err());
        }
    }
}
