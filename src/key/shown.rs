//! What may be shown of a volume's key: that there is one, and which wrapping. Both follow from what
//! is stored of it, and whoever sees the cold tier sees that too.

use std::fmt::Write;

use super::{FILE_NAME, read};
use crate::config::Config;
use crate::report::status::EncryptionStatus;
use crate::volume_dir::VolumeDir;

/// Bytes of the digest that are shown: enough to tell two keys apart.
const SHOWN: usize = 8;

/// How the cold tier of a volume is encrypted; `None` when it is not.
pub fn shown(volume: &VolumeDir, config: &Config) -> Option<EncryptionStatus> {
    config.key.as_ref()?;
    // A key that is lost is told when the volume is mounted.
    let stored = read(&volume.root().join(FILE_NAME), FILE_NAME).ok().flatten();
    let shown = stored.and_then(|(_, wrapped)| {
        let fingerprint = fingerprint(&wrapped.to_bytes().ok()?);
        Some(EncryptionStatus {
            generation: Some(wrapped.generation.0),
            fingerprint: Some(fingerprint),
        })
    });
    Some(shown.unwrap_or_default())
}

fn fingerprint(stored: &[u8]) -> String {
    let digest = blake3::hash(stored);
    digest.as_bytes()[..SHOWN].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
