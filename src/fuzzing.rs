//! What fuzzers feed; see `firn_tiering::fuzzing`.

use std::str::FromStr;

use crate::config::{ColdUrl, Config};
use crate::control::protocol::{self, MAX_REQUEST, Request};
use crate::policy::Policy;
use crate::units::{Period, Size};

pub use crate::daemon::fuzzing::state;

/// The text of a policy, and that of a `firn.toml`.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Policy::parse(text) {
        Ok(policy) => {
            policy.keep(b"/projA");
            policy.missing(&[b"/"]);
        }
        Err(errors) => {
            let lines = text.split('\n').count();
            assert!(!errors.0.is_empty(), "a refusal has a reason");
            assert!(errors.0.iter().all(|error| (1..=lines).contains(&error.line)));
        }
    }
    if let Ok(config) = Config::parse(text) {
        let again = Config::parse(&config.render()).expect("what was written is read");
        assert_eq!(again, config);
    }
    units(text);
}

fn units(text: &str) {
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse::<Size>(), Ok(size));
    }
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string().parse::<Period>(), Ok(period));
    }
    if let Ok(url) = ColdUrl::from_str(text) {
        assert_eq!(url.to_string().parse::<ColdUrl>(), Ok(url.clone()));
        assert!(url.url().password().is_none() && url.url().username().is_empty());
    }
}

/// What is sent to the control socket.
pub fn control(mut data: &[u8]) {
    while let Ok(Some(value)) = protocol::read_line::<serde_json::Value>(&mut data, MAX_REQUEST) {
        let Ok(request) = serde_json::from_value::<Request>(value) else { continue };
        let line = protocol::to_line(&request).expect("a request is JSON");
        let again = protocol::read_line(&mut line.as_slice(), 4 * MAX_REQUEST);
        assert_eq!(again.expect("what was written is read"), Some(request));
    }
}

#[cfg(test)]
#[path = "../tests/fuzz/src/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::corpus::replay;
    use super::*;

    #[test]
    fn what_fuzzers_found_stays_found() {
        replay("policy", policy);
        replay("control", control);
        replay("state", state);
    }
}
