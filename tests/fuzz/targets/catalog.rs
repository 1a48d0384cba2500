#![no_main]

firn_fuzz::target!(firn_tiering::fuzzing::catalog);
