//! The cold tier as a volume's configuration names it: opened with the patience of a mount, and
//! asked once whether it answers, so that a wrong URL or missing credentials are one clear error
//! now instead of many later. A store that merely does not answer, and was used before, is no
//! reason not to mount: everything in hot works, and it is asked again in the background
//! ([`contact`]).
//!
//! The object `volume.json` says whose tier it is. It is written when a volume is made, or when it
//! is first mounted with a place that nobody uses, and never changed; two volumes cannot share a
//! place by mistake. Claims below `owner/` say which mount of the volume may change it
//! ([`firn_tiering::tier::owner`]): each one that may write makes its own; until it has, and once it
//! has lost, nothing is stored or deleted.
//!
//! What stands before the store, from outside: encryption, patience, the throttle, the guard of the
//! owner. Whether a volume is encrypted, the configuration and `volume.json` must say alike; so
//! neither of them alone can have plaintext stored.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use firn_tiering::segment::{DATA_START, SegmentHeader, VolumeId};
use firn_tiering::throttle::{Priority, Throttle, ThrottleConfig};
use firn_tiering::tier::owner::{Claimant, NewId};
use firn_tiering::tier::{
    self, Access, Handles, IDENTITY_KEY, Opened, Owned, Ownership, Patience, Retry, Throttled, Tier,
};
use firn_tiering::{Clock, Error, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::config::{ColdDown, ColdUrl, Config, ENCRYPTED_FORMAT, FORMAT};
use crate::failure::{Explain, Failure};
use crate::key::{Seal, sealed};
use crate::volume_dir::{VolumeDir, instance};

pub mod contact;
mod moderation;
mod surroundings;

/// Longest identity that is believed.
const MAX_IDENTITY: usize = 4096;

/// Whose tier it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of everything stored.
    pub format: u32,
    /// The volume.
    pub uuid: Uuid,
}

impl Identity {
    /// Whether what lies there is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.format >= ENCRYPTED_FORMAT
    }
}

/// What opening a cold tier may take for granted.
#[derive(Clone, Debug)]
pub struct Terms {
    /// A place that nobody uses becomes the volume's, and the mount claims it.
    pub may_claim: bool,
    /// The volume has copies in its cold tier: a place that says nothing is not that.
    pub is_used: bool,
    /// It was used with this very place: that may be away for a while.
    pub may_be_away: bool,
    /// The claim of another instance is no obstacle.
    pub takes_over: bool,
    /// Users' reads fail at once while the store is known not to answer.
    pub fails_fast: bool,
    /// Who claims.
    pub claimant: Claimant,
    /// What everything is encrypted with, if it is.
    pub seal: Option<Seal>,
}

impl Terms {
    /// The terms of `volume`, for one that may change the place or only reads. Its key is unlocked.
    pub fn of(volume: &VolumeDir, config: &Config, may_claim: bool) -> anyhow::Result<Self> {
        let seal = Seal::open(volume, config)?;
        let instance = match may_claim {
            true => instance::id_of(volume)?,
            false => "reader".to_owned(),
        };
        Ok(Self {
            may_claim,
            is_used: volume.backup_frontier().exists(),
            may_be_away: false,
            takes_over: false,
            fails_fast: config.cold_down == ColdDown::Fail,
            claimant: claimant(instance),
            seal,
        })
    }

    /// As they are for a mount, which can do without a store that it has used before.
    pub fn for_mount(
        volume: &VolumeDir,
        config: &Config,
        may_claim: bool,
        takes_over: bool,
    ) -> anyhow::Result<Self> {
        let may_be_away = config.cold.as_ref().is_some_and(|url| instance::has_used(volume, url));
        Ok(Self { may_be_away, takes_over, ..Self::of(volume, config, may_claim)? })
    }
}

/// This process, for an instance.
pub fn claimant(instance: String) -> Claimant {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Claimant { instance, host, pid: std::process::id() }
}

/// Ids of claims.
pub fn claim_ids() -> NewId {
    Arc::new(|| Uuid::new_v4().simple().to_string())
}

