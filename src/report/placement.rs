//! What `firn policy explain` says: what is to become of one file. The JSON object is [`Placement`];
//! its fields are only ever added to.

use std::fmt::Write;
use std::time::Duration;

use firn_tiering::segment::ParityPlace;
use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::names;
use super::policy::money;
use crate::policy::Policy;
use crate::policy::planner::{self, Candidate};
use crate::policy::rules::{Pin, Rules};
use crate::units::{rounded_bytes, rounded_duration};

/// A pin that holds for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinFacts {
    /// `hot` or `cold`.
    pub tier: String,
    /// `explicit`, or `inherited` from a directory above.
    pub source: String,
    /// That directory, from the root of the volume.
    pub from: Option<String>,
    /// When it goes by itself, in RFC 3339.
    pub until: Option<String>,
}

/// What a feature does to a prediction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureFacts {
    /// Its name.
    pub name: String,
    /// Its value for this file.
    pub value: f64,
    /// How much it adds to the probability, or takes from it when negative.
    pub effect: f64,
}

/// What the classifier says of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Probability of another access within the horizon.
    pub p_reuse: f64,
    /// `stays-cold`, `reused` or `unsure`.
    pub verdict: String,
    /// How far ahead, in seconds.
    pub horizon_s: u64,
    /// Share of the files in hot that are less likely to be read, in percent.
    pub percentile: Option<f64>,
    /// What mattered most, in this order.
    pub features: Vec<FeatureFacts>,
}

/// What it takes to have a file back in hot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecallCost {
    /// Bytes that would come from cold; those of the whole file while it is in hot.
    pub bytes: u64,
    /// Requests, about.
    pub requests: u64,
    /// How long, at the rate last measured; absent before there was any.
    pub seconds: Option<f64>,
    /// What it costs; absent without prices.
    pub cost: Option<f64>,
}

/// What is to become of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The path that was asked about.
    pub path: String,
    /// `dirty`, `resident`, `dual`, `partial`, `cold`, `fetching` or `error`.
    pub state: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Stored bytes in hot.
    pub hot_bytes: u64,
    /// Stored bytes that are verified in cold.
    pub cold_bytes: u64,
    /// Seconds since the content was changed.
    pub age_s: u64,
    /// Seconds since the last access.
    pub idle_s: u64,
    /// Accesses, the older the less they count.
    pub heat: f64,
    /// Its class.
    pub class: Option<String>,
    /// Where the parity of what is written to it lies: `inside`, `object` or `stores`.
    #[serde(default)]
    pub parity: String,
    /// `pin-hot`, `pin-cold`, `demote`, `promote`, `none`, `may-go` or `keep`.
    pub action: String,
    /// The rule that decided, from 1; absent where none did.
    pub rule: Option<u64>,
    /// Why.
    pub why: String,
    /// What stands against it now, as the reasons of a plan.
    pub blocked: Option<String>,
    /// The pin that holds.
    pub pin: Option<PinFacts>,
    /// What the classifier says; absent without one.
    pub prediction: Option<Prediction>,
    /// What it takes to have it back.
    pub recall: RecallCost,
    /// What prices are in.
    pub currency: Option<String>,
}

impl PinFacts {
    /// A pin without an end.
    fn of(pin: &Pin) -> Self {
        let from = pin.from.as_ref().map(|dir| names::text(dir));
        let source = if from.is_some() { "inherited" } else { "explicit" };
        Self { tier: pin.tier.name().to_owned(), source: source.to_owned(), from, until: None }
    }
}

impl RecallCost {
    /// That of a file, at a rate in bytes per second if one was measured.
    fn of(candidate: &Candidate, policy: &Policy, rate: Option<f64>) -> Self {
        let cold = candidate.subject().cold_only_bytes();
        // What is in hot would have to come back once it had gone.
        let bytes = if cold > 0 { cold } else { candidate.stored_bytes };
        let requests = planner::get_requests(bytes);
        let prices = &policy.tier.cold;
        Self {
            bytes,
            requests,
            seconds: rate.filter(|rate| *rate > 0.0).map(|rate| bytes as f64 / rate),
            cost: prices.has_prices().then(|| prices.get_cost(requests, bytes)),
        }
    }
}

