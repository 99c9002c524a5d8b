//! Times of events: RFC 3339 in UTC with nanoseconds, always 30 bytes, so that they sort as text.

use jiff::Timestamp;

/// Bytes of a formatted time.
pub const TIME_BYTES: usize = "1970-01-01T00:00:00.000000000Z".len();

/// Writes a time as events carry it. `unix_ns` are nanoseconds since 1970 in UTC; they reach to 2554.
#[must_use]
pub fn format_time(unix_ns: u64) -> String {
    // By hand, as every event pays for it: a general formatter costs ten times as much.
    let seconds = unix_ns / 1_000_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let nanoseconds = unix_ns % 1_000_000_000;
    let mut text = *b"1970-01-01T00:00:00.000000000Z";
    let [y3, y2, y1, y0, _, o1, o0, _, d1, d0, _, h1, h0, _, m1, m0, _, s1, s0, _, fraction @ .., _] =
        &mut text;
    let [n8, n7, n6, n5, n4, n3, n2, n1, n0] = fraction;
    pair(y3, y2, year / 100);
    pair(y1, y0, year);
    pair(o1, o0, month);
    pair(d1, d0, day);
    pair(h1, h0, of_day / 3_600);
    pair(m1, m0, of_day / 60 % 60);
    pair(s1, s0, of_day % 60);
    pair(n8, n7, nanoseconds / 10_000_000);
    pair(n6, n5, nanoseconds / 100_000);
    pair(n4, n3, nanoseconds / 1_000);
    pair(n2, n1, nanoseconds / 10);
    pair(n1, n0, nanoseconds);
    // All of it is ASCII.
    String::from_utf8(text.into()).unwrap_or_default()
}

/// Writes the last two decimal digits of a value.
fn pair(tens: &mut u8, ones: &mut u8, value: u64) {
    let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
    *tens = digit(value / 10);
    *ones = digit(value);
}

/// As [`format_time`], without a fraction where there is none.
#[must_use]
pub fn short_time(unix_ns: u64) -> String {
    format_time(unix_ns).replace(".000000000Z", "Z")
}

/// The clock's time, in nanoseconds since 1970 in UTC.
#[must_use]
pub fn now_ns() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// Reads an RFC 3339 time, with any offset; `None` where it is none, or before 1970 or after 2554.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant's `civil_from_days`).
const fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that a leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_have_their_known_form() {
        for (unix_ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_767_225_599_999_999_999, "2025-12-31T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(format_time(unix_ns), text);
            assert_eq!(parse_time(text), Some(unix_ns));
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "yesterday", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Some(0));
    }

    proptest! {
        #[test]
        fn a_time_comes_back_and_sorts_as_its_number(a: u64, b: u64) {
            let (first, second) = (format_time(a), format_time(b));
            prop_assert_eq!(first.len(), TIME_BYTES);
            prop_assert_eq!(parse_time(&first), Some(a));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }
    }
}
