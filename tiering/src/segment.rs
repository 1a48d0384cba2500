//! Segments: append-only runs of frames, sealed with an index, checksums and parity.
//! The stored bytes are specified in `tiering/FORMAT.md`.
