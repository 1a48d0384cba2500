#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn sizes_as_people_type_them() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64KiB", 64 << 10),
        ("64k", 64 << 10),
        ("2 TiB", 2 << 40),
        ("1.5GiB", 3 << 29),
        ("10GB", 10_000_000_000),
        ("0.5KiB", 512),
    ] {
        assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
    }
}

#[test]
fn sizes_that_make_no_sense() {
    for text in ["", "KiB", "-1", "1.KiB", ".5KiB", "1..5KiB", "1 XiB", "0x10", "1.5.2GiB"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    assert!(matches!("16EiB".parse::<Size>(), Err(UnitError::TooLarge(_))));
    assert!(matches!("99999999999999999999".parse::<Size>(), Err(UnitError::TooLarge(_))));
}

#[test]
fn every_printed_size_parses_to_itself() {
    for bytes in [0, 1, 1023, 1024, 1025, 64 << 10, 3 << 29, 2 << 40, u64::MAX] {
        assert_eq!(Size(bytes).to_string().parse::<Size>().unwrap().0, bytes);
    }
    assert_eq!(Size(2 << 40).to_string(), "2TiB");
    assert_eq!(Size(1536).to_string(), "1536B");
}

#[test]
fn rounded_sizes_have_three_digits() {
    assert_eq!(rounded_bytes(1023), "1023 B");
    assert_eq!(rounded_bytes(1536), "1.50 KiB");
    assert_eq!(rounded_bytes(10 << 20), "10.0 MiB");
    assert_eq!(rounded_bytes(512 << 30), "512 GiB");
}

#[test]
fn periods_as_people_type_them() {
    for (text, ms) in [
        ("15m", 900_000),
        ("7d", 604_800_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("60s", 60_000),
    ] {
        assert_eq!(text.parse::<Period>().unwrap().0.as_millis(), ms, "{text}");
    }
    for text in ["", "m", "15", "15 parsecs", "1m-2s", "999999999999d"] {
        assert!(text.parse::<Period>().is_err(), "{text}");
    }
}

#[test]
fn every_printed_period_parses_to_itself() {
    for ms in [0, 1, 999, 1000, 900_000, 5_400_000, 604_800_001] {
        let period = Period(Duration::from_millis(ms));
        assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
    }
    assert_eq!(Period::secs(900).to_string(), "15m");
}

#[test]
fn rounded_durations_keep_two_units() {
    assert_eq!(rounded_duration(Duration::from_millis(1234)), "1.2s");
    assert_eq!(rounded_duration(Duration::from_millis(192_600)), "3m12s");
    assert_eq!(rounded_duration(Duration::from_secs(2 * 86_400 + 4 * 3600 + 59)), "2d4h");
}
