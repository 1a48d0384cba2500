//! Firn: the command, the daemon and its configuration.
