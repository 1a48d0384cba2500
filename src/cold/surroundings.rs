//! What a throttle is told of the machine: the local time of day, and how much its disks are waited
//! for.

use std::sync::Arc;
use std::time::SystemTime;

use firn_tiering::Clock;
use firn_tiering::throttle::Inputs;

/// Where the kernel says how long tasks wait for disks (`CONFIG_PSI`).
const PRESSURE: &str = "/proc/pressure/io";

/// The inputs of a throttle on this machine.
pub(super) fn inputs(clock: Arc<dyn Clock>) -> Inputs {
    let wall = Arc::clone(&clock);
    Inputs {
        second_of_day: Arc::new(move || second_of_day(wall.now())),
        pressure: Arc::new(|| parse_pressure(&std::fs::read_to_string(PRESSURE).ok()?)),
        clock,
    }
}

/// Seconds since midnight in the machine's time zone.
fn second_of_day(now: SystemTime) -> u32 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = libc::time_t::try_from(since).unwrap_or(0);
    // SAFETY: all zeros are a valid `tm`, which has no references.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values that live until the call returns; it keeps neither.
    let known = unsafe { !libc::localtime_r(&raw const time, &raw mut local).is_null() };
    if !known {
        return (since % 86_400) as u32;
    }
    (local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec).clamp(0, 86_399) as u32
}

/// `some avg10=1.23 ...`: the share in percent.
fn parse_pressure(text: &str) -> Option<f64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let value = some.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    value.parse().ok().filter(|percent: &f64| (0.0..=100.0).contains(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_where_the_kernel_says_it() {
        let text = "some avg10=12.50 avg60=3.00 avg300=0.10 total=123\nfull avg10=1.00 avg60=0\n";
        assert_eq!(parse_pressure(text), Some(12.5));
        for other in ["", "full avg10=1.00", "some avg60=1.00", "some avg10=many", "some avg10=NaN"]
        {
            assert_eq!(parse_pressure(other), None, "{other}");
        }
    }

    #[test]
    fn the_time_of_day_goes_on() {
        let at = |seconds| {
            second_of_day(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
        };
        assert_eq!((at(1_795_190_460) + 86_400 - at(1_795_190_400)) % 86_400, 60);
        assert!(at(1_795_190_400) < 86_400);
    }
}
