//! Another key for a volume: the data key is wrapped anew, and no data is written. At every instant
//! the key that `firn.toml` names opens the volume directory, and one of both opens the cold tier.
//!
//! | crash | opens the volume directory | opens the cold tier |
//! |---|---|---|
//! | before 1 | the old key | the old key |
//! | behind 1: `keys/<next>` was stored | the old key | both |
//! | behind 2: `key.new` was written | the old key; `firn.toml` names it | both |
//! | behind 3: `firn.toml` names the new key | the new key, by `key.new` | both |
//! | behind 4: `key.new` became `key` | the new key | both |
//! | behind 5: older `keys/...` were deleted | the new key | the new key |
//!
//! A rotation that was interrupted is begun anew; it does away with what the last one left. Who
//! has the data key, or an old wrapped key and what opens it, goes on reading: nothing was written
//! anew. What an object store keeps of deleted objects is the store's affair.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use firn_tiering::crypt::{Derivation, Generation, WrappedKey};
use firn_tiering::tier::Tier;
use tokio::runtime::Runtime;

use super::{FILE_NAME, NEXT_NAME, Seal, generations, secret, sync_dir, write};
use crate::config::{self, Config, KeySource};
use crate::failure::Explain;
use crate::mounts;
use crate::volume_dir::VolumeDir;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The new wrapped key lies in the cold tier.
    Published,
    /// ... and in the volume directory.
    Written,
    /// The configuration names the new key.
    Named,
    /// The old wrapped key in the volume directory is gone.
    Replaced,
    /// Nothing is left of the old one.
    Removed,
}

/// A rotation that is ready: nothing was written yet.
pub struct Rotation<'a> {
    volume: &'a VolumeDir,
    old: &'a Seal,
    /// The configuration that names the new key.
    text: String,
    source: KeySource,
    derivation: Derivation,
}

impl<'a> Rotation<'a> {
    /// From `old`, which opened the volume, to what `source` tells.
    pub fn prepare(
        volume: &'a VolumeDir,
        old: &'a Seal,
        source: KeySource,
        derivation: Derivation,
    ) -> anyhow::Result<Self> {
        let text = fs::read_to_string(config_file(volume)).context("reading firn.toml")?;
        let text = config::with_key(&text, &source)
            .hint("write the key in firn.toml as one line, then rotate again")?;
        Ok(Self { volume, old, text, source, derivation })
    }

    /// Does it. `reached` is told of each step, and may end it there.
    pub fn run(
        &self,
        config: &Config,
        tier: &Arc<dyn Tier>,
        runtime: &Runtime,
        mut reached: impl FnMut(Step) -> anyhow::Result<()>,
    ) -> anyhow::Result<Generation> {
        let older = runtime.block_on(generations(tier.as_ref()))?;
        let last = older.last().copied().max(Some(self.old.wrapped.generation));
        let next = Generation(last.map_or(1, |last| last.0.saturating_add(1)));
        let wrapped = self.wrap(config, next)?;
        let bytes = wrapped.to_bytes()?;
        let root = self.volume.root();
        let (file, aside) = (root.join(FILE_NAME), root.join(NEXT_NAME));
        if self.old.file_name == NEXT_NAME {
            // Of a rotation that was interrupted behind step 3: the only one that still opens.
            rename(&aside, &file)?;
        }
        runtime.block_on(tier.put(&next.object_key(), bytes.clone()))?;
        reached(Step::Published)?;
        write(&aside, &bytes, 0o600)?;
        reached(Step::Written)?;
        let path = config_file(self.volume);
        let mode = fs::metadata(&path).context("reading firn.toml")?.permissions().mode();
        write(&path, self.text.as_bytes(), mode & 0o777)?;
        reached(Step::Named)?;
        rename(&aside, &file)?;
        reached(Step::Replaced)?;
        for generation in older {
            runtime.block_on(tier.delete(&generation.object_key()))?;
        }
        reached(Step::Removed)?;
        Ok(next)
    }

    /// The key under its new wrapping, which was seen to open.
    fn wrap(&self, config: &Config, next: Generation) -> anyhow::Result<WrappedKey> {
        let hidden = match &config.key {
            Some(KeySource::Env(name)) => vec![name.as_str()],
            _ => Vec::new(),
        };
        let source = self.source.below(self.volume.root());
        let secret = secret::read(&source, &hidden)?;
        let volume = *config.uuid.as_bytes();
        let wrapped = WrappedKey::wrap(&self.old.key, &secret, next, volume, self.derivation)
            .and_then(|wrapped| WrappedKey::from_bytes(&wrapped.to_bytes()?))
            .with_context(|| source.to_string())
            .hint(super::HINT_NEW)?;
        // Read once more, as the next mount will: a source that changes its mind locks nobody out.
        let again = secret::read(&source, &hidden)?;
        match wrapped.unwrap(&again).with_context(|| source.to_string())? {
            Some(key) if key.id() == self.old.key.id() => Ok(wrapped),
            _ => Err(anyhow!("tells another key each time")).context(source.to_string()),
        }
    }
}

fn config_file(volume: &VolumeDir) -> PathBuf {
    volume.root().join(config::FILE_NAME)
}

fn rename(from: &PathBuf, to: &PathBuf) -> anyhow::Result<()> {
    fs::rename(from, to)
        .and_then(|()| sync_dir(to))
        .with_context(|| format!("replacing {}", mounts::shown(to)))
}
