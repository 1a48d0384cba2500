//! What protection costs: bytes of parity, by where they lie.

use serde::{Deserialize, Serialize};

use crate::units::rounded_bytes;

/// What parity and its checksums cost. A segment that is in both tiers has its parity in both, and
/// counts once; `data_bytes` are those of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParityStatus {
    /// In the segments themselves.
    pub inside: ParityBytes,
    /// In files and objects of their own.
    pub object: ParityBytes,
    /// Nowhere but on the stores of the cold tier; `parity_bytes` are those that spreading adds to
    /// all segments in cold, the others among them.
    pub stores: ParityBytes,
}

/// Bytes under parity, and of parity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParityBytes {
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of parity.
    pub parity_bytes: u64,
}

impl ParityStatus {
    /// One line; nothing where there is no parity.
    pub(super) fn text(&self) -> Option<String> {
        let mut parts = Vec::new();
        for (place, bytes) in [("inside segments", &self.inside), ("as objects", &self.object)] {
            let (parity, data) = (bytes.parity_bytes, bytes.data_bytes);
            if parity > 0 {
                parts.push(format!("{} {place} of {}", rounded_bytes(parity), rounded_bytes(data)));
            }
        }
        let (parity, data) = (self.stores.parity_bytes, self.stores.data_bytes);
        if parity > 0 || data > 0 {
            let (parity, data) = (rounded_bytes(parity), rounded_bytes(data));
            parts.push(format!("{parity} across stores, which {data} rely on"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_that_is_used_is_told() {
        let of = |data_bytes, parity_bytes| ParityBytes { data_bytes, parity_bytes };
        let mut parity = ParityStatus::default();
        assert_eq!(parity.text(), None);
        parity.inside = of(100 << 20, 2 << 20);
        assert_eq!(parity.text().as_deref(), Some("2.00 MiB inside segments of 100 MiB"));
        (parity.object, parity.stores) = (of(50 << 20, 1 << 20), of(0, 30 << 20));
        let text = parity.text().unwrap_or_default();
        let rest = "; 1.00 MiB as objects of 50.0 MiB; 30.0 MiB across stores, which 0 B rely on";
        assert!(text.ends_with(rest), "{text}");
    }
}