/// The cold tier of an open volume.
#[derive(Debug)]
pub struct ColdTier {
    handles: Handles,
    throttle: Arc<Throttle>,
    ownership: Arc<Ownership>,
    /// It did not answer when it was opened.
    is_away: bool,
}

impl ColdTier {
    /// With all that stands before the store; it is not asked anything.
    fn before(url: &ColdUrl, terms: &Terms) -> anyhow::Result<Self> {
        let Opened { tier, pauses } = explain(tier::open_once(url.as_str()), url)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = ThrottleConfig { fail_fast: terms.fails_fast, ..ThrottleConfig::default() };
        let inputs = surroundings::inputs(Arc::clone(&clock));
        let throttle = explain(Throttle::new(config, inputs, Arc::clone(&pauses)), url)?;
        let throttle = Arc::new(throttle);
        let claimant = terms.claimant.clone();
        let ownership = Arc::new(match terms.may_claim {
            true => Ownership::new(claimant, clock, claim_ids()),
            false => Ownership::reader(claimant, clock),
        });
        // Innermost, so that every attempt is checked at the moment at which it is made.
        let owned = Arc::new(Owned::new(tier, Arc::clone(&ownership)));
        let throttled = Throttled::new(owned, Arc::clone(&throttle));
        let handles = Handles::new(|priority| {
            // Reads have a deadline of their own; copies of whole segments may take a while.
            let patient = Retry::new(throttled.for_priority(priority), Patience::BACKGROUND);
            sealed(Arc::new(patient.heeding(Arc::clone(&pauses))), terms.seal.as_ref())
        })
        .behind(Arc::clone(&throttle));
        Ok(Self { handles, throttle, ownership, is_away: false })
    }

    /// `tier` as it is, for tests of what is above it.
    #[cfg(test)]
    pub(crate) fn plain(tier: Arc<dyn Tier>) -> Arc<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ownership =
            Arc::new(Ownership::reader(claimant("test".to_owned()), Arc::clone(&clock)));
        let inputs = firn_tiering::throttle::Inputs::of_clock(clock);
        let throttle = Throttle::new(ThrottleConfig::default(), inputs, Arc::default());
        let throttle = Arc::new(throttle.expect("the default settings make sense"));
        Arc::new(Self { handles: tier.into(), throttle, ownership, is_away: false })
    }

    /// For calls of this priority.
    pub fn at(&self, priority: Priority) -> &Arc<dyn Tier> {
        self.handles.at(priority)
    }

    /// For all priorities.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// What stands before the store.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Whether the place is this mount's.
    pub fn ownership(&self) -> &Arc<Ownership> {
        &self.ownership
    }

    /// It did not answer when it was opened: [`contact`] goes on trying.
    pub fn is_away(&self) -> bool {
        self.is_away
    }
}

/// Opens the cold tier of a volume and asks it something. A place that is not the volume's is
/// refused: another's, or an empty mountpoint.
pub fn open(config: &Config, terms: &Terms, runtime: &Runtime) -> anyhow::Result<Option<ColdTier>> {
    let Some(url) = &config.cold else { return Ok(None) };
    let mut cold = ColdTier::before(url, terms)?;
    match make_contact(config, url, terms, &cold.ownership, runtime) {
        Ok(()) => {}
        Err(error) if terms.may_be_away && contact::is_absence(&error) => {
            let why = Failure::new(&error).message;
            tracing::warn!("mounting without the cold tier: {why}");
            cold.is_away = true;
        }
        Err(error) => return Err(error),
    }
    Ok(Some(cold))
}

