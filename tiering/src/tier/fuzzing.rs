//! What a cold tier says, for fuzzers.

use std::time::{Duration, SystemTime};

use super::check_key;
use super::owner::claim::{Claim, parse_key};
use super::pauses::parse_retry_after;
use crate::segment::SegmentId;

/// A claim, a key in a listing, and the value of a header.
pub(crate) fn answers(data: &[u8]) {
    if let Ok(claim) = Claim::parse(data) {
        let stored = claim.to_bytes();
        assert!(claim.who().len() <= 1024, "who is told of is told in a line");
        if let Ok(again) = Claim::parse(&stored) {
            assert_eq!(again, claim);
        }
        assert!(parse_key(&claim.key()).is_some(), "a claim has a key");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if check_key(text).is_ok() {
        let is_inside = |part: &str| !part.is_empty() && !part.starts_with('.');
        assert!(text.split('/').all(is_inside), "a key leads out of its tier");
    }
    if let Some((epoch, id)) = parse_key(text) {
        assert_eq!(super::owner::claim::key(epoch, &id), text);
    }
    if let Some((id, kind)) = SegmentId::parse_file_name(text) {
        assert_eq!(id.file_name(kind), text);
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let _ = parse_retry_after(text, now);
}
