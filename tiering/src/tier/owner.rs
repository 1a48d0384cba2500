//! Whose a place in the cold tier is: two mounts can never own one volume's objects at a time.
//!
//! *Claims*: immutable objects `owner/<epoch>-<id>`, each written once, under a key that nobody else
//! ever uses; the highest epoch has the place. Bytes: `FORMAT.md`, "Owner claims". *Claiming* is
//! the bakery's way (Lamport 1974) without a compare-and-swap, since some stores ignore conditional
//! writes and some race at them: list; refuse when the highest is another instance's; write one's
//! own with the next epoch; list again, and lose when anybody else's is there with that epoch or a
//! higher one. Of two that write at once, at least one sees the other; where both do, both withdraw
//! and try again. All that is asked of a store is that a listing holds what was stored before it
//! began. After it has won, a claim loses to higher epochs only: whoever ties has seen it and lost.
//! *Takeover* skips the refusal, and waits as long as the last owner may still believe itself one; the
//! claims that it beat stay for so long, so that a mount after one that ended while it waited waits too.
//! *Every mount* claims anew, so that also a copy of a whole machine is told from the original.
//!
//! *Guard*: [`Owned`] lets nobody delete who has not seen within [`DELETE_LEAVE`], by the monotonic
//! and by the wall clock, that its claim is the highest, and nobody store for whom that is longer ago
//! than [`PUT_LEAVE`]. What it cannot see it does not assume: a listing that fails is a refusal that
//! may pass. A claim that lost stays lost until the next mount. What remains is a process that
//! stands still between its look and its request for longer than the takeover waits.
//! *Crash*: a claim that was written and not won stays, and is an obstacle only to other instances;
//! the next owner removes it, and the present one when it looks.

pub(super) mod claim;
mod owned;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Tier;
use super::failure::{FailureKind, TierFailure};
use crate::clock::Clock;
use crate::error::{Error, Result};

pub use claim::{CLAIMS, Claim};
pub use owned::Owned;

/// How long the sight of one's own claim is leave to delete.
pub const DELETE_LEAVE: Duration = Duration::from_secs(2);
/// ... and to store: what a stranger stores under a key of its own harms nobody.
pub const PUT_LEAVE: Duration = Duration::from_secs(20);

/// How long one attempt to delete may take, its waiting for a store that asks for a pause included.
pub const DELETE_TIME: Duration = Duration::from_secs(10);

/// Claims looked at; there are two or three.
const MAX_CLAIMS: usize = 1000;

/// Attempts when several claim at once.
const ATTEMPTS: u32 = 8;

/// Who claims.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// The volume directory, by an id that no copy of it shares.
    pub instance: String,
    /// The machine, for people.
    pub host: String,
    /// The process, for people.
    pub pid: u32,
}

/// A claim that nobody was before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Won {
    claim: Claim,
    seen: (Instant, SystemTime),
    /// Epochs and ids of the claims below it.
    beaten: Vec<(u64, String)>,
    /// Whether another instance may still believe itself the owner.
    is_taken: bool,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is ours.
    Won(Won),
    /// Another instance has it. `None`: a claim that says not whose it is.
    Held(Option<Claim>),
    /// Somebody else claims at this moment; to be tried again.
    Contended,
}

/// Whose a claim is.
enum Whose {
    Ours,
    /// Another instance's. `None`: it says not whose.
    Others(Option<Claim>),
    /// It is not there any more.
    Gone,
}

/// Ids for claims: 32 hexadecimal digits that never come twice.
pub type NewId = Arc<dyn Fn() -> String + Send + Sync>;

/// The right to a place in the cold tier, as far as this process has it.
pub struct Ownership {
    claimant: Claimant,
    clock: Arc<dyn Clock>,
    new_id: NewId,
    state: Mutex<State>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nobody has asked yet, or the store did not answer.
    Unknown,
    /// Nothing is to be changed.
    Reader,
    Ours {
        claim: Claim,
        seen: (Instant, SystemTime),
    },
    Lost(String),
}

/// The state of an [`Ownership`], for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The place is ours.
    Ours,
    /// It is not known yet.
    Unknown,
    /// Nothing may be changed: opened for reading.
    Reader,
    /// Somebody else has it now; who, in words.
    Lost(String),
}

impl std::fmt::Debug for Ownership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ownership")
            .field("claimant", &self.claimant)
            .field("state", &*self.state.lock())
            .finish_non_exhaustive()
    }
}

impl Ownership {
    /// Nothing is ours yet: whatever changes the store is refused until [`Ownership::claim`].
    pub fn new(claimant: Claimant, clock: Arc<dyn Clock>, new_id: NewId) -> Self {
        let (state, looking) = (Mutex::new(State::Unknown), tokio::sync::Mutex::default());
        Self { claimant, clock, new_id, state, looking }
    }

    /// Nothing is claimed and nothing may be changed.
    pub fn reader(claimant: Claimant, clock: Arc<dyn Clock>) -> Self {
        let this = Self::new(claimant, clock, Arc::new(String::new));
        *this.state.lock() = State::Reader;
        this
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        match &*self.state.lock() {
            State::Unknown => Standing::Unknown,
            State::Reader => Standing::Reader,
            State::Ours { .. } => Standing::Ours,
            State::Lost(why) => Standing::Lost(why.clone()),
        }
    }

