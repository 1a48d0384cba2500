//! The key of an encrypted volume: where it lies wrapped, and how it is unlocked. Bytes:
//! `tiering/FORMAT.md`, "Wrapped key".
//!
//! The wrapped key lies in the volume directory (`key`) and in the cold tier (`keys/<generation>`),
//! so that either is enough together with what the owner keeps. Nothing else is ever stored of it.
//! A wrong key is found before anything is asked of the cold tier. How the wrapping changes, and what
//! a crash leaves: [`rotation`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use firn_tiering::Error;
use firn_tiering::crypt::{DataKey, Derivation, Generation, MAX_WRAPPED_LEN, Secret, WrappedKey};
use firn_tiering::tier::{Encrypted, Tier};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::config::{Config, KeySource};
use crate::failure::Explain;
use crate::mounts;
use crate::volume_dir::VolumeDir;

pub mod rotation;
mod secret;
mod shown;
#[cfg(test)]
mod tests;

pub use shown::shown;

/// Name of the wrapped key in the volume directory, and of the one that is about to take its place.
const FILE_NAME: &str = "key";
const NEXT_NAME: &str = "key.new";

/// Most wrapped keys that are looked for in a cold tier; there are one or two.
const MOST_GENERATIONS: usize = 100;

/// An unlocked key, and what is stored of it.
#[derive(Clone, Debug)]
pub struct Seal {
    key: Arc<DataKey>,
    wrapped: WrappedKey,
    /// Where files are encrypted on their way out.
    staging: PathBuf,
    /// Under which name in the volume directory it lies wrapped.
    file_name: &'static str,
}

/// `tier` as everything must see it: encrypted, where the volume is.
pub fn sealed(tier: Arc<dyn Tier>, seal: Option<&Seal>) -> Arc<dyn Tier> {
    match seal {
        Some(seal) => Arc::new(Encrypted::new(tier, Arc::clone(&seal.key), seal.staging.clone())),
        None => tier,
    }
}

/// How a secret becomes a key.
pub fn derivation(is_passphrase: bool) -> Derivation {
    if is_passphrase { Derivation::PASSPHRASE } else { Derivation::Key }
}

/// The secret that a source tells, for what is not the volume's own.
pub fn secret(source: &KeySource) -> anyhow::Result<Secret> {
    secret::read(source, &[])
}

impl Seal {
    /// A new key for a new volume.
    pub fn create(
        source: &KeySource,
        derivation: Derivation,
        volume: Uuid,
        hot: &Path,
    ) -> anyhow::Result<Self> {
        let secret = secret::read(source, &[])?;
        let key = DataKey::random()?;
        let id = *volume.as_bytes();
        let wrapped = WrappedKey::wrap(&key, &secret, Generation(1), id, derivation)
            .with_context(|| source.to_string())
            .hint(HINT_NEW)?;
        Ok(Self::of(key, wrapped, hot, FILE_NAME))
    }

    fn of(key: DataKey, wrapped: WrappedKey, hot: &Path, file_name: &'static str) -> Self {
        Self { key: Arc::new(key), wrapped, staging: hot.join("tmp"), file_name }
    }

    /// The key of a volume; `None` where nothing is encrypted. Where the volume directory has lost
    /// the wrapped key, the one in the cold tier, which `cold` opens, takes its place.
    pub fn open(
        volume: &VolumeDir,
        config: &Config,
        cold: impl FnOnce() -> anyhow::Result<Arc<dyn Tier>>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(source) = &config.key else { return Ok(None) };
        let source = source.below(volume.root());
        let (mut stored, mut damage) = (Vec::new(), None);
        for name in [FILE_NAME, NEXT_NAME] {
            match read(&volume.root().join(name), name) {
                Ok(found) => stored.extend(found),
                Err(error) => damage = Some(error),
            }
        }
        let secret = secret::read(&source, &[])?;
        let is_lost = stored.is_empty() || damage.is_some();
        for (name, wrapped) in stored {
            check_volume(&wrapped, config.uuid)?;
            if let Some(key) = unlock(&wrapped, &secret, &source)? {
                let hot = config.hot_dir(volume.root());
                return Ok(Some(Self::of(key, wrapped, &hot, name)));
            }
        }
        if is_lost {
            let lost = damage.unwrap_or_else(|| {
                anyhow!("{} is missing", mounts::shown(&volume.root().join(FILE_NAME)))
            });
            return Self::replaced(volume, config, &source, &lost, cold).map(Some);
        }
        Err(wrong(&source))
            .hint("`key` in firn.toml says where the key is kept; nothing was changed")
    }

