//! What is said about one file: for `user.firn.*`, and for `firn policy explain`.

use anyhow::{Context, anyhow};
use firn_mount::core::Core;
use firn_mount::types::{FileKind, Ino};
use firn_mount::volume::Told;
use firn_tiering::classifier::Reason;
use firn_tiering::heat::features;

use super::Placement;
use super::foresight::name_of;
use crate::daemon::assemble::Parts;
use crate::failure::Explain;
use crate::report::placement::{self as report, FeatureFacts, Prediction};
use crate::utc::rfc3339;

/// Features that are told.
const TOLD: usize = 6;

impl Placement {
    /// The value of an attribute; `None` where nothing is known.
    pub(super) fn tell(&self, ino: Ino, what: Told) -> Option<String> {
        let file = self.bare(&self.names.inode(ino).ok()?.attr()).ok()?;
        match what {
            Told::Heat => Some(format!("{:.3}", file.heat)),
            Told::Reuse => file.p_reuse.map(|p| format!("{p:.3}")),
            Told::Policy => {
                let held = self.held();
                let decision = held.rules.decide(&file.subject());
                Some(held.rules.why(&file.subject(), &decision))
            }
        }
    }

    /// All that the policy says of a file that its user calls `name`.
    pub(super) fn explain(
        &self,
        parts: &Parts,
        ino: Ino,
        name: &str,
    ) -> anyhow::Result<report::Placement> {
        let what = || name.to_owned();
        if parts.volume.getattr(ino).with_context(what)?.kind != FileKind::File {
            return Err(anyhow!("is no file").context(what()))
                .hint("a policy decides about files: name one");
        }
        let candidate = self.candidate_at(parts, ino).with_context(what)?;
        let state = parts.volume.getxattr(ino, b"user.firn.state").with_context(what)?;
        let state = String::from_utf8_lossy(&state).into_owned();
        let held = self.held();
        let rate = parts.cold.as_ref().map(|cold| cold.throttle().status().achieved_bytes_per_s);
        let rate = rate.filter(|rate| *rate > 0).map(|rate| rate as f64);
        let (policy, rules) = (&held.policy, &held.rules);
        let mut told = report::Placement::of(what(), state, &candidate, policy, rules, rate);
        let holding = self.pins.holding(&self.names, ino, self.now_s()).with_context(what)?;
        if let (Some(pin), Some(holding)) = (&mut told.pin, holding) {
            let secs = holding.pin.until.and_then(|until| i64::try_from(until).ok());
            pin.until = secs.map(rfc3339);
        }
        told.prediction = self.prediction(ino, held.horizon_ms());
        Ok(told)
    }

    fn prediction(&self, ino: Ino, horizon_ms: u64) -> Option<Prediction> {
        let now = self.now_ms();
        let inode = self.names.inode(ino).ok()?;
        let history = self.uses.history(ino)?;
        let facts = self.uses.facts(&inode, &self.names.path(ino));
        let said = self.foresight.verdict(&history, &facts, now)?;
        let reasons = self.foresight.reasons(&features(&history, &facts, now));
        Some(Prediction {
            p_reuse: f64::from(said.p_reuse),
            verdict: name_of(said.decision).to_owned(),
            horizon_s: horizon_ms / 1000,
            percentile: self.percentile(said.p_reuse, now),
            features: reasons.iter().take(TOLD).map(fact).collect(),
        })
    }

    /// Share of the files that are known which are less likely to be used, in percent, among a
    /// sample of them.
    fn percentile(&self, p_reuse: f32, now_ms: u64) -> Option<f64> {
        const SAMPLE: usize = 512;
        let known = self.uses.some(SAMPLE);
        let said = known.iter().filter_map(|known| {
            let ino = Ino(known.place.item);
            let facts = self.uses.facts(&*self.names.inode(ino).ok()?, &self.names.path(ino));
            self.foresight.verdict(&known.history, &facts, now_ms)
        });
        let said: Vec<f32> = said.map(|said| said.p_reuse).collect();
        let below = said.iter().filter(|other| **other < p_reuse).count();
        (!said.is_empty()).then(|| 100.0 * below as f64 / said.len() as f64)
    }
}

fn fact(reason: &Reason) -> FeatureFacts {
    FeatureFacts {
        name: reason.feature.to_owned(),
        value: f64::from(reason.value),
        effect: f64::from(reason.effect),
    }
}
