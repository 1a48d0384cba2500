//! What `firn status` says of thawed files.

use serde::{Deserialize, Serialize};

use crate::units::rounded_bytes;

/// Files that lie in hot as plain copies as well, which the kernel reads by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThawedStatus {
    /// Copies there are.
    pub files: u64,
    /// Bytes that they take of the hot tier.
    pub bytes: u64,
    /// Copies made since the mount.
    pub made: u64,
    /// Copies that were damaged when they were put back.
    pub damaged: u64,
    /// Opens that the kernel served from them since the mount; absent where it may not.
    pub opens: Option<u64>,
}

impl ThawedStatus {
    pub(super) fn text(&self) -> String {
        let Self { files, bytes, damaged, opens, .. } = self;
        let mut text = format!("{files} files, {}", rounded_bytes(*bytes));
        match opens {
            Some(opens) => text.push_str(&format!(", {opens} opens passed through")),
            None => text.push_str(", not used: the kernel does not let files pass through"),
        }
        if *damaged > 0 {
            text.push_str(&format!(", {damaged} copies were damaged"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_one_line() {
        let status =
            ThawedStatus { files: 2, bytes: 3 << 20, opens: Some(7), ..Default::default() };
        assert_eq!(status.text(), "2 files, 3.00 MiB, 7 opens passed through");
        let refused = ThawedStatus { damaged: 1, ..Default::default() };
        assert_eq!(
            refused.text(),
            "0 files, 0 B, not used: the kernel does not let files pass through, 1 copies were damaged"
        );
    }
}
