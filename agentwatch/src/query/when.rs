//! Times as people write them.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Timestamp, Zoned};

/// Reads a time, relative ones from `now`: RFC 3339, `2026-11-21`, `2026-11-21 09:30` or `09:30` of the local
/// time, `10m` or `2h 30m` back from now, `now`, `today`, `yesterday`. Nanoseconds since 1970.
///
/// # Errors
/// A sentence that says what can be written.
pub fn parse_when(text: &str, now: &Zoned) -> Result<u64, String> {
    let time = match text.trim() {
        "now" => Some(now.timestamp()),
        "today" => start_of(now.date(), now),
        "yesterday" => now.date().yesterday().ok().and_then(|date| start_of(date, now)),
        text => absolute(text, now).or_else(|| back(text, now)),
    };
    time.and_then(|time| u64::try_from(time.as_nanosecond()).ok()).ok_or_else(|| {
        format!(
            "`{text}` is no time: write RFC 3339 (`{}`), a date (`{}`), a local time (`09:30`), how long ago \
             (`10m`, `2h 30m`, `3d`), `today` or `yesterday`",
            now.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ"),
            now.date()
        )
    })
}

fn absolute(text: &str, now: &Zoned) -> Option<Timestamp> {
    let local = |time: DateTime| time.to_zoned(now.time_zone().clone()).ok().map(|time| time.timestamp());
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return local(time);
    }
    // A bare number is no time: it may be meant as a duration.
    let time = text.contains(':').then(|| text.parse::<Time>().ok()).flatten()?;
    local(now.date().to_datetime(time))
}

fn start_of(date: Date, now: &Zoned) -> Option<Timestamp> {
    let start = date.to_zoned(now.time_zone().clone()).ok()?;
    start.start_of_day().ok().map(|start| start.timestamp())
}

fn back(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span: Span = text.parse().ok()?;
    now.checked_sub(span.abs()).ok().map(|then| then.timestamp())
}
