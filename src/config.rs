//! `firn.toml`: what a volume is and how it behaves. Every value is checked when it is read, an
//! unknown key is refused with its line, so that a typo is found at start and not at night. The
//! file is written once, by `firn init` or `firn recover`, with each field explained; people edit
//! it, the daemon only reads it. Secrets have no place in it.

use std::path::{Path, PathBuf};

use firn_tiering::tier::spread::MAX_STORES;
use serde::Deserialize;
use uuid::Uuid;

use crate::units::{Period, Size};

pub mod cold_url;
pub mod cold_urls;
pub mod key_source;
pub mod metrics_address;
mod render;

pub use cold_url::ColdUrl;
pub use cold_urls::ColdUrls;
pub use key_source::KeySource;
pub use metrics_address::MetricsAddress;

/// Name of the file in the volume directory.
pub const FILE_NAME: &str = "firn.toml";

/// The newest volume format that this program knows.
pub const FORMAT: u32 = 2;

/// The format of a volume that needs nothing newer.
pub const PLAIN_FORMAT: u32 = 1;

/// From this format on, what lies in the cold tier is encrypted.
pub const ENCRYPTED_FORMAT: u32 = 2;

/// Smallest hot tier: a few segments, their parity, and the databases.
pub const MIN_HOT_CAPACITY: Size = Size::mib(256);

/// Smallest memory budget: one segment on its way to the cold tier beside the write buffers.
pub const MIN_MEMORY: Size = Size::mib(64);

/// What a read does while the cold tier is known not to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColdDown {
    /// Waits for it, until its deadline.
    #[default]
    Wait,
    /// Fails at once with `EIO`.
    Fail,
}

impl std::fmt::Display for ColdDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Fail => "fail",
        })
    }
}

/// A volume's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of everything stored in the volume. A program refuses what is newer than itself.
    pub format: u32,
    /// The volume's name for machines, also in its cold tier. Never changes.
    pub uuid: Uuid,
    /// Directory of the hot tier; relative to the volume directory unless absolute. Fast local
    /// disk: everything is written here first.
    #[serde(default = "default_hot")]
    pub hot: PathBuf,
    /// Bytes the volume may use locally: hot blocks, indexes, databases. More keeps more data at
    /// local speed.
    pub hot_capacity: Size,
    /// Where blocks go to be kept. Without one the volume is local only, and as safe as its disk.
    #[serde(default)]
    pub cold: Option<ColdUrls>,
    /// Of several stores in `cold`, how many hold parity: the last ones. Any so many may be lost.
    #[serde(default)]
    pub cold_parity: Option<u8>,
    /// Stores that must have a shard of an object before it counts as copied; all when absent.
    #[serde(default)]
    pub cold_least_stores: Option<u8>,
    /// Where the key is kept that unlocks what lies in the cold tier; there exactly when that is
    /// encrypted, which is chosen when the volume is made.
    #[serde(default)]
    pub key: Option<KeySource>,
    /// Bytes the volume may use in the cold tier; unlimited when absent. Bounds the bill, and what
    /// `df` shows as total.
    #[serde(default)]
    pub cold_capacity: Option<Size>,
    /// Bytes of memory for write buffers, caches, uploads and databases together. More absorbs
    /// longer bursts; writers wait when it is full.
    #[serde(default = "default_memory")]
    pub memory: Size,
    /// Longest time between two backups of the namespace to the cold tier. Shorter loses less
    /// with the machine and costs more requests.
    #[serde(default = "default_backup_interval")]
    pub backup_interval: Period,
    /// Copy sealed segments to the cold tier in the background. Off saves requests for short-lived
    /// data, and makes the hot tier the only copy until somebody archives.
    #[serde(default = "default_copy_ahead")]
    pub copy_ahead: bool,
    /// Age at which a sealed segment that was not read meanwhile is compressed again as hard as
    /// possible, when nobody needs the volume. Shorter saves space sooner, and costs processor time
    /// and a second copy to cold. Zero switches it off.
    #[serde(default = "default_recompress_age")]
    pub recompress_age: Period,
    /// How long nothing must have been written or read before that begins.
    #[serde(default = "default_recompress_idle")]
    pub recompress_idle: Period,
    /// Longest time that written data waits in memory for its group flush. Shorter loses less of
    /// what was never fsynced, longer packs better.
    #[serde(default = "default_flush_interval")]
    pub flush_interval: Period,
    /// A writer that saw no progress for this long gets `EIO`.
    #[serde(default = "default_write_deadline")]
    pub write_deadline: Period,
    /// A read from the cold tier that takes longer gets `EIO`.
    #[serde(default = "default_read_deadline")]
    pub read_deadline: Period,
    /// What a read from a cold tier does that is known not to answer, unless the policy says it.
    #[serde(default)]
    pub cold_down: ColdDown,
    /// `umount` waits this long for a cold tier that makes no progress, then leaves the rest for
    /// the next mount: the data is safe in the hot tier.
    #[serde(default = "default_umount_deadline")]
    pub umount_deadline: Period,
    /// Where the numbers of `firn status` are served for Prometheus; nowhere when absent. Whoever
    /// reaches the address reads them.
    #[serde(default)]
    pub metrics: Option<MetricsAddress>,
}

