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

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use firn_tiering::segment::{DATA_START, SegmentHeader, VolumeId};
use firn_tiering::throttle::{Priority, Throttle, ThrottleConfig};
use firn_tiering::tier::owner::{Claimant, NewId};
use firn_tiering::tier::{
    self, Access, Handles, IDENTITY_KEY, Owned, Ownership, Patience, Retry, Spread, Throttled, Tier,
};
use firn_tiering::{Clock, Error, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::config::{ColdDown, ColdUrls, Config, ENCRYPTED_FORMAT, FORMAT};
use crate::failure::{Explain, Failure};
use crate::key::{Seal, sealed};
use crate::volume_dir::{VolumeDir, instance};

pub mod contact;
mod moderation;
mod set;
mod surroundings;

use set::{Blank, inspect};
pub use set::{ColdSet, Raw};

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
    /// Of several stores, blank ones in these places, from 0, take the place of lost ones.
    pub refills: Vec<usize>,
    /// Where shards lie before they are stored.
    pub staging: Option<PathBuf>,
    /// Who claims.
    pub claimant: Claimant,
    /// What everything is encrypted with, if it is.
    pub seal: Option<Seal>,
}

impl Terms {
    /// The terms of `volume`, for one that may change the place or only reads. Its key is unlocked.
    pub fn of(volume: &VolumeDir, config: &Config, may_claim: bool) -> anyhow::Result<Self> {
        let seal = Seal::open(volume, config, || {
            let set = ColdSet::of(config).context("there is no cold tier")?;
            Ok(explain(set.open(Patience::PROBE), &set)?.tier)
        })?;
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
            refills: Vec::new(),
            staging: Some(config.hot_dir(volume.root()).join("tmp")),
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
        let may_be_away = config.cold.as_ref().is_some_and(|urls| instance::has_used(volume, urls));
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
    /// The tier itself, where it is several stores.
    spread: Option<Arc<Spread>>,
    /// It did not answer when it was opened.
    is_away: bool,
    /// Users' reads fail at once while it does not answer, unless the policy says otherwise.
    fails_fast: bool,
}

impl ColdTier {
    /// With all that stands before the store; it is not asked anything.
    fn before(set: &ColdSet, terms: &Terms) -> anyhow::Result<Self> {
        let Raw { tier, pauses, spread } = explain(set.open_once(), set)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = ThrottleConfig { fail_fast: terms.fails_fast, ..ThrottleConfig::default() };
        let inputs = surroundings::inputs(Arc::clone(&clock));
        let throttle = explain(Throttle::new(config, inputs, Arc::clone(&pauses)), set)?;
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
        let fails_fast = terms.fails_fast;
        Ok(Self { handles, throttle, ownership, spread, is_away: false, fails_fast })
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
        let handles = tier.into();
        let (is_away, fails_fast) = (false, false);
        Arc::new(Self { handles, throttle, ownership, spread: None, is_away, fails_fast })
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

    /// The tier itself, where it is several stores.
    pub fn spread(&self) -> Option<&Arc<Spread>> {
        self.spread.as_ref()
    }

    /// It did not answer when it was opened: [`contact`] goes on trying.
    pub fn is_away(&self) -> bool {
        self.is_away
    }
}

/// Opens the cold tier of a volume and asks it something. A place that is not the volume's is
/// refused: another's, or an empty mountpoint.
pub fn open(config: &Config, terms: &Terms, runtime: &Runtime) -> anyhow::Result<Option<ColdTier>> {
    let Some(mut set) = ColdSet::of(config) else { return Ok(None) };
    if let Some(dir) = &terms.staging {
        set = set.with_staging(dir.clone());
    }
    if !terms.refills.is_empty() {
        if !config.cold.as_ref().is_some_and(ColdUrls::are_several) {
            return Err(anyhow!("is one store, of which no part can be filled again"))
                .with_context(|| format!("cold tier {set}"));
        }
        explain(set.prepare_some(&terms.refills), &set)?;
    }
    let mut cold = ColdTier::before(&set, terms)?;
    match make_contact(config, &set, terms, &cold.ownership, runtime) {
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
    set: &ColdSet,
    terms: &Terms,
    ownership: &Ownership,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let Raw { tier, spread, .. } = explain(set.open(Patience::PROBE), set)?;
    let tier = sealed(tier, terms.seal.as_ref());
    let tier = tier.as_ref();
    if let Some(spread) = &spread {
        let may_begin = terms.may_claim && !terms.is_used;
        let blank = if may_begin { Blank::First } else { Blank::Absent };
        explain(runtime.block_on(inspect(spread, blank)), set)?;
    }
    // Asked first as it is: its error says whether the store is there at all.
    if let Err(error) = runtime.block_on(tier.list("", None, 1)).map_err(contact::Absence::sort) {
        return Err(error).with_context(|| format!("cold tier {set}")).hint(
            "check that the store runs and can be reached from here (endpoint, network, proxy)",
        );
    }
    explain(runtime.block_on(tier::probe_tier(tier, Access::Read)), set)?;
    let found = identity(set, tier, runtime)?;
    check_agreement(config, found.as_ref(), set)?;
    let mut owner = found.map(|identity| identity.uuid);
    if owner.is_none() {
        owner = holder(set, tier, runtime)?;
        if owner.is_none() && terms.is_used {
            return Err(anyhow!("holds no {IDENTITY_KEY}, and backups were made to it"))
                .with_context(|| format!("cold tier {set}"))
                .hint("mount the filesystem that it lies on, or correct `cold` in firn.toml");
        }
        let is_free = match owner {
            None => is_empty(set, tier, runtime)?,
            Some(owner) => owner == config.uuid,
        };
        if is_free && terms.may_claim {
            claim(set, tier, config, terms.seal.as_ref(), runtime)?;
            // Where two ask at the same instant, whoever is named now has it.
            owner = identity(set, tier, runtime)?.map(|identity| identity.uuid);
        }
    }
    if let Some(owner) = owner.filter(|owner| *owner != config.uuid) {
        return Err(anyhow!("belongs to volume {owner}, not to {}", config.uuid))
            .with_context(|| format!("cold tier {set}"))
            .hint("`cold` in firn.toml names another volume's place");
    }
    if terms.may_claim {
        explain(runtime.block_on(ownership.claim(tier, terms.takes_over)), set)?;
        if let Some(seal) = &terms.seal {
            explain(runtime.block_on(seal.publish(tier)), set)?;
        }
    }
    if let Some(spread) = spread.filter(|_| terms.may_claim && !terms.refills.is_empty()) {
        explain(runtime.block_on(inspect(&spread, Blank::Lost(&terms.refills))), set)?;
    }
    Ok(())
}

/// Refuses a place that is encrypted where the volume is not, and the other way round.
fn check_agreement(config: &Config, found: Option<&Identity>, set: &ColdSet) -> anyhow::Result<()> {
    let says = |is_encrypted| if is_encrypted { "is encrypted" } else { "is not encrypted" };
    match found.filter(|identity| identity.uuid == config.uuid).map(Identity::is_encrypted) {
        Some(there) if there != config.is_encrypted() => Err(anyhow!(
            "{}, and the volume {}",
            says(there),
            says(config.is_encrypted())
        ))
        .with_context(|| format!("cold tier {set}"))
        .hint(
            "encryption is chosen when a volume is made: correct `format` and `key` in firn.toml",
        ),
        _ => Ok(()),
    }
}

/// Whose the first segment is in a place that nobody has claimed; `None` when there is none that
/// says so.
fn holder(set: &ColdSet, tier: &dyn Tier, runtime: &Runtime) -> anyhow::Result<Option<Uuid>> {
    let first = explain(runtime.block_on(tier.list("segments/", None, 1)), set)?;
    let Some(segment) = first.first().filter(|segment| segment.len >= DATA_START) else {
        return Ok(None);
    };
    let page = explain(runtime.block_on(tier.get_range(&segment.key, 0..DATA_START)), set)?;
    let VolumeId(volume) = match SegmentHeader::from_bytes(&page) {
        Ok(header) => header.name.volume,
        Err(_) => return Ok(None),
    };
    Ok(Some(Uuid::from_bytes(volume)))
}

/// Whether nothing lies there. What does, and says not whose it is, may be this volume's.
fn is_empty(set: &ColdSet, tier: &dyn Tier, runtime: &Runtime) -> anyhow::Result<bool> {
    let first = explain(runtime.block_on(tier.list("", None, 1)), set)?;
    if let Some(object) = first.first() {
        tracing::warn!(%set, found = object.key, "the cold tier is in use and says not by whom");
    }
    Ok(first.is_empty())
}

/// Opens a tier with the patience of work in the background, encrypted where it is.
pub fn open_patiently(set: &ColdSet, seal: Option<&Seal>) -> anyhow::Result<Arc<dyn Tier>> {
    Ok(sealed(explain(set.open(Patience::BACKGROUND), set)?.tier, seal))
}

/// Makes what can be made before first use, tries the store with a small object, and refuses a
/// place that is not empty. For [`Prepared::claim`] alone: nothing is encrypted on this way.
pub fn prepare(set: &ColdSet, runtime: &Runtime) -> anyhow::Result<Prepared> {
    explain(set.prepare(), set)?;
    let Raw { tier, spread, .. } = explain(set.open(Patience::PROBE), set)?;
    if let Some(spread) = &spread {
        explain(runtime.block_on(inspect(spread, Blank::First)), set)?;
    }
    let prepared = try_first(set, &tier, runtime);
    if let (Err(_), Some(spread)) = (&prepared, &spread) {
        runtime.block_on(spread.unfound());
    }
    prepared.map(|()| Prepared { tier, spread })
}

/// Tries a place with a small object, and refuses one that is not empty.
fn try_first(set: &ColdSet, tier: &Arc<dyn Tier>, runtime: &Runtime) -> anyhow::Result<()> {
    explain(runtime.block_on(tier::probe_tier(tier.as_ref(), Access::Write)), set)?;
    let owner = identity(set, tier.as_ref(), runtime)?;
    let taken = match owner {
        Some(identity) => Some(format!("belongs to volume {} already", identity.uuid)),
        None => {
            let first = explain(runtime.block_on(tier.list("", None, 1)), set)?;
            first.first().map(|object| format!("is not empty: it holds {}", object.key))
        }
    };
    match taken {
        None => Ok(()),
        Some(taken) => Err(anyhow!(taken)).with_context(|| format!("cold tier {set}")).hint(
            "name an empty place, such as a new prefix; `firn recover` makes a volume from an \
             existing cold tier",
        ),
    }
}

/// A place that is ready to become a volume's.
#[derive(Debug)]
pub struct Prepared {
    tier: Arc<dyn Tier>,
    spread: Option<Arc<Spread>>,
}

impl Prepared {
    /// Writes down whose tier it is.
    pub fn claim(
        &self,
        set: &ColdSet,
        config: &Config,
        seal: Option<&Seal>,
        runtime: &Runtime,
    ) -> anyhow::Result<()> {
        claim(set, self.tier.as_ref(), config, seal, runtime)
    }

    /// Takes back what [`Prepared::claim`] and [`prepare`] wrote.
    pub fn unclaim(&self, seal: Option<&Seal>, runtime: &Runtime) {
        if let Err(error) = runtime.block_on(self.tier.delete(IDENTITY_KEY)) {
            tracing::warn!(%error, "{IDENTITY_KEY} stays in the cold tier");
        }
        let withdrawn = seal.map(|seal| runtime.block_on(seal.withdraw(self.tier.as_ref())));
        if let Some(Err(error)) = withdrawn {
            tracing::warn!(%error, "a wrapped key stays in the cold tier");
        }
        if let Some(spread) = &self.spread {
            runtime.block_on(spread.unfound());
        }
    }
}

/// Writes down whose tier it is; before that, the wrapped key without which nobody could read it.
fn claim(
    set: &ColdSet,
    tier: &dyn Tier,
    config: &Config,
    seal: Option<&Seal>,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    if let Some(seal) = seal {
        explain(runtime.block_on(seal.publish(tier)), set)?;
    }
    let text = serde_json::to_vec(&Identity { format: config.format, uuid: config.uuid })?;
    explain(runtime.block_on(tier.put(IDENTITY_KEY, Bytes::from(text))), set)
}

/// Whose tier it is; `None` when nobody has said.
pub fn identity(
    set: &ColdSet,
    tier: &dyn Tier,
    runtime: &Runtime,
) -> anyhow::Result<Option<Identity>> {
    let bytes = match runtime.block_on(tier.get(IDENTITY_KEY)) {
        Ok(bytes) => bytes,
        Err(Error::NotFound(_)) => return Ok(None),
        other => explain(other, set)?,
    };
    let what = || format!("{IDENTITY_KEY} in cold tier {set}");
    if bytes.len() > MAX_IDENTITY {
        return Err(anyhow!("is no volume's identity")).with_context(what);
    }
    let identity: Identity = serde_json::from_slice(&bytes).with_context(what)?;
    if identity.format > FORMAT {
        return Err(anyhow!(
            "has format version {}, this program knows up to {FORMAT}",
            identity.format
        ))
        .with_context(|| format!("cold tier {set}"))
        .hint("use a newer firn");
    }
    Ok(Some(identity))
}

/// Opens the store with little patience and tries it. For what is in the clear.
pub fn probe(set: &ColdSet, access: Access, runtime: &Runtime) -> anyhow::Result<Arc<dyn Tier>> {
    let Raw { tier, spread, .. } = explain(set.open(Patience::PROBE), set)?;
    if let Some(spread) = &spread {
        explain(runtime.block_on(inspect(spread, Blank::Absent)), set)?;
    }
    explain(runtime.block_on(tier::probe_tier(tier.as_ref(), access)), set)?;
    Ok(tier)
}

/// Says which tier failed, and what can be done about it.
fn explain<T>(result: Result<T, Error>, set: &ColdSet) -> anyhow::Result<T> {
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
            if named { result } else { result.with_context(|| format!("cold tier {set}")) }
        }
    }
}

#[cfg(test)]
mod tests;
