//! Time in which the guest's one CPU worked. Under `-icount shift=0` a nanosecond is an instruction; time in
//! which nothing is to be done is jumped over by QEMU, and subtracted here.

use std::fs;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The kernel's own account of the time in which a CPU had nothing to do.
const TIMERS: &str = "/proc/timer_list";

/// Nanoseconds since boot in which the CPU worked.
///
/// # Errors
/// If the kernel does not tell the idle time.
pub fn busy_ns() -> Result<u64> {
    let text = fs::read_to_string(TIMERS).with_context(|| format!("cannot read {TIMERS}"))?;
    let idle = idle_ns(&text).with_context(|| format!("{TIMERS} tells no idle time"))?;
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).context("the clock is before its own beginning")?;
    let now = seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default();
    Ok(now.saturating_sub(idle))
}

fn idle_ns(text: &str) -> Option<u64> {
    let sum = |field: &str| {
        let numbers = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            if name.trim() != field {
                return None;
            }
            value.trim().trim_end_matches("nsecs").trim().parse::<u64>().ok()
        });
        numbers.reduce(|a, b| a + b)
    };
    Some(sum(".idle_sleeptime")? + sum(".iowait_sleeptime")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_times_are_summed() {
        let text = "  .idle_exittime  : 5 nsecs\n  .idle_sleeptime : 1200 nsecs\n  .iowait_sleeptime: 30 nsecs\n\
                    jiffies: 7\n  .idle_sleeptime : 8 nsecs\n  .iowait_sleeptime: 0 nsecs\n";
        assert_eq!(idle_ns(text), Some(1238));
        assert_eq!(idle_ns("jiffies: 7\n"), None);
    }
}
