//! The stores of a cold tier: one, or several over which every object is spread. Here, and only
//! here, they are opened, so that the mount, checks, backups and recovery see the same thing.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use firn_tiering::tier::spread::Belonging;
use firn_tiering::tier::{self, Late, Opened, Opener, Patience, Pauses, Retry, Spread, Tier};
use firn_tiering::{Clock, Error, Result, SystemClock};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::config::{ColdUrls, Config};

/// How long the stores of several are waited for when they are opened.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

/// The stores of a cold tier, and how objects are spread over them.
#[derive(Clone, Debug)]
pub struct ColdSet {
    urls: ColdUrls,
    parity: u8,
    least: Option<u8>,
    volume: Option<Uuid>,
    staging: Option<PathBuf>,
}

/// A cold tier without anything before it.
#[derive(Debug)]
pub struct Raw {
    /// The tier.
    pub tier: Arc<dyn Tier>,
    /// When it asks to be left alone. Of several stores each is left alone by itself.
    pub pauses: Arc<Pauses>,
    /// The same, where it is several stores.
    pub spread: Option<Arc<Spread>>,
}

impl ColdSet {
    /// Those of a volume; `None` without a cold tier.
    pub fn of(config: &Config) -> Option<Self> {
        let urls = config.cold.clone()?;
        let (parity, least) = (config.cold_parity, config.cold_least_stores);
        let parity = parity.unwrap_or(0);
        Some(Self { urls, parity, least, volume: Some(config.uuid), staging: None })
    }

    /// Those of a volume that is not known yet.
    pub fn unknown(urls: ColdUrls, parity: u8) -> Self {
        Self { urls, parity, least: None, volume: None, staging: None }
    }

    /// Shards of long objects lie in `dir` before they are stored.
    pub fn with_staging(self, dir: PathBuf) -> Self {
        Self { staging: Some(dir), ..self }
    }

    /// Opens them without patience; nothing is asked of them. Of several, as many may fail to open,
    /// or hang, as there is parity: they are tried again whenever they are needed.
    pub fn open_once(&self) -> Result<Raw> {
        if !self.urls.are_several() {
            let Opened { tier, pauses } = tier::open_once(self.urls.first().as_str())?;
            return Ok(Raw { tier, pauses, spread: None });
        }
        let openers: Vec<_> = self.urls.iter().map(|url| opener(url.as_str().to_owned())).collect();
        let attempts: Vec<_> = openers.iter().map(attempt).collect();
        let until = SystemClock.instant() + OPENS_WITHIN;
        let (mut stores, mut failures) = (Vec::new(), Vec::new());
        for (opener, attempt) in openers.into_iter().zip(attempts) {
            let left = until.saturating_duration_since(SystemClock.instant());
            let hangs = |_| Err(Error::TimedOut("opening a store of the cold tier"));
            match attempt.recv_timeout(left).unwrap_or_else(hangs) {
                Ok(store) => stores.push(store),
                Err(error) => {
                    let place = stores.len() + 1;
                    tracing::warn!("store {place} of the cold tier cannot be opened: {error}");
                    let late = Late::new(self.urls.name(stores.len()), opener);
                    stores.push(Arc::new(late) as Arc<dyn Tier>);
                    failures.push(error);
                }
            }
        }
        if failures.len() > usize::from(self.parity)
            && let Some(first) = failures.into_iter().next()
        {
            return Err(first);
        }
        let volume = self.volume.map(|uuid| uuid.to_string());
        let mut spread = Spread::new(stores, usize::from(self.parity), volume)?;
        if let Some(least) = self.least {
            spread = spread.with_least(usize::from(least))?;
        }
        if let Some(dir) = &self.staging {
            spread = spread.with_staging(dir);
        }
        let spread = Arc::new(spread);
        let tier = Arc::clone(&spread) as Arc<dyn Tier>;
        Ok(Raw { tier, pauses: Arc::default(), spread: Some(spread) })
    }

    /// Opens them with patience.
    pub fn open(&self, patience: Patience) -> Result<Raw> {
        let Raw { tier, pauses, spread } = self.open_once()?;
        let tier = Arc::new(Retry::new(tier, patience).heeding(Arc::clone(&pauses)));
        Ok(Raw { tier, pauses, spread })
    }

    /// Makes what can be made before first use.
    pub fn prepare(&self) -> Result<()> {
        self.urls.iter().try_for_each(|url| tier::prepare_tier(url.as_str()))
    }

    /// The same for those in these places, from 0.
    pub fn prepare_some(&self, places: &[usize]) -> Result<()> {
        let urls = self.urls.iter().enumerate().filter(|(at, _)| places.contains(at));
        urls.into_iter().try_for_each(|(_, url)| tier::prepare_tier(url.as_str()))
    }
}

/// Stores that are being opened by this process. One that hangs keeps a thread, and only one.
static BEING_OPENED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Opens a store, if nobody does; its pauses are heeded by its own patience.
fn opener(url: String) -> Opener {
    Arc::new(move || {
        if !BEING_OPENED.lock().insert(url.clone()) {
            return Err(Error::TimedOut("opening a store that hangs"));
        }
        let opened = tier::open_once(&url);
        BEING_OPENED.lock().remove(&url);
        opened.map(|opened| opened.tier)
    })
}

/// Opens a store on a thread of its own.
fn attempt(opener: &Opener) -> mpsc::Receiver<Result<Arc<dyn Tier>>> {
    let (opener, (told, attempt)) = (Arc::clone(opener), mpsc::sync_channel(1));
    let failed = told.clone();
    let thread = std::thread::Builder::new().name("firn-open".to_owned()).spawn(move || {
        // Nobody may listen any more.
        let _ = told.send(opener());
    });
    if let Err(error) = thread {
        let _ = failed.send(Err(Error::io("start a thread that opens a store")(error)));
    }
    attempt
}

impl fmt::Display for ColdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.urls.fmt(f)
    }
}

/// What may become of stores that say nothing of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank<'a> {
    /// They count as absent.
    Absent,
    /// They become part of the set when no store belongs to one yet.
    First,
    /// Those in these places, from 0, take the place of lost ones.
    Lost(&'a [usize]),
}

/// Looks whether every store belongs where it stands. One of another volume, or in a wrong place, is
/// refused; of those that are away or blank only too many are an error, later.
pub(super) async fn inspect(spread: &Spread, blank: Blank<'_>) -> Result<()> {
    let survey = spread.survey().await;
    for (store, belonging) in spread.stores().iter().zip(&survey) {
        if let Belonging::Foreign(why) = belonging {
            return Err(Error::Unusable {
                tier: store.place.clone(),
                reason: why.clone(),
                hint: "name all stores in the order in which the volume was made with them, and \
                       its cold_parity"
                    .to_owned(),
            });
        }
    }
    let are_unused = survey.iter().all(|belonging| *belonging == Belonging::Blank);
    let founded = match blank {
        Blank::First if are_unused => spread.found().await?,
        Blank::Lost(places) if !are_unused => spread.refill(places).await?,
        _ => 0,
    };
    if founded > 0 {
        tracing::warn!(founded, "stores of the cold tier were begun");
    }
    Ok(())
}