/// Asks a store whose it is, with little patience, and claims it.
fn make_contact(
    config: &Config,
    url: &ColdUrl,
    terms: &Terms,
    ownership: &Ownership,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let tier = explain(tier::open_tier(url.as_str(), Patience::PROBE), url)?;
    let tier = sealed(tier, terms.seal.as_ref());
    let tier = tier.as_ref();
    // Asked first as it is: its error says whether the store is there at all.
    if let Err(error) = runtime.block_on(tier.list("", None, 1)).map_err(contact::Absence::sort) {
        return Err(error).with_context(|| format!("cold tier {url}")).hint(
            "check that the store runs and can be reached from here (endpoint, network, proxy)",
        );
    }
    explain(runtime.block_on(tier::probe_tier(tier, Access::Read)), url)?;
    let found = identity(url, tier, runtime)?;
    check_agreement(config, found.as_ref(), url)?;
    let mut owner = found.map(|identity| identity.uuid);
    if owner.is_none() {
        owner = holder(url, tier, runtime)?;
        if owner.is_none() && terms.is_used {
            return Err(anyhow!("holds no {IDENTITY_KEY}, and backups were made to it"))
                .with_context(|| format!("cold tier {url}"))
                .hint("mount the filesystem that it lies on, or correct `cold` in firn.toml");
        }
        let is_free = match owner {
            None => is_empty(url, tier, runtime)?,
            Some(owner) => owner == config.uuid,
        };
        if is_free && terms.may_claim {
            claim(url, tier, config, terms.seal.as_ref(), runtime)?;
            // Where two ask at the same instant, whoever is named now has it.
            owner = identity(url, tier, runtime)?.map(|identity| identity.uuid);
        }
    }
    if let Some(owner) = owner.filter(|owner| *owner != config.uuid) {
        return Err(anyhow!("belongs to volume {owner}, not to {}", config.uuid))
            .with_context(|| format!("cold tier {url}"))
            .hint("`cold` in firn.toml names another volume's place");
    }
    if terms.may_claim {
        explain(runtime.block_on(ownership.claim(tier, terms.takes_over)), url)?;
        if let Some(seal) = &terms.seal {
            explain(runtime.block_on(seal.publish(tier)), url)?;
        }
    }
    Ok(())
}

/// Refuses a place that is encrypted where the volume is not, and the other way round.
fn check_agreement(config: &Config, found: Option<&Identity>, url: &ColdUrl) -> anyhow::Result<()> {
    let says = |is_encrypted| if is_encrypted { "is encrypted" } else { "is not encrypted" };
    match found.filter(|identity| identity.uuid == config.uuid).map(Identity::is_encrypted) {
        Some(there) if there != config.is_encrypted() => Err(anyhow!(
            "{}, and the volume {}",
            says(there),
            says(config.is_encrypted())
        ))
        .with_context(|| format!("cold tier {url}"))
        .hint(
            "encryption is chosen when a volume is made: correct `format` and `key` in firn.toml",
        ),
        _ => Ok(()),
    }
}

/// Whose the first segment is in a place that nobody has claimed; `None` when there is none that
/// says so.
fn holder(url: &ColdUrl, tier: &dyn Tier, runtime: &Runtime) -> anyhow::Result<Option<Uuid>> {
    let first = explain(runtime.block_on(tier.list("segments/", None, 1)), url)?;
    let Some(segment) = first.first().filter(|segment| segment.len >= DATA_START) else {
        return Ok(None);
    };
    let page = explain(runtime.block_on(tier.get_range(&segment.key, 0..DATA_START)), url)?;
    let VolumeId(volume) = match SegmentHeader::from_bytes(&page) {
        Ok(header) => header.name.volume,
        Err(_) => return Ok(None),
    };
    Ok(Some(Uuid::from_bytes(volume)))
}

/// Whether nothing lies there. What does, and says not whose it is, may be this volume's.
fn is_empty(url: &ColdUrl, tier: &dyn Tier, runtime: &Runtime) -> anyhow::Result<bool> {
    let first = explain(runtime.block_on(tier.list("", None, 1)), url)?;
    if let Some(object) = first.first() {
        tracing::warn!(%url, found = object.key, "the cold tier is in use and says not by whom");
    }
    Ok(first.is_empty())
}

/// Opens a tier with the patience of work in the background, encrypted where it is.
pub fn open_patiently(url: &ColdUrl, seal: Option<&Seal>) -> anyhow::Result<Arc<dyn Tier>> {
    let tier = explain(tier::open_tier(url.as_str(), Patience::BACKGROUND), url)?;
    Ok(sealed(tier, seal))
}

