//! One store of a spread: whether it is the one that belongs in this place, and how it fares.
//!
//! Each store holds an object [`PLACE_KEY`] that says of which set it is and in which place. A
//! store is believed only after that was read: an empty mountpoint, a store in the wrong order or
//! of another volume counts as one that does not answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::tier::failure::{FailureKind, TierFailure};
use crate::tier::{Content, Patience, Retry, Tier};

/// Key of the object that says which store of which set it is.
pub const PLACE_KEY: &str = "store.json";

const FORMAT: u32 = 1;
/// Longest [`PLACE_KEY`] that is believed.
const MAX_PLACE_LEN: usize = 4096;

/// A store that failed is asked last for this long.
const SUSPECT_FOR: Duration = Duration::from_secs(10);

/// For shards: the layer above repeats the whole object.
const PATIENCE: Patience = Patience { attempts: 3, deadline: Duration::from_secs(120) };

/// What [`PLACE_KEY`] holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) format: u32,
    /// The volume.
    pub(super) set: String,
    /// From 1.
    pub(super) place: u8,
    pub(super) data: u8,
    pub(super) parity: u8,
    /// It took the place of a lost one, and may lack shards of what was written before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) filling: bool,
}

impl Place {
    pub(super) fn new(set: &str, place: usize, data: u8, parity: u8) -> Self {
        let (set, place) = (set.to_owned(), place as u8 + 1);
        Self { format: FORMAT, set, place, data, parity, filling: false }
    }

    fn text(&self) -> Result<Bytes> {
        let text = serde_json::to_vec(self);
        text.map(Bytes::from).map_err(|error| Error::Config(format!("{PLACE_KEY}: {error}")))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_PLACE_LEN {
            return Err(format!("its {PLACE_KEY} is too long"));
        }
        let place: Self = serde_json::from_slice(bytes).map_err(|error| {
            format!(
                "its {PLACE_KEY} cannot be read ({error}): remove that object, if the store is \
                     the right one, and run `firn check --repair` with `--refill` and its number"
            )
        })?;
        if place.format > FORMAT {
            return Err(format!("its {PLACE_KEY} has the newer format {}", place.format));
        }
        Ok(place)
    }
}

/// Whether a store belongs where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// It does.
    Member,
    /// It says nothing: new, emptied, or not mounted.
    Blank,
    /// It says that it is another one; why, in words.
    Foreign(String),
    /// It does not answer; why, in words.
    Away(String),
}

/// How a store fared when it was asked last, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Where it is.
    pub place: String,
    /// Whether it holds parity.
    pub is_parity: bool,
    /// Whether it was asked yet.
    pub was_asked: bool,
    /// Why it does not serve; `None` when it does.
    pub failure: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// What it says of itself, where that was right.
    place: Option<Place>,
    was_asked: bool,
    failure: Option<String>,
    suspect_until: Option<Instant>,
}

/// One store.
#[derive(Debug)]
pub(super) struct Store {
    tier: Arc<dyn Tier>,
    patient: Retry,
    index: usize,
    state: Mutex<State>,
}

impl Store {
    pub(super) fn new(tier: Arc<dyn Tier>, index: usize) -> Self {
        let patient = Retry::new(Arc::clone(&tier), PATIENCE);
        Self { tier, patient, index, state: Mutex::default() }
    }

    /// Asked once.
    pub(super) fn tier(&self) -> &dyn Tier {
        &*self.tier
    }

    /// Asked a few times.
    pub(super) fn patient(&self) -> &dyn Tier {
        &self.patient
    }

    pub(super) fn describe(&self) -> String {
        self.tier.describe()
    }

    pub(super) fn status(&self, is_parity: bool) -> StoreStatus {
        let state = self.state.lock();
        StoreStatus {
            place: self.describe(),
            is_parity,
            was_asked: state.was_asked,
            failure: state.failure.clone(),
        }
    }

    /// Whether it failed a moment ago.
    pub(super) fn is_suspect(&self) -> bool {
        self.state.lock().suspect_until.is_some_and(|until| Instant::now() < until)
    }

    /// Has it asked last for a while.
    pub(super) fn suspect(&self) {
        self.state.lock().suspect_until = Some(Instant::now() + SUSPECT_FOR);
    }

    /// Remembers how a call ended.
    pub(super) fn note<T>(&self, result: Result<T>) -> Result<T> {
        let failure = result.as_ref().err().filter(|error| is_absence(error));
        let mut state = self.state.lock();
        state.was_asked = true;
        state.failure = failure.map(words);
        state.suspect_until = failure.map(|_| Instant::now() + SUSPECT_FOR);
        drop(state);
        result
    }

