//! `firn init`: makes a volume. Everything is checked before anything is made, and the volume
//! appears whole or not at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use firn_tiering::crypt::Derivation;
use uuid::Uuid;

use super::key::KeyArgs;
use crate::cold::{self, ColdSet};
use crate::config::{ColdUrl, ColdUrls, Config};
use crate::daemon::assemble;
use crate::failure::{EXIT_DONE, Explain};
use crate::key::{self, Seal};
use crate::units::Size;
use crate::volume_dir::create;

/// Make a volume
///
/// Writes `firn.toml` with every setting explained, to be edited before the first mount. The
/// directory must not exist or be empty; it appears whole or not at all.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Directory of the volume
    volume_dir: PathBuf,
    /// Directory of the hot tier, on fast local disk [default: <volume-dir>/hot]
    #[arg(long, value_name = "DIR")]
    hot: Option<PathBuf>,
    /// Bytes the volume may use locally [default: nine tenths of what is free]
    #[arg(long, value_name = "SIZE")]
    hot_capacity: Option<Size>,
    /// Object store that keeps the blocks: file:///dir, s3://bucket/prefix, gs://, az://;
    /// credentials come from its standard environment variables. Given several times, every
    /// object is spread over the stores, see --cold-parity
    #[arg(long, value_name = "URL")]
    cold: Vec<String>,
    /// Of several stores, how many of the last ones hold parity: any so many may be lost without
    /// losing anything
    #[arg(long, value_name = "COUNT", requires = "cold")]
    cold_parity: Option<u8>,
    /// Bytes the volume may use in the cold tier [default: unlimited]
    #[arg(long, value_name = "SIZE", requires = "cold")]
    cold_capacity: Option<Size>,
    /// Encrypt everything that goes to the cold tier, under a key that you keep; without that key
    /// nobody can read it. The hot tier on the local disk is not encrypted
    #[arg(long, requires_all = ["cold", "key"])]
    encrypt: bool,
    #[command(flatten)]
    key: KeyArgs,
    /// The key is a passphrase: it is made expensive to guess
    #[arg(long, requires = "encrypt")]
    passphrase: bool,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let path = create::check_place(&self.volume_dir).context("making a volume")?;
        let (hot, capacity) = hot_place(&path, self.hot.as_deref(), self.hot_capacity)?;
        let mut config = Config::new(Uuid::new_v4(), capacity);
        config.hot = hot;
        if !self.cold.is_empty() {
            config.cold = Some(parse_cold(&self.cold)?);
        }
        config.cold_parity = self.cold_parity;
        config.cold_capacity = self.cold_capacity;
        if let Some(source) = self.key.source().context("making a volume")? {
            if !self.encrypt {
                return Err(anyhow!("a key is given, and nothing is to be encrypted"))
                    .context("making a volume")
                    .hint("say --encrypt as well")
                    .wrong_usage();
            }
            config = config.encrypted(source);
        }
        config.check().context("making a volume").wrong_usage()?;
        let derivation = key::derivation(self.passphrase);
        make(&path, config, derivation).context("making a volume")?;
        Ok(EXIT_DONE)
    }
}

/// Where the hot tier is to lie, relative to the volume at `path` when it is inside, and how much
/// it may use.
pub(super) fn hot_place(
    path: &Path,
    hot: Option<&Path>,
    capacity: Option<Size>,
) -> anyhow::Result<(PathBuf, Size)> {
    let hot = match hot {
        Some(hot) => std::path::absolute(hot).context("hot directory")?,
        None => PathBuf::from("hot"),
    };
    let place = path.join(&hot);
    let capacity = match capacity {
        Some(capacity) => capacity,
        None => create::default_hot_capacity(&place)?,
    };
    create::check_capacity(&place, capacity)
        .hint("give less with --hot-capacity, or name another disk with --hot")?;
    Ok((hot, capacity))
}

/// Makes the volume, and claims its cold tier last.
fn make(path: &Path, config: Config, derivation: Derivation) -> anyhow::Result<()> {
    let hot_dir = config.hot_dir(path);
    let create = |source| Seal::create(source, derivation, config.uuid, &hot_dir);
    let seal = config.key.as_ref().map(create).transpose()?;
    let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
    let cold = match ColdSet::of(&config) {
        Some(set) => {
            let prepared = cold::prepare(&set, &runtime)?;
            Some((set, prepared))
        }
        None => None,
    };
    let hot = config.hot.clone();
    let built = create::build(path, &hot, |aside| {
        assemble::create(aside)?;
        if let Some(seal) = &seal {
            seal.keep(aside)?;
        }
        if let Some((set, prepared)) = &cold {
            prepared.claim(set, &config, seal.as_ref(), &runtime)?;
        }
        Ok(config)
    });
    if let (Err(_), Some((_, prepared))) = (&built, &cold) {
        prepared.unclaim(seal.as_ref(), &runtime);
    }
    built.map(|_| ())
}

/// Parses the URLs of a cold tier, naming the remedy.
pub(super) fn parse_cold(texts: &[String]) -> anyhow::Result<ColdUrls> {
    let urls = texts.iter().map(|text| parse_url(text)).collect::<anyhow::Result<_>>()?;
    ColdUrls::new(urls).map_err(|message| anyhow!(message)).context("cold URL").wrong_usage()
}

fn parse_url(text: &str) -> anyhow::Result<ColdUrl> {
    text.parse::<ColdUrl>()
        .map_err(|error| anyhow::Error::new(error).context("cold URL"))
        .hint(
            "write file:///dir, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; \
             credentials go into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...)",
        )
        .wrong_usage()
}
