//! The FUSE adapter: translates kernel requests to [`crate::core::Core`] and does nothing else.
