//! What fuzzers feed; see `firn_tiering::fuzzing`.

pub use crate::backup::fuzzing::backup;
pub use crate::namespace::fuzzing::namespace;
pub use crate::stream::fuzzing::stream;

#[cfg(test)]
#[path = "../../tests/fuzz/src/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::corpus::replay;
    use super::*;

    #[test]
    fn what_fuzzers_found_stays_found() {
        replay("namespace", namespace);
        replay("stream", stream);
        replay("backup", backup);
    }
}