    /// Makes sure that it is the store that belongs here.
    pub(super) async fn join(&self, expected: &Place) -> Result<()> {
        if self.state.lock().place.is_some() {
            return Ok(());
        }
        let error = |reason: String| {
            TierFailure::error(FailureKind::Unavailable, "use", &self.describe(), reason)
        };
        let belonging = match self.place().await {
            Ok(Some(place)) => match belonging(&place, expected) {
                Belonging::Member => {
                    self.state.lock().place = Some(place);
                    return Ok(());
                }
                other => other,
            },
            Ok(None) => Belonging::Blank,
            Err(failed) if is_absence(&failed) => return self.note(Err(failed)),
            // What says nonsense is no member either.
            Err(failed) => Belonging::Foreign(words(&failed)),
        };
        match belonging {
            Belonging::Member => Ok(()),
            Belonging::Foreign(why) | Belonging::Away(why) => self.note(Err(error(why))),
            Belonging::Blank => self.note(Err(error(format!(
                "it holds no {PLACE_KEY}: mount its filesystem, or, when it was lost, put an empty \
                 one in its place and run `firn check --repair --refill {}`",
                self.index + 1
            )))),
        }
    }

    /// What it says of itself.
    pub(super) async fn place(&self) -> Result<Option<Place>> {
        match self.tier.get(PLACE_KEY).await {
            Ok(bytes) => Place::parse(&bytes).map(Some).map_err(|reason| {
                TierFailure::error(FailureKind::Rejected, "use", &self.describe(), reason)
            }),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a store that says nothing the one that belongs here. What lies in it must be shards
    /// that belong here, if anything.
    pub(super) async fn found(&self, place: &Place) -> Result<()> {
        let objects = self.tier.list("", None, 1).await?;
        if let Some(object) = objects.first() {
            let header = 0..super::layout::HEADER_LEN as u64;
            let header = self.tier.get_range(&object.key, header).await.ok();
            let layout = header.and_then(|bytes| Layout::parse(&bytes).ok());
            let is_ours = layout.is_some_and(|(layout, shard)| {
                shard == self.index
                    && (layout.shape.data, layout.shape.parity) == (place.data, place.parity)
            });
            if !is_ours {
                return Err(Error::Unusable {
                    tier: self.describe(),
                    reason: format!("it holds {}, and no {PLACE_KEY}", object.key),
                    hint: "name an empty place, such as a new prefix".to_owned(),
                });
            }
        }
        self.note(self.tier.put(PLACE_KEY, place.text()?).await)?;
        self.join(place).await
    }

    /// Whether it was seen to belong here.
    pub(super) fn is_member(&self) -> bool {
        self.state.lock().place.is_some()
    }

    /// Whether it took the place of a lost store and may lack shards.
    pub(super) fn is_filling(&self) -> bool {
        self.state.lock().place.as_ref().is_some_and(|place| place.filling)
    }

    /// Notes that it lacks nothing any more.
    pub(super) async fn filled(&self) -> Result<()> {
        let place = self.state.lock().place.clone();
        let Some(place) = place.filter(|place| place.filling) else { return Ok(()) };
        let place = Place { filling: false, ..place };
        let text = Content::Bytes(place.text()?);
        self.note(self.tier.replace(PLACE_KEY, &text).await)?;
        tracing::info!("{} has a shard of every object again", self.describe());
        self.state.lock().place = Some(place);
        Ok(())
    }
}

/// What a store is that says `found`, where `expected` belongs.
pub(super) fn belonging(found: &Place, expected: &Place) -> Belonging {
    let named = |place: &Place| format!("store {} of {}+{}", place.place, place.data, place.parity);
    if (Place { filling: expected.filling, ..found.clone() }) == *expected {
        Belonging::Member
    } else if found.set != expected.set {
        Belonging::Foreign(format!("it belongs to volume {}, not to {}", found.set, expected.set))
    } else {
        Belonging::Foreign(format!("it is {}, and stands as {}", named(found), named(expected)))
    }
}

/// Whether a store that answered like this is to be counted as one that does not serve. Everything
/// else is an answer, damage included.
pub(super) fn is_absence(error: &Error) -> bool {
    match error {
        Error::TimedOut(_) | Error::Unusable { .. } => true,
        Error::Cold { .. } => TierFailure::of(error).is_none_or(|failure| {
            use FailureKind as Kind;
            !matches!(failure.kind, Kind::Rejected | Kind::Full)
        }),
        _ => false,
    }
}

/// An error with its cause.
pub(super) fn words(error: &Error) -> String {
    match TierFailure::of(error) {
        Some(failure) => failure.message.clone(),
        None => error.to_string(),
    }
}