fn default_hot() -> PathBuf {
    PathBuf::from("hot")
}

fn default_memory() -> Size {
    Size::mib(512)
}

fn default_backup_interval() -> Period {
    Period::secs(15 * 60)
}

fn default_copy_ahead() -> bool {
    true
}

fn default_recompress_age() -> Period {
    Period::secs(24 * 3600)
}

fn default_recompress_idle() -> Period {
    Period::secs(60)
}

fn default_flush_interval() -> Period {
    Period::secs(5)
}

fn default_write_deadline() -> Period {
    Period::secs(5 * 60)
}

fn default_read_deadline() -> Period {
    Period::secs(60)
}

fn default_umount_deadline() -> Period {
    Period::secs(60)
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown key, a wrong type, a bad unit.
    #[error("{FILE_NAME} line {line}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// Written by a newer program.
    #[error("the volume has format version {found}, this program knows up to {FORMAT}")]
    TooNew {
        /// The version found.
        found: u32,
    },
    /// A value that parses and makes no sense.
    #[error("{FILE_NAME}: {key}: {message}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl Config {
    /// A configuration with every default.
    pub fn new(uuid: Uuid, hot_capacity: Size) -> Self {
        Self {
            format: PLAIN_FORMAT,
            uuid,
            hot: default_hot(),
            hot_capacity,
            cold: None,
            cold_parity: None,
            cold_least_stores: None,
            key: None,
            cold_capacity: None,
            memory: default_memory(),
            backup_interval: default_backup_interval(),
            copy_ahead: default_copy_ahead(),
            recompress_age: default_recompress_age(),
            recompress_idle: default_recompress_idle(),
            flush_interval: default_flush_interval(),
            write_deadline: default_write_deadline(),
            read_deadline: default_read_deadline(),
            cold_down: ColdDown::default(),
            umount_deadline: default_umount_deadline(),
            metrics: None,
        }
    }

    /// With all that leaves the machine encrypted, under a key that is kept there.
    #[must_use]
    pub fn encrypted(self, key: KeySource) -> Self {
        Self { format: ENCRYPTED_FORMAT, key: Some(key), ..self }
    }

    /// Whether what lies in the cold tier is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.format >= ENCRYPTED_FORMAT
    }

    /// Reads and checks the text of a `firn.toml`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        refuse_newer(text)?;
        let config: Self = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `firn.toml` that parses to this, each field explained.
    pub fn render(&self) -> String {
        render::render(self)
    }

    /// The hot directory as an absolute path, given the volume directory.
    pub fn hot_dir(&self, volume_dir: &Path) -> PathBuf {
        volume_dir.join(&self.hot)
    }

    /// Checks what the types cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |key, message: String| Err(ConfigError::Value { key, message });
        if self.format == 0 {
            return value("format", "there is no version 0".into());
        }
        if self.hot.as_os_str().is_empty() {
            return value("hot", "is empty".into());
        }
        if self.hot_capacity < MIN_HOT_CAPACITY {
            let message = format!("{} is less than {MIN_HOT_CAPACITY}", self.hot_capacity);
            return value("hot_capacity", message);
        }
        if self.memory < MIN_MEMORY {
            return value("memory", format!("{} is less than {MIN_MEMORY}", self.memory));
        }
        if self.cold_capacity.is_some() && self.cold.is_none() {
            return value("cold_capacity", "is set, but there is no cold tier".into());
        }
        if let Err(message) = self.check_key() {
            return value("key", message.into());
        }
        self.check_stores()?;
        let periods = [
            ("backup_interval", self.backup_interval, 1),
            ("recompress_age", self.recompress_age, 0),
            ("recompress_idle", self.recompress_idle, 1),
            ("flush_interval", self.flush_interval, 0),
            ("write_deadline", self.write_deadline, 1),
            ("read_deadline", self.read_deadline, 1),
            ("umount_deadline", self.umount_deadline, 0),
        ];
        for (key, period, least) in periods {
            if period < Period::secs(least) || period > Period::secs(366 * 86_400) {
                return value(key, format!("{period} is not between {least}s and 366d"));
            }
        }
        Ok(())
    }

    /// The format and the key say the same.
    fn check_key(&self) -> Result<(), &'static str> {
        match (&self.key, self.is_encrypted()) {
            (None, false) => Ok(()),
            (None, true) => Err("is missing, and the volume is encrypted"),
            (Some(_), false) => Err(
                "is set, but the volume is not encrypted: `firn init --encrypt` makes one that is",
            ),
            (Some(_), true) if self.cold.is_none() => Err("is set, but there is no cold tier"),
            (Some(key), true) => key.check(),
        }
    }
}

