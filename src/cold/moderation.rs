//! What the policy file says about the way to the cold tier, as settings of the throttle.

use anyhow::Context;
use firn_tiering::throttle::ThrottleConfig;

use super::ColdTier;
use crate::policy::Policy;
use crate::policy::settings::{ColdDown, Throttle};

impl ColdTier {
    /// Moderates the store as the policy says, from now on. Where it does not say what reads do
    /// while the store is away, what `firn.toml` says holds.
    pub fn moderate(&self, policy: &Policy) -> anyhow::Result<()> {
        let fail_fast = match policy.recall.cold_down {
            Some(said) => said == ColdDown::Fail,
            None => self.fails_fast,
        };
        let before = ThrottleConfig { fail_fast, ..self.throttle().config() };
        let config = settings(&policy.throttle, &before).context("throttle")?;
        Ok(self.throttle().set_config(config)?)
    }
}

/// `before` with what the policy says.
fn settings(policy: &Throttle, before: &ThrottleConfig) -> anyhow::Result<ThrottleConfig> {
    Ok(ThrottleConfig {
        timetable: policy.caps()?,
        latency_target: policy.latency_target.map(|period| period.0),
        back_off: policy.back_off,
        ..before.clone()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::policy::settings::{Rate, Slot};

    #[test]
    fn what_the_policy_says_of_a_store_that_is_away_comes_before_the_configuration() {
        use firn_tiering::tier::Memory;
        use std::sync::Arc;

        let fails = |configured, said| {
            let mut cold = ColdTier::plain(Arc::new(Memory::new()));
            Arc::get_mut(&mut cold).unwrap().fails_fast = configured;
            let mut policy = Policy::default();
            // Whatever was said before.
            policy.recall.cold_down =
                Some(if configured { ColdDown::Wait } else { ColdDown::Fail });
            cold.moderate(&policy).unwrap();
            assert_ne!(cold.throttle().config().fail_fast, configured);
            policy.recall.cold_down = said;
            cold.moderate(&policy).unwrap();
            cold.throttle().config().fail_fast
        };
        for configured in [true, false] {
            assert_eq!(fails(configured, None), configured);
            assert!(fails(configured, Some(ColdDown::Fail)));
            assert!(!fails(configured, Some(ColdDown::Wait)));
        }
    }

    #[test]
    fn a_timetable_comes_before_the_rate_and_nothing_is_no_cap() {
        let of = |policy: &Throttle| settings(policy, &ThrottleConfig::default());
        let none = Throttle::default();
        assert_eq!(of(&none).unwrap(), ThrottleConfig::default());
        let rate = Throttle { rate: Rate(Some(1 << 20)), ..none };
        assert_eq!(of(&rate).unwrap().timetable.cap_at(5), Some(1 << 20));
        let timetable = vec![
            Slot { minute: 480, rate: Rate(Some(50 << 20)) },
            Slot { minute: 1200, rate: Rate(None) },
        ];
        let both = Throttle { timetable, back_off: false, ..rate };
        let config = of(&both).unwrap();
        assert_eq!(config.timetable.to_string(), "08:00 50MiB/s, 20:00 off");
        assert!(!config.back_off);
        of(&Throttle { rate: Rate(Some(10)), ..Throttle::default() }).unwrap_err();
    }
}
