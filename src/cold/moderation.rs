//! What the policy file says about the way to the cold tier, as settings of the throttle.

use anyhow::Context;
use firn_tiering::throttle::ThrottleConfig;

use super::ColdTier;
use crate::policy::settings::Throttle;

impl ColdTier {
    /// Moderates the store as the policy says, from now on.
    pub fn moderate(&self, policy: &Throttle) -> anyhow::Result<()> {
        let config = settings(policy, &self.throttle().config()).context("throttle")?;
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