/// The text of a `firn.toml` in which only the key is kept elsewhere.
pub fn with_key(text: &str, key: &KeySource) -> Result<String, ConfigError> {
    let is_key = |line: &str| {
        line.trim_start().strip_prefix("key").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let new: String = text
        .split_inclusive('\n')
        .map(|line| if is_key(line) { format!("key = {}\n", key.to_toml()) } else { line.into() })
        .collect();
    let wanted = Config { key: Some(key.clone()), ..Config::parse(text)? };
    match Config::parse(&new) {
        Ok(config) if config == wanted => Ok(new),
        _ => Err(ConfigError::Value {
            key: "key",
            message: "is not written on a line of its own: key = { ... }".into(),
        }),
    }
}

impl Config {
    /// Over how many stores the cold tier spreads each object: those with data, and those with parity.
    /// `None` where it is one store, or there is none.
    pub fn spread(&self) -> Option<(u32, u32)> {
        let stores = self.cold.as_ref().map_or(0, ColdUrls::count);
        let parity = usize::from(self.cold_parity.unwrap_or(0));
        (stores > 1 && parity > 0).then(|| ((stores - parity) as u32, parity as u32))
    }

    /// Checks how objects are spread over stores.
    fn check_stores(&self) -> Result<(), ConfigError> {
        let value = |key, message: String| Err(ConfigError::Value { key, message });
        let stores = self.cold.as_ref().map_or(0, ColdUrls::count);
        if stores < 2 {
            return match (self.cold_parity, self.cold_least_stores) {
                (None, None) => Ok(()),
                (Some(_), _) => value("cold_parity", "is for several stores in `cold`".into()),
                (_, Some(_)) => {
                    value("cold_least_stores", "is for several stores in `cold`".into())
                }
            };
        }
        if stores > MAX_STORES {
            return value("cold", format!("{stores} stores are more than {MAX_STORES}"));
        }
        let parity = usize::from(self.cold_parity.unwrap_or(0));
        if parity == 0 || parity >= stores {
            let most = stores - 1;
            return value(
                "cold_parity",
                format!("with {stores} stores in `cold` it must be between 1 and {most}"),
            );
        }
        let least = (stores - parity).max(parity + 1);
        if let Some(given) = self.cold_least_stores.map(usize::from)
            && !(least..=stores).contains(&given)
        {
            let message = format!("{given} is not between {least} and {stores}");
            return value("cold_least_stores", message);
        }
        Ok(())
    }
}

/// Looks at the version before anything else: a newer file may well hold keys unknown here.
fn refuse_newer(text: &str) -> Result<(), ConfigError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    match toml::from_str::<Version>(text) {
        Ok(Version { format }) if format > FORMAT => Err(ConfigError::TooNew { found: format }),
        _ => Ok(()),
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    ConfigError::Syntax { line, message: error.message().trim().replace('\n', ", ") }
}

#[cfg(test)]
mod tests;
