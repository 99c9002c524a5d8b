//! Bodies that are packed by gzip, which each receiver of OTLP has to take.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

use super::Malformed;

/// Why a body cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// It is larger than may be.
    TooLarge,
    /// It is no gzip, or ends before its time.
    Broken(Malformed),
}

/// Unpacks a body. Of one that would be larger than `max` bytes no more than that is unpacked.
///
/// # Errors
/// It would be larger, or is broken.
pub fn unpack(body: &[u8], max: usize) -> Result<Vec<u8>, Packed> {
    let mut unpacked = Vec::new();
    let broken = |_| Packed::Broken(Malformed("its gzip is broken"));
    MultiGzDecoder::new(body).take(max as u64 + 1).read_to_end(&mut unpacked).map_err(broken)?;
    if unpacked.len() > max { Err(Packed::TooLarge) } else { Ok(unpacked) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_within_bounds() {
        assert_eq!(unpack(&pack(b"spans"), 5).unwrap(), b"spans");
        assert_eq!(unpack(&pack(b"spans"), 4), Err(Packed::TooLarge));
        // 100 MB of zeros in 100 KB.
        let bomb = pack(&vec![0; 100 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(unpack(&bomb, 2 << 20), Err(Packed::TooLarge));
        let two = [pack(b"a"), pack(b"b")].concat();
        assert_eq!(unpack(&two, 9).unwrap(), b"ab", "a file of gzip may have several parts");
    }

    #[test]
    fn what_is_broken_is_no_panic() {
        let whole = pack(b"spans of something");
        for cut in 0..whole.len() {
            assert!(unpack(&whole[..cut], 99).is_err(), "{cut}");
        }
        for place in 0..whole.len() {
            let mut bad = whole.clone();
            bad[place] ^= 0x55;
            // Some bytes of its head say nothing of what is in it.
            let _ = unpack(&bad, 99);
        }
        assert!(matches!(unpack(b"{}", 99), Err(Packed::Broken(_))));
    }
}
