//! A claim as it is stored; `FORMAT.md`, "Owner claims".

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What precedes the keys of claims.
pub const CLAIMS: &str = "owner/";

pub(super) const VERSION: u32 = 1;

/// Longest claim that is believed.
const MAX_LEN: usize = 4096;

/// Digits of an epoch and of an id in a key.
const EPOCH_DIGITS: usize = 16;
const ID_DIGITS: usize = 32;

/// Who claims a place, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Version of the object.
    pub version: u32,
    /// Who has the highest has the place.
    pub epoch: u64,
    /// Of this claim alone: 32 hexadecimal digits.
    pub id: String,
    /// The volume directory of which this is a mount.
    pub instance: String,
    /// The machine, for people.
    pub host: String,
    /// The process, for people.
    pub pid: u32,
    /// When it was made, by that machine's clock: seconds since 1970, for people.
    pub time_s: u64,
}

impl Claim {
    pub(in crate::tier) fn key(&self) -> String {
        key(self.epoch, &self.id)
    }

    pub(in crate::tier) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of numbers and strings is JSON")
    }

    /// [`Error::Damaged`] for what is no claim, [`Error::TooNew`] for that of a newer version.
    pub(in crate::tier) fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let wrong = |reason: String| Error::Damaged { what: "owner claim", reason };
        if bytes.len() > MAX_LEN {
            return Err(wrong(format!("{} bytes", bytes.len())));
        }
        let of_json = |error: serde_json::Error| wrong(error.to_string());
        let Version { version } = serde_json::from_slice(bytes).map_err(of_json)?;
        if version > VERSION {
            return Err(Error::TooNew { what: "owner claim", found: version, known: VERSION });
        }
        let claim: Self = serde_json::from_slice(bytes).map_err(of_json)?;
        if version == 0 || !is_id(&claim.id) || claim.instance.is_empty() {
            return Err(wrong("a field makes no sense".to_owned()));
        }
        Ok(claim)
    }

    /// Whose it is, for people.
    pub(in crate::tier) fn who(&self) -> String {
        let clean =
            |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(64).collect() };
        let (host, instance) = (clean(&self.host), clean(&self.instance));
        format!("process {} on {host}, instance {instance}", self.pid)
    }
}

fn is_id(id: &str) -> bool {
    id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The key of a claim.
pub(in crate::tier) fn key(epoch: u64, id: &str) -> String {
    format!("{CLAIMS}{epoch:016x}-{id}")
}

/// Epoch and id in a key.
pub(in crate::tier) fn parse_key(key: &str) -> Option<(u64, String)> {
    let (epoch, id) = key.strip_prefix(CLAIMS)?.split_once('-')?;
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if epoch.len() != EPOCH_DIGITS || !epoch.bytes().all(is_hex) || !is_id(id) {
        return None;
    }
    Some((u64::from_str_radix(epoch, 16).ok()?, id.to_owned()))
}