    /// Claims the place in `tier`, which is the store itself without an [`Owned`]. Tries again while
    /// others claim too. [`Error::Unusable`] when another instance has it and `takes_over` is not
    /// said. Errors of the store leave everything as it was, at worst with a claim that nobody won.
    pub async fn claim(&self, tier: &dyn Tier, takes_over: bool) -> Result<Claim> {
        let mut jitter = super::Jitter::from_process();
        for attempt in 0..ATTEMPTS {
            match self.claim_once(tier, takes_over).await? {
                Verdict::Won(won) => {
                    if won.is_taken {
                        // Whoever was the owner may believe so for a while.
                        tokio::time::sleep(DELETE_LEAVE + DELETE_TIME).await;
                    }
                    return self.take_place(tier, won).await;
                }
                Verdict::Held(holder) => return Err(held(tier, holder.as_ref())),
                Verdict::Contended => {
                    let most = 200 << attempt;
                    let pause = Duration::from_millis(50 + jitter.next_u64() % most);
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Err(Error::Unusable {
            tier: tier.describe(),
            reason: "others claim it at the same time, again and again".to_owned(),
            hint: "end the other mounts of this volume, then try again".to_owned(),
        })
    }

    /// Becomes the owner. After a takeover this is for when nobody else believes to be one any more.
    async fn take_place(&self, tier: &dyn Tier, won: Won) -> Result<Claim> {
        let Won { claim, seen, beaten, is_taken } = won;
        let seen = if is_taken { self.now() } else { seen };
        *self.state.lock() = State::Ours { claim: claim.clone(), seen };
        if is_taken {
            self.look(tier, Duration::ZERO).await?;
        }
        clear_away(tier, &beaten).await;
        Ok(claim)
    }

    /// One attempt. Every call of the tier is a step after which others may come; there is no other
    /// wait in it. What was won and is taken from another must still wait before it counts.
    async fn claim_once(&self, tier: &dyn Tier, takes_over: bool) -> Result<Verdict> {
        let before = list(tier).await?;
        let last = before.last().map_or(0, |(epoch, _)| *epoch);
        // Of several with one epoch at most one has won, and it is not told which.
        let highest = before.iter().filter(|(epoch, _)| *epoch == last);
        for (epoch, id) in highest {
            match self.whose(tier, *epoch, id).await? {
                Whose::Gone => return Ok(Verdict::Contended),
                Whose::Others(holder) if !takes_over => return Ok(Verdict::Held(holder)),
                Whose::Others(_) | Whose::Ours => {}
            }
        }
        let claim = self.new_claim(last.checked_add(1).ok_or_else(|| overflow(tier))?);
        let seen = self.now();
        tier.put(&claim.key(), Bytes::from(claim.to_bytes())).await?;
        let after = list(tier).await?;
        let rival = |(epoch, id): &&(u64, String)| *epoch >= claim.epoch && *id != claim.id;
        let is_there = after.contains(&(claim.epoch, claim.id.clone()));
        if after.iter().any(|other| rival(&other)) || !is_there {
            tier.delete(&claim.key()).await?;
            return Ok(Verdict::Contended);
        }
        let beaten: Vec<_> = after.into_iter().filter(|(epoch, _)| *epoch < claim.epoch).collect();
        let older = beaten.iter().filter(|(epoch, _)| *epoch < last);
        let is_taken = takes_over || self.is_anothers(tier, older).await?;
        Ok(Verdict::Won(Won { claim, seen, beaten, is_taken }))
    }

    /// Whether one of these is another instance's: a takeover that ended before its wait did.
    async fn is_anothers(
        &self,
        tier: &dyn Tier,
        claims: impl Iterator<Item = &(u64, String)>,
    ) -> Result<bool> {
        for (epoch, id) in claims {
            if let Whose::Others(_) = self.whose(tier, *epoch, id).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn whose(&self, tier: &dyn Tier, epoch: u64, id: &str) -> Result<Whose> {
        let claim = match tier.get(&claim::key(epoch, id)).await {
            Ok(bytes) => Claim::parse(&bytes).ok().filter(|c| (c.epoch, &*c.id) == (epoch, id)),
            Err(Error::NotFound(_)) => return Ok(Whose::Gone),
            Err(error) => return Err(error),
        };
        match claim {
            Some(claim) if claim.instance == self.claimant.instance => Ok(Whose::Ours),
            other => Ok(Whose::Others(other)),
        }
    }

    fn new_claim(&self, epoch: u64) -> Claim {
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Claim {
            version: claim::VERSION,
            epoch,
            id: (self.new_id)(),
            instance: self.claimant.instance.clone(),
            host: self.claimant.host.clone(),
            pid: self.claimant.pid,
            time_s: now.as_secs(),
        }
    }

    fn now(&self) -> (Instant, SystemTime) {
        (self.clock.instant(), self.clock.now())
    }

    /// Whether what was seen then is young enough, by both clocks: one stands still while a machine
    /// sleeps, the other may be set.
    fn is_fresh(&self, seen: (Instant, SystemTime), leave: Duration) -> bool {
        let (instant, wall) = self.now();
        let by_wall = match wall.duration_since(seen.1) {
            Ok(passed) => passed,
            Err(set_back) => set_back.duration(),
        };
        instant.saturating_duration_since(seen.0) < leave && by_wall < leave
    }

    /// Makes sure that the place is ours, looking again when the last look is older than `leave`.
    pub async fn look(&self, tier: &dyn Tier, leave: Duration) -> Result<()> {
        if self.known(leave)? {
            return Ok(());
        }
        let _one = self.looking.lock().await;
        if self.known(leave)? {
            return Ok(());
        }
        let State::Ours { claim, .. } = self.state.lock().clone() else {
            return Err(refused(UNKNOWN));
        };
        let (mut seen, mut claims) = (self.now(), list(tier).await?);
        let ties: Vec<_> = claims.iter().filter(|other| ties(&claim, other)).cloned().collect();
        if !ties.is_empty() {
            clear_away(tier, &ties).await;
            // That may have taken longer than the first sight is good for.
            (seen, claims) = (self.now(), list(tier).await?);
        }
        if claims.is_empty() {
            // A place that is away may look like an empty one; nobody else is there either.
            return Err(refused("its claims cannot be seen now"));
        }
        let lost = match claims.last() {
            Some((epoch, id)) if *epoch > claim.epoch => Some(describe(tier, *epoch, id).await),
            _ if claims.iter().any(|(_, id)| *id == claim.id) => None,
            _ => Some("its claim is gone from the store".to_owned()),
        };
        self.note(lost, &claim, seen);
        self.known(Duration::MAX).map(drop)
    }

    fn note(&self, lost: Option<String>, claim: &Claim, seen: (Instant, SystemTime)) {
        *self.state.lock() = match lost {
            None => State::Ours { claim: claim.clone(), seen },
            Some(why) => {
                tracing::error!(
                    why,
                    "the cold tier is not this mount's any more: nothing is stored or deleted there"
                );
                State::Lost(why)
            }
        };
    }

    /// `Ok(true)`: ours, seen within `leave`. `Ok(false)`: to be looked at again.
    fn known(&self, leave: Duration) -> Result<bool> {
        match &*self.state.lock() {
            State::Ours { seen, .. } => Ok(self.is_fresh(*seen, leave)),
            State::Unknown => Err(refused(UNKNOWN)),
            State::Reader => Err(refused("it was opened for reading")),
            State::Lost(why) => Err(refused(&format!("it is not this mount's any more: {why}"))),
        }
    }
}

const UNKNOWN: &str =
    "the store did not answer since the mount, so that it is not known whose it is";

/// Epochs and ids of the claims, in order. A key of another form is somebody else's affair.
async fn list(tier: &dyn Tier) -> Result<Vec<(u64, String)>> {
    let found = tier.list(CLAIMS, None, MAX_CLAIMS).await?;
    if found.len() == MAX_CLAIMS {
        let reason = format!("more than {MAX_CLAIMS} objects below {CLAIMS}");
        return Err(Error::Damaged { what: "owner claims", reason });
    }
    Ok(found.iter().filter_map(|meta| claim::parse_key(&meta.key)).collect())
}

/// Whether the other has lost to this one, the owner's, and was not taken away by whoever wrote it.
fn ties(claim: &Claim, (epoch, id): &(u64, String)) -> bool {
    *epoch == claim.epoch && *id != claim.id
}

async fn clear_away(tier: &dyn Tier, claims: &[(u64, String)]) {
    for (epoch, id) in claims {
        if let Err(error) = tier.delete(&claim::key(*epoch, id)).await {
            tracing::warn!(%error, "an old claim stays in the cold tier");
        }
    }
}

/// Whose a claim is, for people.
async fn describe(tier: &dyn Tier, epoch: u64, id: &str) -> String {
    match tier.get(&claim::key(epoch, id)).await {
        Ok(bytes) => Claim::parse(&bytes).map_or_else(
            |_| "another mount has claimed it".to_owned(),
            |claim| format!("{} has claimed it", claim.who()),
        ),
        Err(_) => "another mount has claimed it".to_owned(),
    }
}

fn refused(why: &str) -> Error {
    TierFailure::error(FailureKind::NotOurs, "change", "the store", why)
}

fn overflow(tier: &dyn Tier) -> Error {
    Error::Damaged { what: "owner claim", reason: format!("the last epoch in {}", tier.describe()) }
}

/// The error of a place that another instance has.
fn held(tier: &dyn Tier, holder: Option<&Claim>) -> Error {
    let reason = match holder {
        Some(claim) => format!("another instance of this volume uses it: {}", claim.who()),
        None => "a claim in it cannot be read, so that another instance may use it".to_owned(),
    };
    Error::Unusable {
        tier: tier.describe(),
        reason,
        hint:
            "unmount it there; if that instance is gone for good, or this directory was copied or \
               moved, mount once with `-o takeover`"
                .to_owned(),
    }
}

#[cfg(test)]
mod tests;