    /// Puts the wrapped key of the cold tier in the place of the one that was lost.
    fn replaced(
        volume: &VolumeDir,
        config: &Config,
        source: &KeySource,
        lost: &anyhow::Error,
        cold: impl FnOnce() -> anyhow::Result<Arc<dyn Tier>>,
    ) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting a runtime")?;
        let hot = config.hot_dir(volume.root());
        let fetched = cold().and_then(|tier| {
            Self::from_cold(source, tier.as_ref(), Some(config.uuid), &hot, &runtime)
        });
        let seal = fetched.with_context(|| format!("{lost:#}; the copy in the cold tier"))?;
        match seal.keep(volume) {
            Ok(()) => tracing::warn!("{lost:#}: it was replaced by its copy in the cold tier"),
            // The next mount fetches it again.
            Err(error) => tracing::warn!("{lost:#}, and cannot be replaced: {error:#}"),
        }
        Ok(seal)
    }

    /// The key of a volume that is made from its cold tier.
    pub fn from_cold(
        source: &KeySource,
        tier: &dyn Tier,
        volume: Option<Uuid>,
        hot: &Path,
        runtime: &Runtime,
    ) -> anyhow::Result<Self> {
        let generations = runtime.block_on(generations(tier))?;
        if generations.is_empty() {
            return Err(anyhow!("it holds no wrapped key ({}...)", Generation::PREFIX))
                .hint("is it encrypted? without --key-... what is not encrypted is recovered");
        }
        let secret = secret::read(source, &[])?;
        let mut damaged = None;
        for generation in generations.into_iter().rev() {
            let opened = runtime.block_on(fetch(tier, generation)).and_then(|wrapped| {
                if let Some(volume) = volume {
                    check_volume(&wrapped, volume)?;
                }
                Ok((unlock(&wrapped, &secret, source)?, wrapped))
            });
            match opened {
                Ok((Some(key), wrapped)) => return Ok(Self::of(key, wrapped, hot, FILE_NAME)),
                Ok((None, _)) => {}
                Err(error) => damaged = Some(error),
            }
        }
        match damaged {
            Some(error) => Err(error),
            None => Err(wrong(source)).hint("give the key that the volume had last"),
        }
    }

    /// Writes the wrapped key into a volume directory that is being built.
    pub fn keep(&self, volume: &VolumeDir) -> anyhow::Result<()> {
        write(&volume.root().join(FILE_NAME), &self.wrapped.to_bytes()?, 0o600)
    }

    /// Sees to it that the wrapped key lies in the cold tier, too.
    pub async fn publish(&self, tier: &dyn Tier) -> Result<(), Error> {
        let object = self.wrapped.generation.object_key();
        match tier.head(&object).await {
            Err(Error::NotFound(_)) => tier.put(&object, self.wrapped.to_bytes()?).await,
            other => other.map(drop),
        }
    }

    /// Takes back what [`Seal::publish`] stored.
    pub async fn withdraw(&self, tier: &dyn Tier) -> Result<(), Error> {
        tier.delete(&self.wrapped.generation.object_key()).await
    }
}

const HINT_NEW: &str = "a key is 32 random bytes, or 64 hexadecimal digits, such as `openssl rand -hex \
                        32` makes; for a passphrase say --passphrase";

fn wrong(source: &KeySource) -> anyhow::Error {
    anyhow!("the key does not open this volume").context(source.to_string())
}

fn unlock(
    wrapped: &WrappedKey,
    secret: &Secret,
    source: &KeySource,
) -> anyhow::Result<Option<DataKey>> {
    let unlocked = wrapped.unwrap(secret).with_context(|| source.to_string());
    unlocked.hint("is it the key that the volume was made with, or last rotated to?")
}

fn check_volume(wrapped: &WrappedKey, volume: Uuid) -> anyhow::Result<()> {
    let of = Uuid::from_bytes(wrapped.volume);
    if of == volume {
        return Ok(());
    }
    Err(anyhow!("the wrapped key is of volume {of}, not of {volume}"))
        .hint("the file `key` or the objects keys/... are another volume's")
}

/// A wrapped key in the volume directory, with its name.
fn read(path: &Path, name: &'static str) -> anyhow::Result<Option<(&'static str, WrappedKey)>> {
    let shown = || mounts::shown(path);
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_WRAPPED_LEN + 1).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(shown)?,
    };
    let wrapped = WrappedKey::from_bytes(&bytes).with_context(shown)?;
    Ok(Some((name, wrapped)))
}

/// The wrapped keys in a cold tier, oldest first.
async fn generations(tier: &dyn Tier) -> Result<Vec<Generation>, Error> {
    let found = tier.list(Generation::PREFIX, None, MOST_GENERATIONS).await?;
    Ok(found.iter().filter_map(|object| Generation::from_key(&object.key)).collect())
}

async fn fetch(tier: &dyn Tier, generation: Generation) -> anyhow::Result<WrappedKey> {
    let object = generation.object_key();
    let found = async {
        let len = tier.head(&object).await?.len.min(MAX_WRAPPED_LEN);
        WrappedKey::from_bytes(&tier.get_range(&object, 0..len).await?)
    };
    let wrapped = found.await.with_context(|| object.clone())?;
    if wrapped.generation != generation {
        return Err(anyhow!("it is of generation {}", wrapped.generation.0)).context(object);
    }
    Ok(wrapped)
}

/// Replaces a file as a whole, durably.
fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let aside = path.with_added_extension("aside");
    let replace = || {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_dir(path)
    };
    replace().with_context(|| format!("writing {}", mounts::shown(path)))
}

/// Makes the names beside `path` durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