/// Makes what can be made before first use, tries the store with a small object, and refuses a
/// place that is not empty. For [`claim`] alone: nothing is encrypted on this way.
pub fn prepare(url: &ColdUrl, runtime: &Runtime) -> anyhow::Result<Arc<dyn Tier>> {
    explain(tier::prepare_tier(url.as_str()), url)?;
    let tier = probe(url, Access::Write, runtime)?;
    let owner = identity(url, tier.as_ref(), runtime)?;
    let taken = match owner {
        Some(identity) => Some(format!("belongs to volume {} already", identity.uuid)),
        None => {
            let first = explain(runtime.block_on(tier.list("", None, 1)), url)?;
            first.first().map(|object| format!("is not empty: it holds {}", object.key))
        }
    };
    match taken {
        None => Ok(tier),
        Some(taken) => Err(anyhow!(taken)).with_context(|| format!("cold tier {url}")).hint(
            "name an empty place, such as a new prefix; `firn recover` makes a volume from an \
             existing cold tier",
        ),
    }
}

/// Writes down whose tier it is; before that, the wrapped key without which nobody could read it.
pub fn claim(
    url: &ColdUrl,
    tier: &dyn Tier,
    config: &Config,
    seal: Option<&Seal>,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    if let Some(seal) = seal {
        explain(runtime.block_on(seal.publish(tier)), url)?;
    }
    let text = serde_json::to_vec(&Identity { format: config.format, uuid: config.uuid })?;
    explain(runtime.block_on(tier.put(IDENTITY_KEY, Bytes::from(text))), url)
}

/// Takes back what [`claim`] wrote.
pub fn unclaim(tier: &dyn Tier, seal: Option<&Seal>, runtime: &Runtime) {
    if let Err(error) = runtime.block_on(tier.delete(IDENTITY_KEY)) {
        tracing::warn!(%error, "{IDENTITY_KEY} stays in the cold tier");
    }
    if let Some(Err(error)) = seal.map(|seal| runtime.block_on(seal.withdraw(tier))) {
        tracing::warn!(%error, "a wrapped key stays in the cold tier");
    }
}

/// Whose tier it is; `None` when nobody has said.
pub fn identity(
    url: &ColdUrl,
    tier: &dyn Tier,
    runtime: &Runtime,
) -> anyhow::Result<Option<Identity>> {
    let bytes = match runtime.block_on(tier.get(IDENTITY_KEY)) {
        Ok(bytes) => bytes,
        Err(Error::NotFound(_)) => return Ok(None),
        other => explain(other, url)?,
    };
    let what = || format!("{IDENTITY_KEY} in cold tier {url}");
    if bytes.len() > MAX_IDENTITY {
        return Err(anyhow!("is no volume's identity")).with_context(what);
    }
    let identity: Identity = serde_json::from_slice(&bytes).with_context(what)?;
    if identity.format > FORMAT {
        return Err(anyhow!(
            "has format version {}, this program knows up to {FORMAT}",
            identity.format
        ))
        .with_context(|| format!("cold tier {url}"))
        .hint("use a newer firn");
    }
    Ok(Some(identity))
}

/// Opens the store with little patience and tries it. For what is in the clear.
pub fn probe(url: &ColdUrl, access: Access, runtime: &Runtime) -> anyhow::Result<Arc<dyn Tier>> {
    let tier = explain(tier::open_tier(url.as_str(), Patience::PROBE), url)?;
    explain(runtime.block_on(tier::probe_tier(tier.as_ref(), access)), url)?;
    Ok(tier)
}

/// Says which tier failed, and what can be done about it.
fn explain<T>(result: Result<T, Error>, url: &ColdUrl) -> anyhow::Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => {
            let hint = error.hint().map_or_else(
                || "check the URL, the credentials in the environment, and the network".to_owned(),
                ToOwned::to_owned,
            );
            // The error names the tier itself where it is the tier's.
            let named = matches!(error, Error::Unusable { .. });
            let result = Err::<T, _>(anyhow::Error::new(error)).hint(hint);
            if named { result } else { result.with_context(|| format!("cold tier {url}")) }
        }
    }
}

#[cfg(test)]
mod tests;