impl Placement {
    /// All that the policy says of a file that its user calls `path` and whose `user.firn.state` is
    /// `state`. What the classifier says is for the caller to add, and when a pin ends.
    pub fn of(
        path: String,
        state: String,
        candidate: &Candidate,
        policy: &Policy,
        rules: &Rules,
        rate: Option<f64>,
    ) -> Self {
        let subject = candidate.subject();
        let decision = rules.decide(&subject);
        let obstacle = planner::obstacle(candidate, decision, &policy.defaults);
        Self {
            path,
            state,
            size_bytes: candidate.size,
            hot_bytes: candidate.hot_bytes,
            cold_bytes: candidate.cold_bytes,
            age_s: candidate.age.as_secs(),
            idle_s: candidate.idle.as_secs(),
            heat: f64::from(candidate.heat),
            class: rules.class_of(&subject).map(ToOwned::to_owned),
            parity: rules.parity_of(&subject).as_str().to_owned(),
            action: decision.action.name().to_owned(),
            rule: decision.rule().map(|index| index as u64 + 1),
            why: rules.why(&subject, &decision),
            blocked: obstacle.map(|skip| skip.name().to_owned()),
            pin: candidate.pin.as_ref().map(PinFacts::of),
            prediction: None,
            recall: RecallCost::of(candidate, policy, rate),
            currency: policy.tier.cold.currency.clone(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {}, {} long; as stored, {} lie in hot and {} in cold\n",
            escaped(&self.path),
            self.state,
            rounded_bytes(self.size_bytes),
            rounded_bytes(self.hot_bytes),
            rounded_bytes(self.cold_bytes)
        );
        let secs = |secs| rounded_duration(Duration::from_secs(secs));
        let _ = writeln!(
            text,
            "written {} ago, accessed {} ago, heat {:.2}",
            secs(self.age_s),
            secs(self.idle_s),
            self.heat
        );
        let class =
            self.class.as_ref().map_or_else(String::new, |class| format!(", class {class}"));
        let _ = writeln!(text, "{}: {}{class}", self.action, self.why);
        if self.parity != ParityPlace::Inside.as_str() {
            let _ = writeln!(text, "parity of what is written to it: {}", self.parity);
        }
        if let Some(blocked) = &self.blocked {
            let _ = writeln!(text, "not now: {blocked}");
        }
        if let Some(pin) = &self.pin {
            let from = pin.from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
            let until =
                pin.until.as_ref().map_or_else(String::new, |until| format!(" until {until}"));
            let _ = writeln!(text, "pin: {}, {}{from}{until}", pin.tier, pin.source);
        }
        if let Some(prediction) = &self.prediction {
            text.push_str(&prediction.text());
        }
        text.push_str(&self.recall.text(self.currency.as_deref()));
        text
    }
}

impl Prediction {
    fn text(&self) -> String {
        let horizon = rounded_duration(Duration::from_secs(self.horizon_s));
        let mut text = format!("p_reuse {:.3} within {horizon}: {}", self.p_reuse, self.verdict);
        if let Some(percentile) = self.percentile {
            let _ = write!(text, ", more likely than {percentile:.0} % of what is in hot");
        }
        text.push('\n');
        for feature in &self.features {
            let FeatureFacts { name, value, effect } = feature;
            let _ = writeln!(text, "  {name} = {value:.3}: {effect:+.3}");
        }
        text
    }
}

impl RecallCost {
    fn text(&self, currency: Option<&str>) -> String {
        let mut text =
            format!("recall: {} in about {} requests", rounded_bytes(self.bytes), self.requests);
        if let Some(seconds) = self.seconds.filter(|s| s.is_finite() && (0.0..1e12).contains(s)) {
            let _ = write!(text, ", {}", rounded_duration(Duration::from_secs_f64(seconds)));
        }
        if let Some(cost) = self.cost {
            let _ = write!(text, ", {}", money(cost, currency));
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests;
